"""Steps to the target against batch, experiment (b): its tables, the fits of both optimizers, and the pictures."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts import matrix
from scripts.matrix import IMAGES, Experiment, lr_of
from scripts.records import Record, on_fractals
from scripts.reporting.critical_batch import Curve, fit, interval, resample
from scripts.reporting.experiments.accuracy import DIVISOR, NAMES
from scripts.reporting.experiments.seeds import seeds_of
from scripts.reporting.plot import GREY, LINES, NEAR, Plot, Rows, colour_of, columns, label_ends, log_axis, mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEDS = 1 + len(matrix.TARGET_SEEDS)
CHOOSING = 0  # the seed on which lr was chosen
FITTED = 3  # batches that a curve of two numbers needs at least, so that it can be wrong
STEP_TICKS, EPOCH_TICKS = (100, 200, 500, 1000, 2000, 5000, 10000), (15, 20, 30, 40, 60, 80, 120)


@dataclass(frozen=True)
class Point:
    """One batch and optimizer: the search for lr, and the runs at the best."""

    images: int  # a step
    optimizer: str
    tried: list[Experiment]
    best: Experiment | None  # once the search is settled
    runs: list[Record]  # at the best lr, by seed, as far as they are done

    @property
    def is_whole(self) -> bool:
        return len(self.runs) == SEEDS

    @property
    def reached(self) -> list[Record]:
        """Those that reached the target."""
        return [r for r in self.runs if r.result and r.reached["reached_top1"]]

    def epochs(self, run: Record) -> float:
        """Training images that the run took, in units of all of them: less than its epochs, which leave out a rest."""
        return float(run.rows[-1]["step"]) * self.images / IMAGES


def points(optimizer: str) -> list[Point]:
    found = []
    for images in matrix.EPOCHS:
        tried, best = matrix.target_search(images, optimizer)
        runs = seeds_of("target", best.name.rpartition("-seed")[0]).runs if best else []
        found.append(Point(images, optimizer, tried, best, runs))
    return found


def steps(run: Record) -> str:
    """Of a run of (b): its steps to the target, or how it failed."""
    if run.result is None:
        return "diverged"
    reached = run.reached
    return f"{reached['steps']:,}" if reached["reached_top1"] else f"missed ({reached['best_top1']:.1f} %)"


def table() -> str:
    """Steps to the target by lr, and of every seed at the best."""
    lines = [
        "| images a step | optimizer | steps by lr, seed 0 | best lr | steps there, each seed | epochs of images |",
        "|---|---|---|---|---|---|",
    ]
    for of_batch in zip(*map(points, matrix.OPTIMIZERS), strict=True):
        for p in of_batch:
            trials = {f"{lr_of(e):g}": on_fractals("target")[e.name] for e in p.tried if e.is_done}
            by_lr = ", ".join(f"{lr}: {steps(run)}" for lr, run in trials.items()) or "missing"
            is_edge = p.best in (p.tried[0], p.tried[-1])
            best = f"{lr_of(p.best):g}" + (" (edge)" if is_edge else "") if p.best else "-"
            each = ", ".join(map(steps, p.runs)) or "missing"
            epochs = f"{statistics.mean(map(p.epochs, p.reached)):.1f}" if p.reached else "-"
            lines.append(f"| {p.images:,} | {NAMES[p.optimizer]} | {by_lr} | {best} | {each} | {epochs} |")
    return "\n".join(lines)


def runs_at_best(optimizer: str, chose: bool = True) -> list[tuple[Point, Record]]:
    """Those that are done; without the seed that chose lr unless ``chose``."""
    return [(p, r) for p in points(optimizer) for r in p.runs if chose or r.config.seed != CHOOSING]


def waits(optimizer: str, chose: bool = True) -> str:
    """Why there is no fit yet; empty if there is one."""
    missing = sum(not p.is_whole for p in points(optimizer))
    if missing:
        return f"waits for {missing} of {len(matrix.EPOCHS)} batches"
    reached = {p.images for p, r in runs_at_best(optimizer, chose) if r in p.reached}
    return "" if len(reached) >= FITTED else f"fewer than {FITTED} batches reached it"


def curves(optimizer: str, chose: bool = True) -> tuple[Curve, Curve] | None:
    """The fit to the runs that reached the target, and its resamples; None where ``waits`` has a reason."""
    if waits(optimizer, chose):
        return None
    runs = [(p, r) for p, r in runs_at_best(optimizer, chose) if r in p.reached]
    return fitted(tuple(p.images for p, _ in runs), tuple(p.epochs(r) for p, r in runs))


@cache
def fitted(batch: tuple[int, ...], epochs: tuple[float, ...]) -> tuple[Curve, Curve]:
    """Resampling takes a second, and several tables and plots need the same."""
    return fit(batch, epochs), resample(batch, epochs)


def with_bounds(shape: str, of: Callable[[Curve], Any], one: Curve, many: Curve) -> str:
    low, high = interval(of(many))
    return f"{shape} ({shape}-{shape})".format(float(of(one)), float(low), float(high))


critical_batch = partial(with_bounds, "{:,.0f}", lambda curve: curve.critical_batch)


def fits_table() -> str:
    """The two numbers of each optimizer's curve: of all seeds, and of those that had no say in the choice of lr."""
    lines = [
        "| optimizer | seeds | runs that reached it | batches | fewest steps (95 %) | fewest epochs (95 %) "
        "| critical batch (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for optimizer in matrix.OPTIMIZERS:
        for chose, seeds in ((True, "all"), (False, " and ".join(map(str, matrix.TARGET_SEEDS)))):
            runs = runs_at_best(optimizer, chose)
            reached = [p.images for p, r in runs if r in p.reached]
            cells = [seeds, f"{len(reached)} of {len(runs)}", str(len(set(reached)))]
            if found := curves(optimizer, chose):
                cells += [with_bounds("{:,.0f}", lambda curve: curve.fewest_steps(IMAGES), *found),
                          with_bounds("{:.1f}", lambda curve: curve.fewest_epochs, *found),
                          critical_batch(*found)]  # fmt: skip
            else:
                cells += [waits(optimizer, chose), "-", "-"]
            lines.append(f"| {NAMES[optimizer]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plotted(in_steps: bool) -> list[dict[str, object]]:
    """Every run at the best lr, and the curves from the smallest batch to the largest that reached the target."""
    found: list[dict[str, object]] = []
    for optimizer in matrix.OPTIMIZERS:
        of = points(optimizer)
        found += [
            {"what": "run" if r in p.reached else "missed", "optimizer": optimizer, "batch": p.images,
             "y": int(r.rows[-1]["step"]) if in_steps else round(p.epochs(r), 3), "low": "", "high": ""}
            for p in of for r in p.runs if r.result
        ]  # fmt: skip
        if both := curves(optimizer):
            batches = [p.images for p in of if p.reached]
            xs = np.geomspace(min(batches), max(batches), 29)
            scale = IMAGES / xs if in_steps else np.ones_like(xs)
            one, (low, high) = both[0].epochs(xs) * scale, interval(both[1].epochs(xs) * scale)
            found += [{"what": "curve", "optimizer": optimizer, "batch": f"{x:.0f}", "y": f"{y:.4g}",
                       "low": f"{a:.4g}", "high": f"{b:.4g}"}
                      for x, y, a, b in zip(xs, one, low, high, strict=True)]  # fmt: skip
    return found


def draw(in_steps: bool, axes: Axes, rows: Rows) -> None:
    ends = []
    for optimizer in matrix.OPTIMIZERS:
        of = [r for r in rows if r["optimizer"] == optimizer]
        for _, runs in itertools.groupby((r for r in of if r["what"] == "run"), key=lambda r: r["batch"]):
            batch, y = columns(list(runs), "batch", "y")
            beside = [b * 2 ** (0.09 * (k - (len(y) - 1) / 2)) for k, b in enumerate(batch)]
            mark(axes, beside, y, optimizer, colour_of(DIVISOR * batch[0]))
            end = (beside[-1], y[-1])
        for missed in (r for r in of if r["what"] == "missed"):
            at = float(missed["batch"]), float(missed["y"])
            axes.annotate("", at, (0, 12), textcoords="offset points",
                          arrowprops={"arrowstyle": "<-", "color": colour_of(DIVISOR * at[0])})  # fmt: skip
        x, y, low, high = columns([r for r in of if r["what"] == "curve"], "batch", "y", "low", "high")
        if x:
            axes.fill_between(x, low, high, color=GREY, alpha=0.15, linewidth=0)
            axes.plot(x, y, LINES[optimizer], color=GREY, linewidth=1.6)
            axes.plot(x, [y[0] * (x[0] / b if in_steps else 1) for b in x], ":", color="#999999", linewidth=1)
            end = (max(x[-1], end[0]), y[-1])
        ends.append((*end, NAMES[optimizer], NEAR["color"]))
    batches = list(matrix.EPOCHS)
    axes.set_xscale("log", base=2)
    axes.set_xlim(batches[0] / 1.4, 2.8 * batches[-1])  # with room for the names at the curves' ends
    axes.set_xticks(batches, [f"{images:,}" for images in batches], rotation=30)
    log_axis(axes, STEP_TICKS if in_steps else EPOCH_TICKS)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("images a step")
    axes.set_ylabel(f"{'steps' if in_steps else 'epochs of images'} to {matrix.TARGET:g} % top-1, each seed")
    axes.set_title("ResNet-8 on fractals (not ImageNet),\nthe best lr of each batch and optimizer", fontsize=10)
    label_ends(axes, ends)


PLOTS = [
    Plot("steps-to-target", partial(plotted, True), partial(draw, True), (4.8, 4.4)),
    Plot("epochs-to-target", partial(plotted, False), partial(draw, False), (4.8, 4.4)),
]
