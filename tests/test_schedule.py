"""The learning rate: the published formulas, their ends, and the value where the warm-up ends."""

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.helpers import poly2
from train.config.compose import compose
from train.config.schema import Config
from train.plan import Plan
from train.schedule import make_schedule


def lr(step: int, steps: int = 900, warmup: float = 50, **changes: object) -> float:
    """poly(2) from 29, by steps."""
    epochs = steps // 10
    return poly2(step, 10, epochs, warmup_epochs=warmup / 10, **changes)


def test_warm_up_rises_linearly_to_the_base():
    assert [lr(t) for t in (0, 24, 49)] == pytest.approx([29 / 50, 29 / 2, 29])


def test_lr_drops_to_0_892_of_the_base_where_a_5_of_90_epoch_warm_up_ends():
    # NVIDIA/caffe counts the polynomial from iteration 0: (1 - 5/90)^2
    assert lr(50) / 29 == pytest.approx(0.8920, abs=1e-4)


def test_lr_goes_on_from_the_base_when_the_polynomial_counts_from_the_end_of_the_warm_up():
    assert lr(50, origin="warmup") == 29
    assert lr(475, origin="warmup") == pytest.approx(29 / 4)


def test_last_step_is_the_smallest_and_above_zero():
    rates = [lr(t) for t in range(50, 900)]
    assert rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(29 / 900**2)


def test_without_warm_up_the_first_step_has_the_base():
    assert lr(0, warmup=0) == 29


def test_a_warm_up_longer_than_the_run_never_passes_the_base():
    assert [lr(t, steps=10, warmup=20) for t in (0, 9)] == pytest.approx([29 / 20, 29 / 2])
    assert lr(3, warmup=2.5) < lr(2, warmup=2.5) == 29


def test_the_last_step_of_a_warm_up_of_2_2_epochs_has_the_base_and_the_next_is_of_the_polynomial():
    """2.2 * 25 is 55.00000000000001 in floating point."""
    lrs = [poly2(step, steps_per_epoch=25, epochs=20, lr=1.0, warmup_epochs=2.2) for step in (54, 55)]
    assert lrs == pytest.approx([1.0, (1 - 55 / 500) ** 2])


def test_the_learning_rate_is_that_of_torchs_polynomial_scheduler():
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=29.0)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=900, power=2)
    for t in range(900):
        assert lr(t, warmup=0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def schedule_of(config: Config, plan: Plan) -> Callable[[int], float]:
    return make_schedule(config.schedule, config.optimizer.lr, plan)


def torchs(scheduler: type, steps: int, lr: float, **options: object) -> Iterator[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule = scheduler(optimizer, **options)
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()


def test_cosine_is_torchs_from_the_end_of_the_warm_up():
    theirs = torchs(torch.optim.lr_scheduler.CosineAnnealingLR, 80, 3.2, T_max=80, eta_min=0.01)
    for step, lr in enumerate(theirs, start=20):
        ours = poly2(step, 1, 100, 3.2, warmup_epochs=20, origin="warmup", decay="cosine", end_lr=0.01)
        assert ours == pytest.approx(lr, rel=1e-9)


def test_steps_are_torchs_at_goyals_epochs():
    plan = Plan(32, 32, 1, 1, 320, 90)  # 10 steps an epoch
    lr = schedule_of(compose("recipe=goyal", "batch=8k", "schedule.warmup_epochs=0", "data=imagenet"), plan)
    theirs = torchs(torch.optim.lr_scheduler.MultiStepLR, 900, 3.2, milestones=[300, 600, 800], gamma=0.1)
    assert [lr(step) for step in range(900)] == pytest.approx(list(theirs), rel=1e-9)


def test_warm_up_starts_where_goyals_does():
    plan = Plan(32, 32, 1, 1, 320, 90)
    lr = schedule_of(compose("recipe=goyal", "batch=8k", "data=imagenet"), plan)
    rises = [b - a for a, b in zip([0.1, *map(lr, range(49))], map(lr, range(50)), strict=True)]
    assert rises == pytest.approx([3.1 / 50] * 50) and lr(49) == lr(50) == pytest.approx(3.2)


def test_mlperfs_polynomial_ends_at_its_end_lr():
    # training_rules.adoc: end + (base - end) (1 - done)^2, counted from the end of the warm-up
    lr = schedule_of(compose("recipe=mlperf", "batch=8k", "data=imagenet"), Plan(32, 32, 1, 1, 320, 44))
    assert lr(49) == lr(50) == 17
    for step in range(50, 440):
        assert lr(step) == pytest.approx(1e-4 + (17 - 1e-4) * (1 - (step - 50) / 390) ** 2, rel=1e-12)
