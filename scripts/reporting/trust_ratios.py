"""Plots that explain LARS: trust ratios over time, and how much the norms of layers differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scripts.records import FRACTALS_V1, layers, read
from scripts.reporting.plot import Plot, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ratios() -> list[dict[str, object]]:
    """Trust ratio of every layer over the epochs of the largest batch with LARS, seed 0."""
    folder = FRACTALS_V1 / "rows" / "32k-lars-seed0"
    epochs = {str(row["images"]): row["epoch"] for row in read(folder).rows}
    return [
        {"epoch": epochs[row["images"]], "layer": row["layer"], "trust_ratio": row["trust_ratio"]}
        for row in layers(folder)
    ]


def draw_ratios(axes: Axes, rows: Rows) -> None:
    # in the order of the network, as they were logged
    names = list(dict.fromkeys(row["layer"] for row in rows))
    epochs = sorted({int(row["epoch"]) for row in rows})
    table = np.full((len(names), len(epochs)), np.nan)
    for row in rows:
        table[names.index(row["layer"]), epochs.index(int(row["epoch"]))] = float(row["trust_ratio"])
    picture = axes.imshow(table, aspect="auto", cmap="cividis", norm="log")
    axes.figure.colorbar(picture, label="trust ratio: what lr is multiplied by", pad=0.02)
    axes.set_xticks(range(len(epochs)), [str(e) for e in epochs])
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("epoch, at its last step")
    axes.grid(False)
    axes.set_title("ResNet-8 on fractals v1, 4,096 images a step, LARS: trust ratio of each layer", fontsize=10)


def norms() -> list[dict[str, object]]:
    """Weight norm over gradient norm of every layer of ResNet-50, before the first and the last step of the warm-up."""
    rows = layers(FRACTALS_V1 / "resnet50-layers")
    steps = {rows[0]["step"], rows[-1]["step"]} if rows else set()
    return [
        {"step": row["step"], "layer": row["layer"],
         "ratio": f"{float(row['weight_norm']) / float(row['gradient_norm']):.6g}"}
        for row in rows if row["step"] in steps
    ]  # fmt: skip


# kinds of layers, and how to tell them
KINDS = {
    "weight of a convolution": (
        "o",
        lambda name: name.endswith("weight") and ("conv" in name or "downsample.0" in name),
    ),
    "BatchNorm, scale": ("^", lambda name: name.endswith("weight") and ("bn" in name or "downsample.1" in name)),
    "BatchNorm, shift": ("v", lambda name: name.endswith("bias") and not name.startswith("fc")),
    "last layer": ("s", lambda name: name.startswith("fc")),
}


def draw_norms(axes: Axes, rows: Rows) -> None:
    names = list(dict.fromkeys(row["layer"] for row in rows))
    for step, colour in zip(sorted({int(row["step"]) for row in rows}), ("#0072B2", "#D55E00"), strict=True):
        when = "at initialisation" if step == 0 else f"before step {step + 1}, the last of the warm-up"
        for kind, (marker, is_one) in KINDS.items():
            points = [
                (names.index(row["layer"]), float(row["ratio"]))
                for row in rows
                if int(row["step"]) == step and is_one(row["layer"]) and float(row["ratio"]) > 0
            ]
            if points:
                layers, ratios = zip(*points, strict=True)
                axes.scatter(layers, ratios, marker=marker, s=16, color=colour, alpha=0.8, linewidth=0,
                             label=f"{kind}, {when}")  # fmt: skip
    axes.set_yscale("log")
    parts = {name.split(".")[0]: i for i, name in reversed(list(enumerate(names)))}
    del parts["bn1"]
    axes.set_xticks(list(parts.values()), list(parts), ha="left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.set_xlabel("parameters in the order of the network")
    axes.set_ylabel("norm of weights / norm of gradient")
    axes.set_title(
        "ResNet-50 on fractals v1, 4,096 images a step, LARS (shifts begin at zero and have no ratio then)", fontsize=10
    )
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)


PLOTS = [
    Plot("fractals-trust-ratios", ratios, draw_ratios, (8, 5.5)),
    Plot("resnet50-norms", norms, draw_norms, (8, 5.5)),
]
