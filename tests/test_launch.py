"""How many processes a run takes on a machine with GPUs, and that a step on one never waits for the device."""

import signal
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from lars import LARS
from train.batchnorm import RunningStatistics
from train.errors import UserError
from train.launch import launch, process_count
from train.main import composed
from train.model import resnet8
from train.signals import ASKING
from train.step import Arithmetic, train_step
from train.world import World


@pytest.mark.parametrize(
    ("gpus", "overrides", "count", "remark"),
    [
        (0, [], 1, ""),
        (1, [], 1, ""),
        (8, ["data=imagenet"], 8, ""),
        (6, ["data=imagenet"], 4, "GPU 4, 5 idle"),
        (8, ["batch=32k"], 8, ""),
        (3, ["batch=32k"], 2, "using 2 of 3 GPUs"),
        (8, ["batch=256"], 1, "using 1 of 8 GPUs"),
        (0, ["nproc=4"], 4, ""),
        (8, ["data=imagenet", "nproc=2"], 2, ""),
    ],
)
def test_every_gpu_is_used_that_divides_the_batch(gpus, overrides, count, remark):
    processes, said = process_count(composed(*overrides), gpus)
    assert processes == count and remark in said and bool(said) == bool(remark)


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(UserError, match="nproc=9 is more than the 8 GPUs of this machine: use nproc=8"):
        process_count(composed("data=imagenet", "nproc=9"), 8)


def test_a_training_step_never_waits_for_the_device():
    """Meta tensors have no values, as a GPU's are not there yet: whatever would read one on the host raises."""
    device = torch.device("meta")
    with device:
        model = resnet8(num_classes=64)
        images, labels = torch.empty(8, 3, 32, 32), torch.empty(8, dtype=torch.int64)
    optimizer = LARS(torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4))
    world = World()
    for _ in range(2):
        loss = train_step(
            model, optimizer, [(images, labels)] * 2, 2, RunningStatistics(model, world), world,
            Arithmetic(device), lr=1.0, smoothing=0.1,
        )  # fmt: skip
    assert loss is not None and loss.device == device
    with pytest.raises(RuntimeError):
        loss.item()


@pytest.mark.parametrize(("is_finished", "code"), [(True, 0), (False, 75)])
def test_a_signal_that_meets_a_worker_in_its_last_moment_leaves_a_finished_run_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_finished: bool, code: int
):
    """While Python ends, its handlers are gone and a signal ends the process at once."""

    def run(_settings: object) -> None:
        raise ChildFailedError("main.py", {1: ProcessFailure(1, 1, -signal.SIGTERM, "none")})

    monkeypatch.setattr("torch.distributed.run.run", run)
    if is_finished:
        (tmp_path / "result.json").touch()
    handlers = {number: signal.getsignal(number) for number in ASKING}
    try:
        assert launch(2, [], tmp_path) == code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
