"""Tables and plots of the three experiments of ``docs/learn.md``, as far as their runs are done."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from scripts.records import Record, layers, on_fractals
from scripts.reporting.experiments.accuracy import NAMES
from scripts.reporting.plot import COLOURS, LINES, NEAR, Plot, Rows, columns, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_RUN = "Not run yet."
WARMUPS = (0, 5)  # epochs


def ended(experiment: int) -> list[Record]:
    return [r for name, r in on_fractals("learn").items() if name.startswith(f"{experiment}-") and r.result]


def shown(experiment: int, head: str, rows: list[str], picture: str) -> str:
    """The table of an experiment with its picture; one line as long as there is no run."""
    if not rows:
        return NOT_RUN
    rule = "|" + "---|" * (head.count("|") - 1)
    return "\n".join([head, rule, *rows, "", f"![{picture}](../results/plots/learn-{experiment}.png)"])


def updates_table() -> str:
    found = sorted(ended(1), key=lambda r: (r.reached["steps"], r.config.optimizer.lr))
    rows = [
        f"| `{r.preset}` | {r.config.optimizer.lr:g} | {int(r.rows[-1]['step']):,} | {r.last:.1f} | "
        f"{r.rows[-1]['train_loss']:.2f} |"
        for r in reversed(found)
    ]
    return shown(1, "| `batch=` | lr of SGD | updates | top-1 % | training loss |", rows, "Top-1 by epoch")


def top1_points() -> list[dict[str, object]]:
    return [
        {"batch": r.preset, "lr": f"{r.config.optimizer.lr:g}", "epoch": row["epoch"],
         "top1": round(row["val_top1"], 4)}
        for r in ended(1) for row in r.rows
    ]  # fmt: skip


def draw_top1(axes: Axes, rows: Rows) -> None:
    for (batch, lr), points in itertools.groupby(rows, key=lambda r: (r["batch"], r["lr"])):
        epochs, top1 = columns(list(points), "epoch", "top1")
        axes.plot(epochs, top1, LINES["sgd"], color=COLOURS[batch])
        axes.annotate(f"{batch}, lr {lr}", (epochs[-1], top1[-1]), (6, -4), **NEAR)
    axes.set_xlim(0, 1.2 * epochs[-1])
    axes.set_ylim(0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("top-1 on selection (%)")
    axes.set_title("ResNet-8 on fractals, SGD, 20 epochs, one seed", fontsize=10)


def warmup_table() -> str:
    rows = []
    for optimizer, warmup in itertools.product(("sgd", "lars"), WARMUPS):
        found = [r for r in ended(2) if (r.optimizer, r.config.schedule.warmup_epochs) == (optimizer, warmup)]
        if found:
            top1 = [r.last for r in found]
            each = ", ".join(f"{value:.1f}" for value in top1)
            rows.append(f"| {NAMES[optimizer]} | {warmup} | {each} | {statistics.mean(top1):.1f} |")
    return shown(2, "| optimizer | warm-up, epochs | top-1 %, each seed | mean |", rows, "Training loss by epoch")


def loss_points() -> list[dict[str, object]]:
    return [
        {"optimizer": r.optimizer, "warmup": int(r.config.schedule.warmup_epochs), "seed": r.config.seed,
         "epoch": row["epoch"], "loss": round(row["train_loss"], 4)}
        for r in ended(2) for row in r.rows
    ]  # fmt: skip


def draw_loss(axes: Axes, rows: Rows) -> None:
    (optimizer,) = {row["optimizer"] for row in rows}
    # epochs of warm-up, width of the line, its name, and the epoch and the side at which it stands
    for warmup, width, name, at, side in ((0, 0.8, "no warm-up", 7, -4), (5, 2, "warm-up", 4, 4)):
        of = [row for row in rows if int(row["warmup"]) == warmup]
        for _, points in itertools.groupby(of, key=lambda r: r["seed"]):
            epochs, losses = columns(list(points), "epoch", "loss")
            axes.plot(epochs, losses, LINES[optimizer], color=COLOURS["8k"], linewidth=width)
        if of:
            axes.annotate(name, (epochs[at - 1], losses[at - 1]), (side, side), ha="left" if side > 0 else "right",
                          va="bottom" if side > 0 else "top", **NEAR)  # fmt: skip
    log_axis(axes, (1.5, 2, 2.5, 3, 4))
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss (nats), log axis")
    axes.set_title(NAMES[optimizer], fontsize=10)
    title = "ResNet-8 on fractals, batch=8k (1,024 images a step), 20 epochs: every seed; thick, 5 epochs of warm-up"
    axes.figure.suptitle(title, fontsize=10)


def layers_table() -> str:
    rows = []
    for r in sorted(ended(3), key=lambda r: r.optimizer):
        last = [row for row in layers(r.folder) if int(row["images"]) == int(r.rows[-1]["images"])]
        ratios = sorted((float(row["trust_ratio"]), row["layer"]) for row in last)
        of_layers = [f"{ratio:.2g} (`{layer}`)" for ratio, layer in (ratios[:1] + ratios[-1:])] or ["-", "-"]
        rows.append(f"| {NAMES[r.optimizer]} | {r.config.optimizer.lr:g} | {r.last:.1f} | {' | '.join(of_layers)} |")
    head = "| optimizer | lr | top-1 % | smallest trust ratio at the end | largest |"
    return shown(3, head, rows, "Trust ratio of every layer by epoch")


def ratio_points() -> list[dict[str, object]]:
    return [
        {"layer": row["layer"], "epoch": round(int(row["images"]) / r.reached["train_images"]),
         "ratio": row["trust_ratio"]}
        for r in ended(3) if r.optimizer == "lars" for row in layers(r.folder)
    ]  # fmt: skip


def draw_ratios(axes: Axes, rows: Rows) -> None:
    by_layer = itertools.groupby(sorted(rows, key=lambda r: r["layer"]), key=lambda r: r["layer"])
    lines = {layer: columns(list(points), "epoch", "ratio") for layer, points in by_layer}
    ends = sorted(lines, key=lambda layer: lines[layer][1][-1])
    for layer, (epochs, ratios) in lines.items():
        is_end = layer in (ends[0], ends[-1])
        axes.plot(epochs, ratios, color=COLOURS["32k"] if is_end else "#bbbbbb", linewidth=1.6 if is_end else 0.8)
        if is_end:
            axes.annotate(layer, (epochs[-1], ratios[-1]), (6, -4), **NEAR)
    axes.set_yscale("log")
    axes.set_xlim(0, 1.25 * epochs[-1])
    axes.set_xticks(range(0, int(epochs[-1]) + 1, 10))
    axes.set_xlabel("epoch, at its last step")
    axes.set_ylabel("trust ratio (what lr is multiplied by), log axis")
    axes.set_title("LARS, ResNet-8 on fractals, batch=32k (4,096 images a step): every layer", fontsize=10)


TABLES = {"learn 1": updates_table, "learn 2": warmup_table, "learn 3": layers_table}
PLOTS = [
    Plot("learn-1", top1_points, draw_top1),
    Plot("learn-2", loss_points, draw_loss, by="optimizer"),
    Plot("learn-3", ratio_points, draw_ratios),
]
