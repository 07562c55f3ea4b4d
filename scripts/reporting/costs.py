"""Plots of what scripts/plan.py estimates: the time of each row, and how far the model is from published runs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from scripts.estimate import scaling
from scripts.estimate.rows import hours_of_rows
from scripts.reporting.plot import COLOURS, Plot, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_hours(axes: Axes, rows: Rows) -> None:
    series = [(key, list(g)) for key, g in itertools.groupby(rows, key=lambda r: (r["machine"], r["batch"]))]
    styles = dict(zip(dict.fromkeys(row["machine"] for row in rows), ("-", "--", ":", "-."), strict=False))
    # the longest first: rows take the same time, so that each covers the next one until it ends
    for (machine, batch), points in reversed(series):
        gpus, hours = ([float(p[key]) for p in points] for key in ("gpus", "hours"))
        end = f"{batch}, {machine[0].upper()}{machine[1:]}: to {int(gpus[-1]):,} GPUs"
        axes.plot(gpus, hours, styles[machine], color=COLOURS[batch], linewidth=1.8, label=end)
        axes.plot(gpus[-1], hours[-1], "o", color=COLOURS[batch], markersize=5)
    ticks = sorted({int(row["gpus"]) for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_yscale("log")
    axes.set_yticks([1 / 60, 1 / 6, 1, 10], ["1 min", "10 min", "1 h", "10 h"])
    axes.set_xlabel("GPUs, as many as share the recipe's micro-batches")
    axes.set_ylabel("time to the end of training")
    axes.set_title("ResNet-50 on ImageNet: estimated, not run (docs/plan.md)", fontsize=10)
    axes.legend(*(reversed(part) for part in axes.get_legend_handles_labels()), fontsize=8)


def scaling_points() -> list[dict[str, object]]:
    """images/s for each GPU, published and predicted."""
    return [
        {"who": p.who, "gpu": p.gpu, "precision": p.precision, "gpus": p.gpus, "images_per_gpu": p.images_per_gpu,
         "is_base": int(p.is_base), "published": round(p.published), "predicted": round(p.predicted)}
        for p in scaling.points()
    ]  # fmt: skip


def draw_scaling(axes: Axes, rows: Rows) -> None:
    colours = itertools.cycle(["#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#E69F00"])
    for key, group in itertools.groupby(rows, key=lambda r: (r["who"], r["gpu"], r["precision"])):
        points, colour = list(group), next(colours)
        gpus, published_rate, predicted = ([float(p[k]) for p in points] for k in ("gpus", "published", "predicted"))
        name = f"{key[0].replace('NVIDIA DeepLearningExamples', 'NVIDIA DLE')}, {key[1]}, {key[2]}"
        axes.plot(gpus, [a / n for a, n in zip(published_rate, gpus, strict=True)], "o", color=colour, label=name)
        axes.plot(gpus, [a / n for a, n in zip(predicted, gpus, strict=True)], "_-", color=colour, linewidth=1,
                  markersize=12)  # fmt: skip
    axes.set_xscale("log", base=2)
    ticks = [1, 8, 64, 512, 4096]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_yscale("log")
    axes.set_yticks([100, 1000, 10000], ["100", "1,000", "10,000"])
    axes.set_ylim(80, 25000)
    axes.set_xlabel("GPUs (in MLPerf with ever fewer images for each, 408 to 16)")
    axes.set_ylabel("images/s for each GPU")
    axes.set_title("ResNet-50: published (points) and as the plan's model has it (lines)", fontsize=10)
    axes.legend(fontsize=8, ncols=2, loc="upper right")


def frontier_plot(points: list[dict[str, object]], noise_scale: float, unit: tuple[str, str]) -> Plot:
    """Cost against time of the ``points`` of ``scripts/estimate/frontier.py``; ``unit``: one and many, such as GPUs."""
    one, many = unit

    def draw(axes: Axes, rows: Rows) -> None:
        key, costs_in = ("dollars", "$") if rows[0]["dollars"] else ("gpu_hours", f"{one} hours")
        on_each = itertools.groupby(rows, key=lambda row: row["gpus"])
        fastest = [min(of_count, key=lambda row: float(row["hours"])) for _, of_count in on_each]
        hours, costs = ([float(row[name]) for row in fastest] for name in ("hours", key))
        axes.plot(hours, costs, "o-", color="#0072B2", linewidth=1.8, markersize=5, label=f"fastest on so many {many}")
        for row in rows:
            text, at = f"{int(row['gpus']):,} x {int(row['batch']):,}", (float(row["hours"]), float(row[key]))
            axes.annotate(text, at, textcoords="offset points", xytext=(6, 4), fontsize=7)
        own = next(row for row in rows if row["own"] == "1")
        axes.plot(float(own["hours"]), float(own[key]), "D", color="#D55E00", markersize=8, label="measured: this run")
        # the first point beyond it
        above = [i for i, row in enumerate(fastest) if int(row["batch"]) >= noise_scale]
        if above:
            label = f"left of it: more than {noise_scale:,.0f} images a step"
            axes.axvline(hours[above[0]], color="#000000", linestyle="--", linewidth=1.2, label=label)
        axes.legend(fontsize=8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(f"hours to the same point ({many} x images a step)")
        axes.set_ylabel(costs_in)
        axes.set_title("One measured run; all other points follow from its noise scale", fontsize=10)

    return Plot("frontier", lambda: points, draw)


def plan_plot(*overrides: str) -> Plot:
    return Plot("plan", lambda: hours_of_rows(*overrides), draw_hours)


PLOTS = [plan_plot(), Plot("scaling", scaling_points, draw_scaling)]
