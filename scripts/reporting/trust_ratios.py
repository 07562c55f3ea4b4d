"""Plots that explain LARS: trust ratios over time, and how much the norms of layers differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from scripts.records import FRACTALS_V1, layers, read
from scripts.reporting.plot import COLOURS, NEAR, Plot, Rows, columns

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
    axes.figure.colorbar(picture, label="trust ratio (what lr is multiplied by), log scale", pad=0.02)
    axes.set_xticks(range(len(epochs)), [str(e) for e in epochs])
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xlabel("epoch, at its last step")
    axes.grid(False)
    axes.set_title("ResNet-8 on fractals v1, 4,096 images a step, LARS: trust ratio of each layer", fontsize=10)


# kinds of tensors, and how to tell them
KINDS: dict[str, Callable[[str], bool]] = {
    "convolutions, last layer": lambda name: (
        name.startswith("fc") or name.endswith("weight") and ("conv" in name or "downsample.0" in name)
    ),
    "BatchNorm, scales": lambda name: name.endswith("weight") and ("bn" in name or "downsample.1" in name),
    "BatchNorm, shifts": lambda name: name.endswith("bias") and not name.startswith("fc"),
}


def norms() -> list[dict[str, object]]:
    """Weight norm over gradient norm of every layer of ResNet-50, before the first and the last step of the warm-up."""
    rows = layers(FRACTALS_V1 / "resnet50-layers")
    steps = {rows[0]["step"], rows[-1]["step"]} if rows else set()
    places = {name: i for i, name in enumerate(dict.fromkeys(row["layer"] for row in rows))}
    return [
        {"kind": next(kind for kind, is_one in KINDS.items() if is_one(row["layer"])), "step": row["step"],
         "layer": row["layer"], "place": places[row["layer"]],
         "ratio": f"{float(row['weight_norm']) / float(row['gradient_norm']):.6g}"}
        for row in rows if row["step"] in steps
    ]  # fmt: skip


def draw_norms(axes: Axes, rows: Rows) -> None:
    for step in sorted({int(row["step"]) for row in rows}):
        of = [row for row in rows if int(row["step"]) == step and float(row["ratio"]) > 0]
        if not of:
            continue
        places, values = columns(of, "place", "ratio")
        axes.scatter(places, values, 20, edgecolors=COLOURS["32k"], facecolors=COLOURS["32k"] if step else "white")
        when, at = (f"before step {step + 1}", (0.97, 0.95)) if step else ("at initialisation", (0.8, 0.27))
        axes.annotate(when, at, (0, 0), xycoords="axes fraction", ha="right", **NEAR)
        for row in of:
            if step == 0 and row["layer"] in ("conv1.weight", "fc.weight"):
                ha, x = ("left", 7) if row["layer"] == "conv1.weight" else ("right", -7)
                end = (int(row["place"]), float(row["ratio"]))
                axes.annotate(row["layer"].split(".")[0], end, (x, -4), ha=ha, **NEAR)
    stages = {row["layer"][5]: int(row["place"]) for row in reversed(rows) if row["layer"].startswith("layer")}
    axes.set_yscale("log")
    axes.set_xticks(list(stages.values()), list(stages))
    axes.set_xlabel("stage of the network")
    axes.set_ylabel("norm of weights / norm of gradient, log axis")
    axes.set_title(rows[0]["kind"], fontsize=10)
    title = "ResNet-50 on fractals v1, 4,096 images a step, LARS; the warm-up ends with step 25; shifts begin at zero"
    axes.figure.suptitle(title, fontsize=10)


PLOTS = [
    Plot("fractals-trust-ratios", ratios, draw_ratios, (8, 6.5)),
    Plot("resnet50-norms", norms, draw_norms, (8, 5), by="kind"),
]
