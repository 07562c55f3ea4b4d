"""How the epochs that a target takes grow with the batch: a curve of two numbers, fitted and resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scripts.reporting.plot import Plot, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = Sequence[float] | np.ndarray

# critical batches that are tried, in units of the smallest and of the largest batch; 1.4 % from one to the next
LEAST, MOST, TRIED = 1e-3, 1e3, 1501


@dataclass(frozen=True)
class Curve:
    """``epochs = fewest_epochs (1 + batch / critical_batch)``, of McCandlish et al. 2018 (arXiv 1812.06162).

    In optimizer steps it is ``steps = fewest_steps (1 + critical_batch / batch)``. Small batches take the fewest
    epochs, large ones the fewest steps, and at the critical batch, in images, each is twice its least. Both numbers may
    be arrays, one entry for each of several curves.
    """

    fewest_epochs: np.ndarray
    critical_batch: np.ndarray

    def epochs(self, batch: Numbers) -> np.ndarray:
        """Epochs at each ``batch``, in the last axis."""
        fewest, critical = (np.asarray(x)[..., None] for x in (self.fewest_epochs, self.critical_batch))
        return np.asarray(fewest * (1 + np.asarray(batch, dtype=float) / critical))

    def fewest_steps(self, images: int) -> np.ndarray:
        """Optimizer steps that no batch goes below, with ``images`` in an epoch."""
        return np.asarray(self.fewest_epochs * images / self.critical_batch)


def fit(batch: Numbers, epochs: Numbers) -> Curve:
    """The curve with the least squares of ``log(epochs / curve)``, so that every point counts by its relative error.

    ``batch`` (images, at least two different ones) and ``epochs`` have one entry for each point. ``epochs`` may have a
    first axis, each of whose rows gets its own fit. A fit of steps would be the same one, because steps are ``epochs *
    images / batch``. A critical batch of 1/1,000 of the smallest batch, or of 1,000 times the largest, is an end of the
    search: these points do not bound it. Raises ValueError with fewer than two different batches.
    """
    batch, logs = np.asarray(batch, dtype=float), np.log(np.asarray(epochs, dtype=float))
    if len(set(batch.tolist())) < 2:
        raise ValueError("a curve needs points at two different batches or more")
    tried = np.linspace(np.log(LEAST * batch.min()), np.log(MOST * batch.max()), TRIED)
    # for each critical batch the best fewest_epochs is known: the logarithm's intercept, which centring takes away
    shapes = np.log1p(batch / np.exp(tried)[:, None])
    shapes -= shapes.mean(axis=1, keepdims=True)
    squares = (shapes**2).sum(axis=1) - 2 * (logs @ shapes.T)
    best = np.clip(squares.argmin(axis=-1), 1, TRIED - 2)
    before, at, after = (np.take_along_axis(squares, (best + k)[..., None], -1)[..., 0] for k in (-1, 0, 1))
    # the vertex of the parabola through the three
    curvature = before - 2 * at + after
    vertex = np.divide(before - after, 2 * curvature, out=np.zeros_like(at), where=curvature > 0)
    critical = np.exp(tried[best] + np.clip(vertex, -1, 1) * (tried[1] - tried[0]))
    intercept = (logs - np.log1p(batch / critical[..., None])).mean(axis=-1)
    return Curve(np.exp(intercept), critical)


def resample(batch: Numbers, epochs: Numbers, resamples: int = 2000, seed: int = 0) -> Curve:
    """The curves of a residual bootstrap: fits to the fitted curve with its own residuals drawn anew, with replacement.

    Residuals are those of the logarithm, widened by ``sqrt(n / (n - 2))`` for the two numbers that were fitted to the
    ``n`` points (at least three). They tell how far points scatter about the curve, and not why.
    """
    n = len(batch)
    if n < 3:
        raise ValueError(f"{n} points leave no residuals: a bootstrap needs three or more")
    fitted = fit(batch, epochs).epochs(batch)
    residuals = np.log(np.asarray(epochs, dtype=float) / fitted) * np.sqrt(n / (n - 2))
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    return fit(batch, fitted * np.exp(residuals[drawn]))


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle 95 % of ``values`` along their first axis."""
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    return low, high


def law_points() -> list[dict[str, object]]:
    """The curve with both of its numbers 1: what theory says of any network."""
    shares = [2 ** (k / 4) for k in range(-20, 21)]
    of_one = Curve(np.array(1.0), np.array(1.0))
    return [
        {"share": f"{share:.4g}", "epochs": f"{epochs:.4g}", "steps": f"{epochs / share:.4g}"}
        for share, epochs in zip(shares, of_one.epochs(shares), strict=True)
    ]


def draw_law(axes: Axes, rows: Rows) -> None:
    share, steps, epochs = ([float(r[key]) for r in rows] for key in ("share", "steps", "epochs"))
    axes.plot(share, steps, color="#222222", linewidth=2)
    axes.plot(share, epochs, color="#888888", linewidth=2)
    axes.text(share[6], steps[4], "steps: the time, if\nGPUs grow with the batch", va="center", color="#222222")
    axes.text(share[-6], epochs[-5], "images:\nthe cost", ha="right", va="center", color="#666666")
    axes.text(1, 1.25, "each twice its least", ha="center", va="center", fontsize=9)
    axes.plot(1, 2, "o", color="#333333")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    ticks = [1 / 32, 1 / 8, 1 / 2, 1, 2, 8, 32]
    axes.set_xticks(ticks, ["1/32", "1/8", "1/2", "1", "2", "8", "32"])
    axes.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.minorticks_off()
    axes.set_xlabel("batch / critical batch")
    axes.set_ylabel("multiple of the fewest")


PLOTS = [Plot("critical-batch", law_points, draw_law, (6, 4))]
