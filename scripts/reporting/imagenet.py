"""The plot of the runs on ImageNet, the published curves behind them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from scripts.matrix import OPTIMIZERS
from scripts.records import PRESETS, on_imagenet, published
from scripts.reporting.plot import COLOURS, Plot, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


NAMES = {str(batch): preset for preset, batch in PRESETS.items()}


def on_imagenet_curves() -> list[dict[str, object]]:
    """The published curves, and ours where a record is."""
    found: list[dict[str, object]] = [
        {"batch": NAMES[row["batch"]], "who": "torchlars", "epoch": row["epoch"], "top1": row["top1"]}
        for row in published("torchlars-figure.csv")
    ]
    for preset in PRESETS:
        for optimizer in OPTIMIZERS:
            for record in on_imagenet(preset, optimizer):
                who = record.folder.name
                found += [
                    {"batch": preset, "who": who, "epoch": r["epoch"], "top1": r["val_top1"]} for r in record.rows
                ]
    return found


def draw_imagenet(axes: Axes, rows: Rows) -> None:
    for (batch, who), group in itertools.groupby(rows, key=lambda r: (r["batch"], r["who"])):
        points = list(group)
        epochs, top1 = ([float(p[key]) for p in points] for key in ("epoch", "top1"))
        theirs = who == "torchlars"
        label = f"{batch}, {'published' if theirs else who}: {max(top1):.1f} %"
        axes.plot(epochs, top1, color=COLOURS[batch], label=label, linewidth=1 if theirs else 1.8,
                  alpha=0.45 if theirs else 1)  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation top-1 (%)")
    axes.set_xlim(0, 90)
    axes.set_ylim(0, 80)
    ours = any(row["who"] != "torchlars" for row in rows)
    axes.set_title(
        "ResNet-50 on ImageNet: torchlars' published curves" + ("" if ours else "; ours: not run yet"), fontsize=10
    )
    axes.legend(title="batch, whose: best", fontsize=8, title_fontsize=8, loc="lower right")


PLOTS = [Plot("imagenet-top1", on_imagenet_curves, draw_imagenet)]
