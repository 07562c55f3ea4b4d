"""Plots of the runs on fractals: top-1 and loss over the epochs, at the end, and over learning rates."""

from __future__ import annotations

import itertools
import statistics
from math import nan
from typing import TYPE_CHECKING

from scripts.matrix import OPTIMIZERS
from scripts.records import by_row, on_fractals_v1
from scripts.reporting.plot import COLOURS, Plot, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# of version 1: lr of the rows at the smallest and the largest batch, the middle of each grid
MIDDLE_V1 = {("256", "lars"): 2.26, ("256", "sgd"): 0.025, ("32k", "lars"): 29.0, ("32k", "sgd"): 3.2}


def curves(key: str) -> list[dict[str, object]]:
    """Mean, least and largest of ``key`` over the seeds, after every epoch of each row on fractals."""
    found = []
    for seeds in by_row([r for r in on_fractals_v1("rows") if r.result]):
        for rows in zip(*(s.rows for s in seeds), strict=False):
            values = [row[key] for row in rows]
            found.append(
                {"batch": seeds[0].preset, "images": seeds[0].config.batch.total, "optimizer": seeds[0].optimizer,
                 "seeds": len(seeds), "epoch": rows[0]["epoch"], "mean": round(statistics.mean(values), 4),
                 "least": round(min(values), 4), "largest": round(max(values), 4)}
            )  # fmt: skip
    return found


def draw_curves(axes: Axes, rows: Rows, label: str, legend_columns: int = 1) -> None:
    for (batch, optimizer), group in itertools.groupby(rows, key=lambda r: (r["batch"], r["optimizer"])):
        points = list(group)
        epochs, mean, least, largest = (
            [float(p[key]) for p in points] for key in ("epoch", "mean", "least", "largest")
        )
        style = "-" if (optimizer == "sgd") == (batch == "256") else "--"
        name = f"{batch} ({int(points[0]['images']):,}), {optimizer.upper()}: {label.format(mean[-1])}"
        axes.plot(epochs, mean, style, color=COLOURS[batch], label=name, linewidth=1.6)
        axes.fill_between(epochs, least, largest, color=COLOURS[batch], alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_xlim(0, 90)
    title = "batch= (images a step), optimizer: last epoch\nmean of the seeds, shaded from lowest to highest"
    axes.legend(title=title, fontsize=8, title_fontsize=8, ncols=legend_columns)


def draw_top1(axes: Axes, rows: Rows) -> None:
    draw_curves(axes, rows, "{:.1f} %")
    axes.set_ylabel("validation top-1 (%)")
    axes.set_ylim(0, 100)
    axes.set_title("ResNet-8 on fractals v1, 64 classes (not ImageNet), batches divided by 8", fontsize=10)


def draw_loss(axes: Axes, rows: Rows) -> None:
    draw_curves(axes, rows, "{:.3f}", legend_columns=2)
    axes.set_ylabel("training loss (nats)")
    axes.set_yscale("log")
    axes.set_ylim(top=30)  # the legend's place, above the curves
    axes.set_title("ResNet-8 on fractals v1: mean training loss of each epoch", fontsize=10)


def ends(experiment: str) -> list[dict[str, object]]:
    """Top-1 at the last epoch of every row of ``experiment``, over seeds."""
    found = []
    for seeds in by_row([r for r in on_fractals_v1(experiment) if r.result]):
        each = [s.last for s in seeds]
        found.append(
            {"batch": seeds[0].preset, "images": seeds[0].config.batch.total, "optimizer": seeds[0].optimizer,
             "lr": float(seeds[0].config.optimizer.lr), "seeds": len(each), "mean": round(statistics.mean(each), 4),
             "deviation": round(statistics.stdev(each), 4) if len(each) > 1 else 0.0,
             "each": " ".join(f"{end:.2f}" for end in each)}
        )  # fmt: skip
    return found


def draw_ends(axes: Axes, rows: Rows, key: str) -> None:
    """Mean and deviation of each optimizer, and every seed, against the number ``key`` of the rows."""
    ticks = sorted({float(p[key]) for p in rows})
    for optimizer, marker in zip(OPTIMIZERS, "os", strict=True):
        points = {float(p[key]): p for p in rows if p["optimizer"] == optimizer}
        # no line over a tick that is still to come
        mean, deviation = (
            [float(points[t][name]) if t in points else nan for t in ticks] for name in ("mean", "deviation")
        )
        axes.errorbar(
            ticks, mean, deviation, marker=marker, color=COLOURS[optimizer], label=optimizer.upper(), capsize=3
        )
        for tick, point in points.items():
            each = [float(end) for end in point["each"].split()]
            axes.plot([tick] * len(each), each, "x", color=COLOURS[optimizer], markersize=6)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{t:,g}" for t in ticks])
    axes.set_ylabel("validation top-1 at the last epoch (%)")
    least, most = (pick(int(p["seeds"]) for p in rows) for pick in (min, max))
    n = str(most) if least == most else f"{least} to {most}"
    seeds = "one seed each" if most == 1 else f"mean and standard deviation of {n} seeds, each an x"
    axes.set_title(f"ResNet-8 on fractals v1, {seeds}", fontsize=10)


def draw_final(axes: Axes, rows: Rows) -> None:
    draw_ends(axes, rows, "images")
    axes.set_xlabel("images a step (batch= divided by 8)")
    axes.legend(title="SGD's lr follows the batch linearly", title_fontsize=9)


def draw_best(axes: Axes, rows: Rows) -> None:
    draw_ends(axes, rows, "lr")
    axes.set_xlabel("learning rate, at 4,096 images a step")
    axes.set_ylim(0, 100)
    axes.legend(loc="lower right")


def rates() -> list[dict[str, object]]:
    """Top-1 after 30 epochs by learning rate; of a run that diverged, none."""
    return [
        {"batch": r.preset, "optimizer": r.optimizer, "lr": float(r.config.optimizer.lr),
         "top1": round(r.last, 4) if r.result else ""}
        for r in sorted(on_fractals_v1("lr"), key=lambda r: (r.preset, r.optimizer, float(r.config.optimizer.lr)))
    ]  # fmt: skip


def draw_rates(axes: Axes, rows: Rows) -> None:
    for (batch, optimizer), group in itertools.groupby(rows, key=lambda r: (r["batch"], r["optimizer"])):
        points = list(group)
        middle = MIDDLE_V1[batch, optimizer]
        x = [float(p["lr"]) / middle for p in points]
        y = [float(p["top1"] or 0) for p in points]
        style = "-" if batch == "256" else "--"
        axes.plot(
            x, y, style, marker="o", color=COLOURS[optimizer], label=f"{batch}, {optimizer.upper()}, 1 = {middle:g}"
        )
    axes.set_xscale("log")
    axes.set_xlabel("learning rate, in units of the row's")
    axes.set_ylabel("validation top-1 after 30 epochs (%), 0: diverged")
    axes.set_ylim(0, 100)
    axes.set_title("ResNet-8 on fractals v1: sensitivity to the learning rate, seed 0", fontsize=10)
    axes.legend()


PLOTS = [
    Plot("fractals-top1", lambda: curves("val_top1"), draw_top1),
    Plot("fractals-loss", lambda: curves("train_loss"), draw_loss),
    Plot("fractals-final", lambda: ends("rows"), draw_final),
    Plot("fractals-lr", rates, draw_rates),
    Plot("fractals-best", lambda: ends("best"), draw_best),
]
