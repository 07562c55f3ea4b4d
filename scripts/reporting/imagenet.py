"""The plot of the runs on ImageNet, the published curves behind them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from scripts.matrix import OPTIMIZERS
from scripts.records import PRESETS, PUBLISHED_OPTIMIZER, on_imagenet, published
from scripts.reporting.plot import COLOURS, LINES, Plot, Rows, columns, label_ends, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


NAMES = {str(batch): preset for preset, batch in PRESETS.items()}


def on_imagenet_curves() -> list[dict[str, object]]:
    """Percent of the validation images that are wrong: the published curves, and ours where a record is."""
    found: list[dict[str, object]] = [
        {"batch": (preset := NAMES[row["batch"]]), "optimizer": PUBLISHED_OPTIMIZER[preset], "who": "torchlars",
         "epoch": row["epoch"], "error": round(100 - float(row["top1"]), 4)}
        for row in published("torchlars-figure.csv")
    ]  # fmt: skip
    for preset in PRESETS:
        for optimizer in OPTIMIZERS:
            for record in on_imagenet(preset, optimizer):
                found += [
                    {"batch": preset, "optimizer": optimizer, "who": record.folder.name, "epoch": r["epoch"],
                     "error": round(100 - r["val_top1"], 4)}
                    for r in record.rows
                ]  # fmt: skip
    return found


def draw_imagenet(axes: Axes, rows: Rows) -> None:
    ends = []
    for (batch, optimizer, who), curve in itertools.groupby(rows, key=lambda r: (r["batch"], r["optimizer"], r["who"])):
        epochs, errors = columns(list(curve), "epoch", "error")
        theirs = who == "torchlars"
        axes.plot(epochs, errors, LINES[optimizer], color=COLOURS[batch], linewidth=1.2 if theirs else 2)
        name = f"{batch}, {optimizer.upper()}" + ("" if theirs else ", ours")
        ends.append((epochs[-1], errors[-1], name, COLOURS[batch]))
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation top-1 error (%), log axis")
    axes.set_xlim(0, 90)
    axes.set_ylim(23, 100)
    log_axis(axes)
    label_ends(axes, ends)
    ours = any(row["who"] != "torchlars" for row in rows)
    axes.set_title(
        "ResNet-50 on ImageNet: torchlars' curves, digitised from its figure (±0.1 points); ours: "
        + ("bold" if ours else "not run yet"),
        fontsize=10,
    )


PLOTS = [Plot("imagenet-top1", on_imagenet_curves, draw_imagenet)]
