"""A batch that grows: the same images once an epoch, the schedule by epochs, exact when resumed and moved."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import SMALL, App, assert_same_run, plan_for, rows, train_here
from train.config.compose import compose
from train.data import loader
from train.errors import UserError
from train.plan import Plan
from train.schedule import make_schedule

# of SMALL's 512 images: 8 steps an epoch, then 4, then 2
GROW = "batch.grow=[[0,64],[1,128],[3,256]]"
CHOSEN = [*SMALL, "epochs=4", "schedule.warmup_epochs=1.5", "batch.total=64", GROW]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_for(compose(*CHOSEN), 512)


def test_steps_epochs_and_images_are_counted_by_hand(plan: Plan):
    assert plan.steps == 8 + 4 + 4 + 2 and plan.images(plan.steps) == 4 * 512
    assert [plan.first_step(epoch) for epoch in range(5)] == [0, 8, 12, 16, 18]
    assert [plan.locate(step) for step in (0, 7, 8, 11, 12, 17, 18)] == [
        (0, 0), (0, 7), (1, 0), (1, 3), (2, 0), (3, 1), (4, 0)
    ]  # fmt: skip
    assert [plan.images(step) for step in (1, 8, 9, 16, 17)] == [64, 512, 640, 1536, 1792]
    assert [plan.accumulation_in(epoch) for epoch in range(4)] == [2, 4, 4, 8]


def test_an_epoch_has_the_same_order_of_images_whatever_its_batch(plan: Plan):
    order = np.random.default_rng(0).permutation(512)
    for epoch in range(4):
        assert np.array_equal(np.concatenate(list(loader.micro_batches(plan, epoch, order, 0, 0))), order)
    shared = plan_for(compose(*CHOSEN), 512, 2)
    ranks = [list(loader.micro_batches(shared, 3, order, 1, rank)) for rank in range(2)]
    assert np.array_equal(np.concatenate([*ranks[0], *ranks[1]]), order[256:])


@pytest.mark.parametrize("decay", ["poly", "cosine", "step"])
def test_the_lr_follows_epochs_and_does_not_jump_when_the_batch_grows(decay: str):
    config = compose(*CHOSEN, f"schedule.decay={decay}", "schedule.milestones=[1,2]", "optimizer.lr=2")
    growing = plan_for(config, 512)
    fixed = plan_for(compose(*SMALL, "epochs=4", "batch.total=64"), 512)
    lr, same = (make_schedule(config.schedule, 2.0, plan) for plan in (growing, fixed))
    for step in range(growing.steps):
        epoch, since = growing.locate(step)
        at = (epoch + since * growing.total_in(epoch) / 512) * 8
        if at < 12 and step >= 8:
            # in the warm-up a step has what the lr reaches in it
            assert lr(step) == pytest.approx(min((at + 2) / 12, 1) * 2)
        else:
            assert lr(step) == pytest.approx(same(int(at)))


def test_without_growth_the_schedule_is_to_the_last_bit_what_it_was(plan: Plan):
    fixed, same = plan_for(compose(*SMALL), 512), plan_for(compose(*SMALL, "batch.grow=[[0,128]]"), 512)
    assert all(fixed.as_first(step) == step for step in range(fixed.steps)) and fixed == same


def test_stopped_anywhere_it_equals_the_uninterrupted_run_bit_for_bit(tmp_path: Path, capsys):
    for name, stops in (("whole", ()), ("stopped", (5, 8, 10, 17))):
        for stop in (*(f"max_steps={stop}" for stop in stops), "max_steps=null"):
            train_here(tmp_path / name, *CHOSEN, "noise_scale=true", stop)
    assert_same_run(tmp_path / "whole/run", tmp_path / "stopped/run")
    logged = rows(tmp_path / "whole/run")
    assert [(row["step"], row["images"]) for row in logged] == [(8, 512), (12, 1024), (16, 1536), (18, 2048)]
    said = capsys.readouterr().out
    assert "64 from epoch" not in said and "128 from epoch 1 on, 256 from epoch 3 on" in said


def test_two_processes_end_as_one(app: App, tmp_path: Path):
    # at larger learning rates rounding alone grows to more
    for processes in (1, 2):
        done = app(*CHOSEN, "optimizer.lr=0.1", f"name=run{processes}", f"nproc={processes}")
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"runs/run{processes}/weights.pt") for processes in (1, 2))
    for key, a in one.items():
        assert (a.double() - two[key].double()).norm() <= 1e-4 * a.double().norm(), key


@pytest.mark.parametrize(
    ("grow", "said"),
    [
        ("[[1,64]]", "must be pairs of an epoch, counted from 0"),
        ("[]", "must be pairs of an epoch"),
        ("[[0,64],[0,128]]", "must be pairs of an epoch"),
        ("[[0,64,1]]", "must be pairs of an epoch"),
        ("[[0,64],[2,100]]", "a batch of batch.grow=100 is not a multiple of batch.micro=32: batch.micro=4 divides it"),
        ("[[0,64],[2,1024]]", "batch.total=1024 is more than the 512 training images"),
        ("[[0,128],[2,256]]", "give batch.total=128, or begin the growth with [0,64]"),
        ("[[0,64],[2,128],[90,256]]", "epoch 90 never comes, since epochs=90 are 0 to 89: give epochs=91 or more"),
    ],
)
def test_growth_that_makes_no_sense_is_refused_in_one_line(grow: str, said: str):
    with pytest.raises(UserError, match=re.escape(said)):
        compose(*SMALL, "batch.total=64", f"batch.grow={grow}")


def test_on_data_that_divide_the_batch_growth_begins_with_the_presets_share_of_it():
    grow = "batch.grow=[[0,1024],[15,4096]]"
    assert compose("batch=8k", grow).batch.total == 1024
    with pytest.raises(UserError, match=r"begins with 1024 images and batch.total=8192: give batch.total=1024"):
        compose("batch=8k", "data=imagenet", grow)
    # the lr is then that of the first batch
    assert compose("batch=8k", "data=imagenet", "batch.total=1024", grow).optimizer.lr < 12.8


def test_processes_must_share_every_batch_of_it():
    config = compose(*SMALL, "batch.total=64", "batch.grow=[[0,64],[1,192]]")
    assert plan_for(config, 512, 2).accumulation_in(1) == 3
    with pytest.raises(UserError, match="always multiples of 2 micro-batches of batch.micro=32, which 3 processes"):
        plan_for(config, 512, 3)
