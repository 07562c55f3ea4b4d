"""The two drawings in which every seed is seen: the curves of one batch, and where runs end."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from scripts.matrix import IMAGES, OPTIMIZERS
from scripts.reporting.plot import COLOURS, GREY, LINES, NEAR, Rows, columns, label_ends, log_axis, mark
from train.data.dataset import ILSVRC_2012

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_EPOCHS = 90
STEP = "images a step, share of the training set, updates,\nImageNet batch with as many updates"
MEDIAN_OF = 5  # seeds; of fewer, the median is hardly more than one of them


def draw_curves(axes: Axes, rows: Rows, key: str) -> None:
    """``key`` by epoch, of runs of one batch: a thin line for each seed, and a bold one through their medians."""
    (batch,) = {row["batch"] for row in rows}
    ends = {}
    for optimizer in OPTIMIZERS:
        of = [row for row in rows if row["optimizer"] == optimizer]
        runs = [columns(list(run), "epoch", key) for _, run in itertools.groupby(of, key=lambda row: row["seed"])]
        if not runs:
            continue
        has_median = len(runs) >= MEDIAN_OF
        for epochs, values in runs:
            axes.plot(epochs, values, LINES[optimizer], color=COLOURS[batch], linewidth=0.7 if has_median else 1,
                      alpha=0.6 if has_median else 1)  # fmt: skip
        if has_median:
            medians = [statistics.median(at) for at in zip(*(values for _, values in runs), strict=True)]
            axes.plot(epochs, medians, LINES[optimizer], color=COLOURS[batch], linewidth=1.5)
        last = [value for _, values in runs for value in values[-ROW_EPOCHS // 5 :]]
        ends[optimizer] = (statistics.median(values[-1] for _, values in runs), max(last), min(last))
    # values fall: there is room above the end of the upper ones and below that of the lower ones
    for optimizer, (end, highest, lowest) in ends.items():
        is_upper = end == max(ends.values())[0]
        axes.annotate(optimizer.upper(), (ROW_EPOCHS, highest if is_upper else lowest), (0, 5 if is_upper else -5),
                      ha="right", va="bottom" if is_upper else "top", **NEAR)  # fmt: skip
    axes.set_title(f"batch={batch}", fontsize=10)
    axes.margins(y=0.12)  # with room for the lower name
    axes.set_xlim(0, ROW_EPOCHS)
    axes.set_xticks([0, 30, 60, 90])
    axes.set_xlabel("epoch")


def what_a_step_is(images: int) -> dict[str, object]:
    """Updates in 90 epochs on fractals, percent of the training images in one, and ImageNet's batch of as many."""
    updates = IMAGES // images * ROW_EPOCHS
    return {"updates": updates, "share": f"{100 * images / IMAGES:.2g}",
            "imagenet": round(ILSVRC_2012[0] * ROW_EPOCHS / updates)}  # fmt: skip


def step_ticks(rows: Rows) -> dict[str, str]:
    """The label of each batch: what a step is there."""
    return {
        row["batch"]: f"batch={row['batch']}\n{int(row['images']):,} images\n{row['share']} %\n"
        f"{int(row['updates']):,} updates\nImageNet: {int(row['imagenet']) / 1000:.0f}k"
        for row in sorted(rows, key=lambda row: int(row["images"]))
    }


def draw_ends(axes: Axes, rows: Rows, key: str, ticks: dict[str, str]) -> None:
    """``error`` of every seed, LARS to the left and SGD to the right of the tick of its ``key``, and medians as lines.

    No line leads from the batch of 256, five octaves away: SGD's median there is a dotted line through all.
    """
    label = []
    for optimizer, side in zip(OPTIMIZERS, (-1, 1), strict=True):
        medians = {}
        for i, tick in enumerate(ticks):
            of = [row for row in rows if (row["optimizer"], row[key]) == (optimizer, tick)]
            if not of:
                continue
            (errors,) = columns(of, "error")
            x = [i + side * 0.13 + 0.04 * (k - (len(of) - 1) / 2) for k in range(len(of))]
            mark(axes, x, errors, optimizer, COLOURS[of[0]["batch"]])
            medians[tick] = (i + side * 0.13, statistics.median(errors))
        if small := medians.pop("256", None):
            if optimizer == "sgd":
                axes.axhline(small[1], linestyle=":", color="#999999")
                axes.annotate("SGD at 256", (0.3, small[1]), (0, -14), **NEAR)
        if medians:
            axes.plot(*zip(*medians.values(), strict=True), LINES[optimizer], color=GREY, linewidth=1.2, zorder=1)
            label.append((len(ticks) - 0.75, list(medians.values())[-1][1], optimizer.upper(), NEAR["color"]))
    axes.set_xticks(range(len(ticks)), list(ticks.values()), fontsize=8)
    axes.set_xlim(-0.5, len(ticks) - 0.2)
    axes.margins(y=0.1)
    log_axis(axes)
    label_ends(axes, label)
