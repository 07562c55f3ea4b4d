"""Plots of what scripts/plan.py estimates: the time of each row, and how far the model is from published runs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from scripts.estimate import scaling
from scripts.estimate.rows import hours_of_rows
from scripts.reporting.plot import BATCHES, COLOURS, GREY, NEAR, Plot, Rows, columns, label_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_hours(axes: Axes, rows: Rows) -> None:
    """Rows of one length take the same time on the same GPUs, so lines are grey, and a row is marked where it ends."""
    ends: dict[str, tuple[int, float]] = {}
    # a machine of unknown speed has two names, and is the band between them
    for machine, of_machine in itertools.groupby(rows, key=machine_of):
        longest: list[tuple[int, list[float]]] = []
        for batch, of_batch in itertools.groupby(sorted(of_machine, key=batch_of), key=lambda r: r["batch"]):
            by_gpus = itertools.groupby(sorted(of_batch, key=gpus_of), key=gpus_of)
            points = [(gpus, sorted(float(p["hours"]) for p in of_gpus)) for gpus, of_gpus in by_gpus]
            longest = max(longest, points, key=len)
            gpus, (fastest, slowest) = [g for g, _ in points], [[h[i] for _, h in points] for i in (0, -1)]
            if fastest == slowest:
                axes.plot(gpus, fastest, color=GREY, linewidth=1.6, zorder=2)
            else:
                axes.fill_between(gpus, fastest, slowest, color="#dddddd", linewidth=0, zorder=1)
            line = "o" if fastest == slowest else "-"
            axes.plot([gpus[-1]] * 2, [fastest[-1], slowest[-1]], line, color=COLOURS[batch], linewidth=2.5)
            ends[batch] = (gpus[-1], max(slowest[-1], ends[batch][1] if batch in ends else 0))
        middle, hours = longest[len(longest) // 2]
        if len(set(hours)) > 1:
            text = f"{machine.upper()}: from its highest to\nits lowest assumed speed"
            axes.annotate(text, (middle, hours[0]), (-8, -6), ha="right", va="top", **NEAR)
        else:
            axes.annotate(machine.upper(), (middle, hours[0]), (8, 6), **NEAR)
    ticks = sorted({gpus_of(row) for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_yscale("log")
    axes.set_yticks([1 / 60, 1 / 6, 1, 10], ["1 min", "10 min", "1 h", "10 h"])
    axes.set_xlabel("GPUs (a batch ends where each has one micro-batch a step)")
    axes.set_ylabel("time to the end of training, log axis")
    axes.set_title("ResNet-50 on ImageNet: estimated, not run (docs/plan.md)", fontsize=10)
    for most in {gpus for gpus, _ in ends.values()}:
        label_ends(axes, [(*end, f"batch={batch}", COLOURS[batch]) for batch, end in ends.items() if end[0] == most])


def machine_of(row: dict[str, str]) -> str:
    return row["machine"].removesuffix(" at least").removesuffix(" at most")


def batch_of(row: dict[str, str]) -> int:
    return BATCHES[row["batch"]]


def gpus_of(row: dict[str, str]) -> int:
    return int(row["gpus"])


def scaling_points() -> list[dict[str, object]]:
    """images/s for each GPU, published and predicted."""
    return [
        {"who": p.who, "gpu": p.gpu, "precision": p.precision, "gpus": p.gpus, "images_per_gpu": p.images_per_gpu,
         "is_base": int(p.is_base), "published": round(p.published), "predicted": round(p.predicted)}
        for p in scaling.points()
    ]  # fmt: skip


def draw_scaling(axes: Axes, rows: Rows) -> None:
    ends = []
    for (who, gpu, precision), group in itertools.groupby(rows, key=lambda r: (r["who"], r["gpu"], r["precision"])):
        points = list(group)
        gpus, published_rate, predicted = columns(points, "gpus", "published", "predicted")
        off = [100 * (there / here - 1) for here, there in zip(published_rate, predicted, strict=True)]
        is_base = [point["is_base"] == "1" for point in points]
        axes.plot(gpus, off, "-", color=GREY, linewidth=1)
        axes.scatter(gpus, off, 30, edgecolors=GREY, facecolors=["white" if b else GREY for b in is_base], zorder=3)
        name = who.replace("NVIDIA DeepLearningExamples", "NVIDIA").replace(" Training", "")
        ends.append((gpus[-1], off[-1], f"{name}, {gpu}, {precision}", NEAR["color"]))
    axes.axhline(0, color="#999999", linestyle=":")
    axes.set_xscale("log", base=2)
    ticks = [1, 8, 64, 512, 4096]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_xlim(0.8, 2**16)
    axes.yaxis.set_major_formatter(lambda off, _: f"{off:+.0f}" if off else "0")
    axes.set_xlabel("GPUs (in MLPerf with ever fewer images for each, 408 to 16)")
    axes.set_ylabel("predicted images/s, % above the published")
    axes.set_title("ResNet-50: what the plan predicts (filled) from the points it starts from (open)", fontsize=10)
    label_ends(axes, ends)


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
        axes.plot(float(own["hours"]), float(own[key]), "D", color="#D55E00", markersize=8, label="this run")
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
