"""The curve of epochs against batch: known parameters come back, and other programs find the same."""

import numpy as np
import pytest

from scripts.reporting.critical_batch import Curve, fit, interval, resample
from scripts.reporting.mlperf import best_systems, columns, curves_table, never_beaten, points

BATCHES = np.array([64, 256, 1024, 2048, 4096, 8192])


def noisy(rng: np.random.Generator, batch: np.ndarray, scatter: float = 0.05) -> np.ndarray:
    return 30 * (1 + batch / 1500) * np.exp(rng.normal(0, scatter, len(batch)))


@pytest.mark.parametrize(("fewest", "critical"), [(34.5, 46_000), (3, 700), (90, 20), (12.5, 300_000)])
def test_points_on_a_curve_give_the_curve(fewest: float, critical: float):
    found = fit(BATCHES, fewest * (1 + BATCHES / critical))
    # between two of the critical batches that are tried
    assert (found.fewest_epochs, found.critical_batch) == pytest.approx((fewest, critical), rel=1e-4)


def test_steps_and_epochs_are_the_two_forms_of_one_curve():
    curve, images = Curve(np.array(34.5), np.array(46_000.0)), 1_281_167
    steps = curve.epochs(BATCHES) * images / BATCHES
    assert steps == pytest.approx(float(curve.fewest_steps(images)) * (1 + 46_000 / BATCHES))
    assert curve.epochs([46_000]) == pytest.approx([69]) and curve.fewest_steps(images) == pytest.approx(960.9, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_that_of_scipy_on_noisy_points(seed: int):
    optimize = pytest.importorskip("scipy.optimize")
    epochs = noisy(np.random.default_rng(seed), BATCHES, 0.2)

    def logarithm(batch: np.ndarray, fewest: float, critical: float) -> np.ndarray:
        return np.log(fewest) + np.log1p(batch / critical)

    theirs, _ = optimize.curve_fit(logarithm, BATCHES, np.log(epochs), p0=[20, 1000], xtol=1e-12, ftol=1e-12)
    ours = fit(BATCHES, epochs)
    assert (ours.fewest_epochs, ours.critical_batch) == pytest.approx(tuple(theirs), rel=2e-4)


def test_the_fit_of_steps_is_the_fit_of_epochs():
    optimize = pytest.importorskip("scipy.optimize")
    epochs, images = noisy(np.random.default_rng(3), BATCHES), 20_480
    ours = fit(BATCHES, epochs)

    def logarithm(batch: np.ndarray, fewest: float, critical: float) -> np.ndarray:
        return np.log(fewest) + np.log1p(critical / batch)

    theirs, _ = optimize.curve_fit(logarithm, BATCHES, np.log(epochs * images / BATCHES), p0=[500, 1000])
    assert (ours.fewest_steps(images), ours.critical_batch) == pytest.approx(tuple(theirs), rel=2e-4)


def test_rows_of_epochs_are_fitted_one_by_one():
    rng = np.random.default_rng(4)
    rows = np.stack([noisy(rng, BATCHES) for _ in range(5)])
    together = fit(BATCHES, rows)
    for i, row in enumerate(rows):
        alone = fit(BATCHES, row)
        assert together.critical_batch[i] == pytest.approx(float(alone.critical_batch), rel=1e-12)
        assert together.epochs([500, 5000])[i] == pytest.approx(alone.epochs([500, 5000]), rel=1e-12)


@pytest.mark.parametrize(("epochs", "at_end"), [(np.full(6, 35.0), 1e3 * 8192), (BATCHES / 10, 1e-3 * 64)])
def test_points_that_do_not_bound_the_critical_batch_end_at_the_end_of_the_search(epochs, at_end: float):
    assert fit(BATCHES, epochs).critical_batch == pytest.approx(at_end, rel=0.05)


def test_intervals_of_the_bootstrap_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(5)
    batch = np.repeat(BATCHES, 2)
    inside = []
    for _ in range(100):
        others = resample(batch, noisy(rng, batch), resamples=100)
        (low, high), (least, most) = interval(others.fewest_epochs), interval(others.critical_batch)
        inside.append((low < 30 < high, least < 1500 < most))
    # of 95 %: twelve points and 100 resamples make it a little narrow, 100 trials add 2 %
    assert all(0.86 < share < 1 for share in np.mean(inside, axis=0))


def test_the_same_points_give_the_same_intervals_and_exact_ones_none():
    epochs = noisy(np.random.default_rng(6), BATCHES)
    first, second = (interval(resample(BATCHES, epochs).critical_batch) for _ in range(2))
    assert first == second and first[1] > 1.05 * first[0]
    low, high = interval(resample(BATCHES, 30 * (1 + BATCHES / 1500), resamples=50).critical_batch)
    assert (low, high) == pytest.approx((1500, 1500), rel=1e-3)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="two different batches"):
        fit([64, 64, 64], [1, 2, 3])
    with pytest.raises(ValueError, match="2 points leave no residuals"):
        resample([64, 128], [1, 2])


def test_mlperfs_curve_is_the_one_that_was_found_without_this_program():
    # by another extraction from these logs, which took the last evaluation, and systems by their names
    curve = fit(*columns(best_systems(), "batch", "epochs"))
    assert (curve.fewest_epochs, curve.critical_batch) == pytest.approx((34.5, 46_000), rel=0.01)


def test_a_batch_is_beaten_when_a_larger_one_takes_fewer_epochs():
    rows = [{"batch": str(b), "epochs": str(e)} for b, e in ((1, 35), (2, 55), (3, 35), (4, 41), (5, 40.5))]
    assert [row["batch"] for row in never_beaten(rows)] == ["1", "3", "5"]


def test_mlperfs_table_and_picture_are_of_the_same_points():
    assert "| all | 42 | 34.4 (" in curves_table()
    drawn = points()
    (at,) = (p for p in drawn if p["what"] == "critical batch")
    assert sum(p["what"] == "best" for p in drawn) == 42
    assert float(str(at["epochs"])) == pytest.approx(2 * 34.4, abs=0.1)
