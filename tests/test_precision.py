"""fp16 with a loss scale, and what each precision asks of a device."""

from pathlib import Path
from unittest import mock

import pytest
import torch

from tests.helpers import assert_same_run, build, rows, train_here
from train import app
from train.config.compose import compose
from train.data.loader import MicroBatch
from train.engine import precision
from train.engine.precision import Precision, check_precision, describe_device
from train.engine.step import Step
from train.errors import Diverged, UserError
from train.output import checkpoint
from train.plan import make_plan
from train.processes.world import World

TINY = [
    "data.classes=4", "data.train_per_class=16", "data.val_per_class=4", "batch.total=32", "batch.micro=16",
    "precision=fp16",
]  # fmt: skip


def test_an_fp16_run_skips_the_step_that_overflows_goes_on_and_resumes_with_its_scale(tmp_path: Path):
    lrs: list[float] = []
    with overflowing(at=1, lrs=lrs):
        whole = train_here(tmp_path / "whole", *TINY, "epochs=3")
    assert len(rows(whole)) == 3
    with overflowing(at=1, lrs=[]):
        run = train_here(tmp_path / "parts", *TINY, "epochs=3", "max_steps=3")
    saved = checkpoint.load(checkpoint.newest_first(run / "checkpoints")[0])
    # one overflow halves it, and the two steps without one are counted
    assert (saved["scaler"]["scale"], saved["scaler"]["_growth_tracker"]) == (2.0**15, 1)
    train_here(tmp_path / "parts", *TINY, "epochs=3")
    assert_same_run(whole, run)
    # the schedule is a function of the step, skipped or not
    plan = make_plan(compose(*TINY, "epochs=3").batch, 3, 64, 1)
    config = compose(*TINY, "epochs=3")
    schedule = app.make_schedule(config.schedule, config.optimizer.lr, plan)
    assert lrs == [schedule(step) for step in range(6)]


def overflowing(at: int, lrs: list[float]) -> mock._patch:
    """Gradients of step ``at`` overflow; ``lrs`` gets the learning rate of every step."""
    call = Step.__call__

    def spoiled(self: Step, batches: list[MicroBatch], lr: float) -> torch.Tensor:
        lrs.append(lr)
        if len(lrs) - 1 != at:
            return call(self, batches, lr)
        first = next(self.model.parameters())
        before = first.detach().clone()
        hook = first.register_hook(lambda g: g.fill_(torch.inf))
        loss = call(self, batches, lr)
        hook.remove()
        assert torch.equal(first, before) and loss.isfinite()
        return loss

    return mock.patch.object(Step, "__call__", spoiled)


def test_gradients_that_overflow_at_every_scale_are_a_divergence(tmp_path: Path):
    call = Step.__call__

    def spoiled(self: Step, batches: list[MicroBatch], lr: float) -> torch.Tensor:
        hook = next(self.model.parameters()).register_hook(lambda g: g.fill_(torch.inf))
        loss = call(self, batches, lr)
        hook.remove()
        return loss

    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with (
        mock.patch.object(Precision, "scaler", lambda self: scaler),
        mock.patch.object(Step, "__call__", spoiled),
        pytest.raises(Diverged, match="at step 1 "),
    ):
        train_here(tmp_path, *TINY, "epochs=2")


def test_the_scaled_gradients_of_fp16_are_those_of_fp32():
    """Where no gradient overflows or underflows, a power of two changes no digit."""
    world, data, plan, model, config = build(0, 1, 0)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    found = []
    for name in ("fp32", "fp16"):
        config.precision = name
        step = app.connect_step(config, make_plan(config.batch, 1, 512, 1), world, model)
        if name == "fp16":
            # the scale alone, in fp32
            object.__setattr__(step, "precision", Precision(torch.device("cpu")))
        step([(images, labels)], lr=0.0)
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("name", "capability", "said"), [
    ("fp32", (7, 0), "fp32 LEAVES ITS TENSOR CORES IDLE: give precision=fp16"),
    ("fp32", (9, 0), "fp32 LEAVES ITS TENSOR CORES IDLE: give precision=bf16"),
    ("fp16", (7, 0), "no record of a run on a GPU yet"),
])  # fmt: skip
def test_the_banner_names_the_device_and_says_when_tensor_cores_idle_and_what_is_untried(name, capability, said):
    with (
        mock.patch.object(torch.cuda, "get_device_name", lambda _: "a GPU"),
        mock.patch.object(torch.cuda, "get_device_capability", lambda _: capability),
    ):
        remark = describe_device(name, torch.device("cuda"))
    assert remark.startswith("a GPU; ") and said in remark and ("IDLE" in remark) == (name == "fp32")
    assert describe_device("fp32", torch.device("cpu")).endswith("a process: torch finds no NVIDIA GPU")


def test_tf32_is_refused_where_there_is_none():
    with pytest.raises(UserError, match="precision=tf32 needs an NVIDIA GPU .* give fp32"):
        check_precision("tf32", torch.device("cpu"))
    with mock.patch.object(torch.cuda, "get_device_capability", lambda _: (7, 5)), pytest.raises(UserError):
        check_precision("tf32", torch.device("cuda"))
    with mock.patch.object(torch.cuda, "get_device_capability", lambda _: (8, 0)):
        check_precision("tf32", torch.device("cuda"))


def test_fp32_is_tf32_by_that_name_alone():
    # another test may have frozen the flags
    free = torch.backends.__allow_nonbracketed_mutation()
    with free, mock.patch.object(torch.cuda, "is_available", lambda: True):
        for name, allowed in (("tf32", True), ("fp32", False), ("bf16", False)):
            precision.set_up_cuda(name)
            assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == allowed
        torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize(("gpus", "device"), [(8, "cuda:3"), (1, "cuda:0"), (0, "cpu")])
def test_a_process_takes_the_gpu_of_its_local_rank_or_the_only_one_that_it_is_shown(gpus: int, device: str):
    with mock.patch.object(torch.cuda, "device_count", lambda: gpus):
        assert World(local_rank=3).device == torch.device(device)
