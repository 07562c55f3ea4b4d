"""``compile=true``: one graph of fixed shapes for each size of training images and one for evaluation, and no more."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor

from tests.helpers import rows, spawn, train_here
from train import app
from train.config.compose import compose
from train.output import checkpoint
from train.processes.signals import StopRequest
from train.processes.world import World
from train.resnet import resnet8

# two steps an epoch, of four micro-batches; 160 validation images: two batches of 64 and one of 32
EAGER = [
    "data.classes=4", "data.train_per_class=16", "data.val_per_class=40", "data.report_per_class=32",
    "data.size=32", "batch.total=32", "batch.micro=8", "precision=fp32",
]  # fmt: skip
RUN = [*EAGER, "compile=true"]
TRAINING, EVALUATION = (8, 3, 32, 32), (64, 3, 32, 32)


@contextmanager
def counted() -> Iterator[list[tuple[int, ...]]]:
    """Compile to nothing; the shapes of the images for which a graph was made, in the order of making."""
    shapes: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        images = [x for x in inputs if torch.is_tensor(x) and x.dim() == 4 and not isinstance(x, nn.Parameter)]
        # a bucket of DDP that is not the first takes activations
        shapes.extend(tuple(x.shape) for x in images if x.shape[1] == 3)
        return graph.forward

    compiled = nn.Module.compile
    torch._dynamo.reset()
    with mock.patch.object(nn.Module, "compile", lambda self, **how: compiled(self, backend=backend, **how)):
        yield shapes
    torch._dynamo.reset()


def test_a_fresh_run_compiles_once_for_training_and_once_for_evaluation(tmp_path: Path):
    with counted() as shapes:
        run = train_here(tmp_path, *RUN, "epochs=2")
    assert shapes == [TRAINING, EVALUATION]
    assert rows(run) == rows(train_here(tmp_path / "eager", *EAGER, "epochs=2"))


def test_a_run_resumed_at_an_evaluation_does_too(tmp_path: Path):
    with counted():
        run = train_here(tmp_path, *RUN, "epochs=2", "max_steps=2")
    newest = checkpoint.newest_first(run / "checkpoints")[0]
    state = checkpoint.load(newest)
    # as a kill between the epoch's last step and its row leaves it
    state["position"]["rows"] = 0
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    writer = checkpoint.CheckpointWriter(run / "checkpoints", keep=2)
    writer.save(2, state)
    writer.wait()
    with counted() as shapes:
        train_here(tmp_path, *RUN, "epochs=2")
    assert shapes == [EVALUATION, TRAINING]


@pytest.mark.slow
def test_images_that_grow_compile_once_for_each_size_however_many(tmp_path: Path):
    growing = ["epochs=5", "data.progressive.start=8", "data.progressive.epochs=[0,4]", "data.progressive.multiple=2"]
    # fewer than the sizes, so that the limit must be raised
    with counted() as shapes, mock.patch.object(torch._dynamo.config, "recompile_limit", 2):
        train_here(tmp_path, *RUN, *growing)
    sizes = [(8, 3, pixels, pixels) for pixels in (8, 14, 20, 26, 32)]
    assert shapes == [sizes[0], EVALUATION, *sizes[1:]]


def two(rank: int, size: int, port: int, folder: Path) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="localhost", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    world = World.join()
    config = compose(*RUN, "epochs=2", f"runs_dir={folder}", "name=run")
    with counted() as shapes:
        app.train(config, world, StopRequest(), "test")
    torch.save(shapes, folder / f"{rank}.pt")
    world.leave()


@pytest.mark.slow
def test_two_processes_compile_once_each_too(tmp_path: Path):
    spawn(two, 2, tmp_path)
    # two micro-batches a step on each: one whose gradients stay, one whose gradients are averaged
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [[TRAINING, EVALUATION]] * 2


def test_every_job_of_a_sweep_is_compiled():
    with counted() as shapes:
        for classes in range(2, 8):
            shapes.clear()
            model = resnet8(classes)
            app.compile_static([model], compose(*EAGER), World())
            model(torch.randn(*TRAINING)).sum().backward()
            with torch.no_grad():
                model.eval()(torch.randn(*EVALUATION))
            assert shapes == [TRAINING, EVALUATION]


@pytest.mark.slow
def test_the_average_of_the_weights_is_evaluated_as_compiled(tmp_path: Path):
    with counted() as shapes:
        train_here(tmp_path, *RUN, "epochs=2", "ema=0.9")
    assert shapes == [TRAINING, EVALUATION]


def test_compilers_of_all_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    with counted():
        app.compile_static([nn.Linear(1, 1)], compose(*EAGER), World(local_size=8))
    assert inductor.compile_threads == 8
