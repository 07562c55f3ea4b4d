"""The learning rate: the published formula, its ends, and what it is where the warm-up ends."""

import pytest

from train.schedule import learning_rate


def lr(step: int, steps: int = 900, warmup: float = 50, **options: bool) -> float:
    return learning_rate(step, base=29.0, steps=steps, warmup_steps=warmup, power=2, **options)


def test_warm_up_rises_linearly_to_the_base():
    assert [lr(t) for t in (0, 24, 49)] == pytest.approx([29 / 50, 29 / 2, 29])


def test_lr_drops_to_0_892_of_the_base_where_a_5_of_90_epoch_warm_up_ends():
    # NVIDIA/caffe counts the polynomial from iteration 0: (1 - 5/90)^2
    assert lr(50) / 29 == pytest.approx(0.8920, abs=1e-4)


def test_lr_goes_on_from_the_base_when_the_polynomial_counts_from_the_end_of_the_warm_up():
    assert lr(50, from_warmup=True) == 29
    assert lr(475, from_warmup=True) == pytest.approx(29 / 4)


def test_last_step_is_the_smallest_and_above_zero():
    rates = [lr(t) for t in range(50, 900)]
    assert rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(29 / 900**2)


def test_without_warm_up_the_first_step_has_the_base():
    assert lr(0, warmup=0) == 29


def test_a_warm_up_longer_than_the_run_never_passes_the_base():
    assert [lr(t, steps=10, warmup=20) for t in (0, 9)] == pytest.approx([29 / 20, 29 / 2])
    assert lr(3, warmup=2.5) < lr(2, warmup=2.5) == 29


def test_the_learning_rate_is_that_of_torchs_polynomial_scheduler():
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=29.0)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=900, power=2)
    for t in range(900):
        assert lr(t, warmup=0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()
