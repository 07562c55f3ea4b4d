"""VR-LARS: the gradient's elements scaled by their signal-to-noise ratio, as published, on any number of ranks."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lars import LARS
from lars.tests.reference import reference
from tests.helpers import SMALL, App, connected, difference, gradients, join, parts, spawn, train_here
from train import app
from train.config.compose import compose
from train.data.loader import MicroBatch
from train.engine.variance_reduction import VarianceReduction
from train.errors import UserError
from train.processes.world import World


def scaled(of_groups: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Algorithm 1 of arXiv 2309.13681, one tensor at a time in float64, from the mean gradients of the k groups."""
    found = []
    for each in zip(*of_groups, strict=True):
        groups = torch.stack(each)
        g = groups.mean(0)
        r = g**2 / ((groups**2).mean(0) - g**2)
        found.append(g * (r / r.mean()).clamp(0.1, 1))
    return found


def of_groups(model: nn.Module, batches: list[MicroBatch], k: int) -> list[tuple[Tensor, ...]]:
    """The mean gradient of each of ``k`` groups of consecutive micro-batches."""
    each, size = [gradients(model, *batch) for batch in batches], len(batches) // k
    parts = [each[i : i + size] for i in range(0, len(each), size)]
    return [tuple(sum(same) / size for same in zip(*part, strict=True)) for part in parts]


@pytest.mark.parametrize("k", [None, 8])
def test_the_gradient_is_that_of_the_papers_algorithm_in_float64(model, micro_batches, k: int | None):
    model.train()
    # enough groups: of a few, outliers would make up the mean of the ratios
    batches = [*micro_batches, *((torch.randn_like(images), labels) for images, labels in 3 * micro_batches)]
    expected = scaled(of_groups(model, batches, k or len(batches)))
    connected(model, len(batches), variance_reduction=VarianceReduction(model, World(), k))(batches, lr=0.0)
    found = [p.grad for p in model.parameters()]
    # the step takes the loss of float32 logits, and a ratio amplifies what rounds
    assert difference(found, expected) < 1e-4
    # it is another gradient: no element grew, and most shrank
    plain = [sum(same) / len(batches) for same in zip(*of_groups(model, batches, len(batches)), strict=True)]
    assert difference(found, plain) > 0.1
    assert all((f.abs() <= p.abs() * 1.0001 + 1e-12).all() for f, p in zip(found, plain, strict=True))


def test_lars_steps_with_the_scaled_gradient(model, micro_batches):
    model.train()
    given = scaled(of_groups(model, micro_batches, len(micro_batches)))
    weights = [p.detach().clone() for p in model.parameters()]
    reference(weights, given, [torch.zeros_like(w) for w in weights], lr=2.0, m=0.9, wd=1e-4)
    lars = LARS(torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4))
    statistic = VarianceReduction(model, World(), None)
    connected(model, len(micro_batches), optimizer=lars, variance_reduction=statistic)(micro_batches, lr=2.0)
    for found, expected in zip(model.parameters(), weights, strict=True):
        assert (found - expected).norm() <= 1e-6 * expected.norm() + 1e-9


class Given(nn.Module):
    """A weight whose gradient is the mean of the given images."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum(1)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_elements_are_scaled_by_signal_over_noise_between_a_tenth_and_one(scale: float):
    """Gradients ``1 + noise`` and ``1 - noise``, of chosen noise, and elements without noise or without gradient."""
    model, noise = Given(6), torch.tensor([1.0, 1.0, 1.0, 2.0, 100.0, 0.0])
    signal = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    statistic = VarianceReduction(model, World(), None)
    statistic.begin(2)
    for sign in (1, -1):
        model((signal + sign * noise)[None]).mean().mul(scale / 2).backward()
        statistic.micro_batch()
    assert model.weight.grad is not None
    model.weight.grad /= scale
    statistic.end(torch.tensor(scale))
    # r is 1, 1, 1, 1/4, 1/10,000 and 0, and its mean 0.5417
    mean = (3 + 0.25 + 1e-4) / 6
    assert model.weight.grad.tolist() == pytest.approx([1, 1, 1, 0.25 / mean, 0.1, 0])


def test_a_gradient_that_is_not_finite_stays_so():
    model = Given(2)
    statistic = VarianceReduction(model, World(), None)
    statistic.begin(2)
    for value in (float("nan"), 1.0):
        model(torch.tensor([[value, 1.0]])).mean().div(2).backward()
        statistic.micro_batch()
    statistic.end(torch.ones(()))
    assert model.weight.grad is not None and not model.weight.grad[0].isfinite()


def step_on(rank: int, size: int, port: int, out: Path) -> None:
    world = join(rank, size, port)
    for groups in ("null", "4"):
        chosen = ("optimizer.variance_reduction=true", f"optimizer.variance_groups={groups}", "optimizer.lr=1")
        data, plan, model, config = parts(world, *chosen, "batch.micro=16")
        step = app.connect_step(config, plan, world, model)
        taken = data.make_loader(world, 0).training_batches(plan, 0, 0)
        for _ in range(2):
            step(islice(taken, plan.accumulation), lr=1.0)
        torch.save([p.grad for p in model.parameters()], out / f"{groups}-{size}-{rank}.pt")
    world.leave()


def test_one_two_and_four_processes_scale_the_same_gradient(tmp_path: Path):
    step_on(0, 1, 0, tmp_path)
    for size in (2, 4):
        spawn(step_on, size, tmp_path)
    for groups in ("null", "4"):
        alone, *others = (torch.load(tmp_path / f"{groups}-{name}.pt") for name in ("1-0", "2-0", "2-1", "4-0", "4-3"))
        assert all(difference(other, alone) < 1e-3 for other in others)


def test_a_run_says_that_its_variance_is_reduced_and_over_how_many_groups(tmp_path: Path, capsys):
    for groups, said in (("null", "over all micro-batches"), ("2", "over 2 groups of micro-batches")):
        chosen = ("optimizer.variance_reduction=true", f"optimizer.variance_groups={groups}", "max_steps=1")
        train_here(tmp_path / groups, *SMALL, *chosen)
        assert f"variance reduced {said}" in capsys.readouterr().out


def test_groups_that_are_not_whole_are_refused_in_one_line(app: App):
    with pytest.raises(UserError, match="optimizer.variance_groups=3 does not divide the 128 micro-batches of a step"):
        compose("batch=32k", "optimizer.variance_reduction=true", "optimizer.variance_groups=3")
    with pytest.raises(UserError, match="here it has one: give a smaller batch.micro"):
        compose("batch=256", "optimizer.variance_reduction=true")
    config = compose("batch=32k", "optimizer.variance_reduction=true", "optimizer.variance_groups=4")
    config.optimizer.check_groups(128, 2)
    with pytest.raises(UserError, match="=4 does not divide the 128 micro-batches of a step on 8 processes"):
        config.optimizer.check_groups(128, 8)
    done = app("batch=256", "optimizer.variance_reduction=true")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
