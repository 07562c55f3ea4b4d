"""Epochs to 75.9 % against batch, from MLPerf Training's logs: the best system of each batch, and their curve."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, SupportsFloat

import numpy as np

from scripts.records import published
from scripts.reporting.critical_batch import fit, interval, resample
from scripts.reporting.plot import GREY, NEAR, Plot, Rows, colour_of, columns, mark
from train.data.dataset import ILSVRC_2012

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGE = 8192  # images: from here on the epochs grow, below nearly all systems take 35


def systems(optimizer: str) -> Rows:
    """The systems of the closed division that reached the target with ``optimizer``, small batches first."""
    rows = [r for r in published("mlperf-runs.csv") if r["epochs"]]
    rows = [r for r in rows if (r["division"], r["optimizer"]) == ("closed", optimizer)]
    return sorted(rows, key=lambda r: (int(r["batch"]), float(r["epochs"])))


def best_systems() -> Rows:
    """The LARS system of each batch that took the fewest epochs, small batches first."""
    return [next(rows) for _, rows in itertools.groupby(systems("lars"), key=lambda r: r["batch"])]


def never_beaten(rows: Rows) -> Rows:
    """``rows``, in the order of their batches, without those for which a larger batch took fewer epochs."""
    (epochs,) = columns(rows, "epochs")
    return [row for i, row in enumerate(rows) if epochs[i] <= min(epochs[i:])]


def large(rows: Rows) -> Rows:
    return [row for row in rows if int(row["batch"]) >= LARGE]


def systems_table() -> str:
    """The system with the fewest epochs at each large batch, beside the curve through those of all batches."""
    best = best_systems()
    curve = fit(*columns(best, "batch", "epochs"))
    settings = {"lr": "lr", "warmup_epochs": "warm-up", "momentum": "momentum", "weight_decay": "weight decay",
                "bn_span": "BatchNorm span"}  # fmt: skip
    head = ["batch", "epochs", "curve", "steps", *settings.values(), "runs", "system"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in large(best):
        batch, epochs = int(row["batch"]), float(row["epochs"])
        cells = [
            f"{batch:,}",
            f"{epochs:g}",
            f"{curve.epochs([batch])[0]:.1f}",
            f"{epochs * ILSVRC_2012[0] / batch:,.0f}",
        ]
        cells += [row[key] or "not logged" for key in settings]
        cells += [f"{row['reached']} of {row['runs']}", f"{row['path'].removesuffix('/resnet')}, v{row['version']}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def curves_table() -> str:
    """The curve, and how far it depends on the systems that are taken."""
    best = best_systems()
    chosen = {
        "all": best,
        "all that no larger batch beats": never_beaten(best),
        f"{LARGE:,} and more": large(best),
    }
    lines = [
        f"| batches | n | fewest epochs (95 %) | critical batch (95 %) | off by at most, {LARGE:,} and more |",
        "|---|---|---|---|---|",
    ]
    for name, rows in chosen.items():
        batches, epochs = columns(rows, "batch", "epochs")
        curve, others = fit(batches, epochs), resample(batches, epochs)
        low, high = interval(others.fewest_epochs)
        fewest = f"{curve.fewest_epochs:.1f} ({low:.1f}-{high:.1f})"
        at, least, most = (thousands(b) for b in (curve.critical_batch, *interval(others.critical_batch)))
        batches, epochs = columns(large(rows), "batch", "epochs")
        off = np.abs(epochs / curve.epochs(batches) - 1).max()
        lines.append(f"| {name} | {len(rows)} | {fewest} | {at} ({least}-{most}) | {100 * off:.1f} % |")
    rows = systems("lars")
    runs, reached = (sum(int(row[key]) for row in rows) for key in ("runs", "reached"))
    about = f"{len(rows)} systems or settings of the closed division with LARS, {runs:,} runs, of which {reached:,} "
    return "\n".join([*lines, "", f"{about}reached 75.9 %."])


def thousands(images: SupportsFloat) -> str:
    return f"{round(float(images), -3):,.0f}"


def points() -> list[dict[str, object]]:
    """What the picture is drawn from: the systems, the curve with its interval, and the critical batch on it."""
    best = best_systems()
    fewest = {(row["batch"], row["epochs"]) for row in best}
    found: list[dict[str, object]] = []
    for optimizer in ("lars", "sgd"):
        for point, count in Counter((r["batch"], r["epochs"]) for r in systems(optimizer)).items():
            what = "best" if optimizer == "lars" and point in fewest else "system"
            found.append({"what": what, "optimizer": optimizer, "systems": count, "batch": point[0],
                          "epochs": point[1], "low": "", "high": ""})  # fmt: skip
    batches, epochs = columns(best, "batch", "epochs")
    curve, others = fit(batches, epochs), resample(batches, epochs)
    xs = [*np.geomspace(256, 2**17, 37).round(), float(curve.critical_batch)]
    for x, y, low, high in zip(xs, curve.epochs(xs), *interval(others.epochs(xs)), strict=True):
        found.append({"what": "critical batch" if x is xs[-1] else "curve", "optimizer": "lars", "systems": "",
                      "batch": f"{x:.0f}", "epochs": f"{y:.2f}", "low": f"{low:.1f}",
                      "high": f"{high:.1f}"})  # fmt: skip
    return found


def draw(axes: Axes, rows: Rows) -> None:
    draw_curve(axes, rows)
    for what, optimizer, area in (("system", "lars", 10), ("best", "lars", 42), ("system", "sgd", 30)):
        of = [r for r in rows if (r["what"], r["optimizer"]) == (what, optimizer)]
        batch, epochs = columns(of, "batch", "epochs")
        mark(axes, batch, epochs, optimizer, [colour_of(b) for b in batch], area)
        if optimizer == "sgd" and batch:
            axes.annotate("SGD", (max(batch), epochs[batch.index(max(batch))]), (7, -4), **NEAR)
    axes.set_xlim(320, 2**17)
    axes.set_ylim(30, 100)
    axes.set_xticks([512, 2048, 8192, 32768, 131072], ["512", "2k", "8k", "32k", "128k"])
    axes.set_yticks([30, 40, 50, 60, 80, 100], ["30", "40", "50", "60", "80", "100"])
    axes.minorticks_off()
    axes.set_xlabel("batch B (images)")
    axes.set_ylabel("epochs to 75.9 % top-1, log axis")
    sizes = "large: the best LARS system of a batch; small: others"
    axes.set_title(f"ResNet-50 on ImageNet, MLPerf v1.0 to v4.0\n{sizes}", fontsize=10)


def draw_curve(axes: Axes, rows: Rows) -> None:
    (at,) = (r for r in rows if r["what"] == "critical batch")
    fewest = float(at["epochs"]) / 2
    batch, epochs, low, high = columns([r for r in rows if r["what"] == "curve"], "batch", "epochs", "low", "high")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.fill_between(batch, low, high, color=GREY, alpha=0.2, linewidth=0)
    axes.plot(batch, epochs, "-", color=GREY, linewidth=1.6)
    axes.axhline(fewest, color=GREY, linestyle=":", linewidth=1.2)
    formula = f"{fewest:.1f} (1 + B / {thousands(float(at['batch']))})"
    axes.annotate(formula, (float(at["batch"]), float(at["epochs"])), (-14, 14), ha="right", **NEAR)
    axes.annotate("perfect scaling", (2**17, fewest), (0, -13), ha="right", **NEAR)


PLOTS = [Plot("mlperf-epochs", points, draw, (4.8, 4.4))]
