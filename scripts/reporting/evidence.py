"""Tables and plots of the experiments on fractals of ``scripts/matrix.py``, as far as their runs are done."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts import matrix
from scripts.matrix import IMAGES
from scripts.records import PRESETS, PUBLISHED_OPTIMIZER, Record, on_fractals, on_imagenet, published
from scripts.reporting.critical_batch import fit, interval, resample
from scripts.reporting.inference import difference, mean_interval
from scripts.reporting.mlperf import colour_of, columns
from scripts.reporting.plot import COLOURS, Plot, Rows
from train.config.compose import compose
from train.data.dataset import ILSVRC_2012

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVISOR = 8  # of the presets' batches on fractals
LINES = {"lars": "-", "sgd": "--"}
ERRORS = (15, 20, 25, 30, 40, 50, 70, 100)  # ticks, percent
NEAR: dict[str, Any] = {"textcoords": "offset points", "fontsize": 10, "color": "#333333"}  # of labels at their lines
MARKERS = {"lars": "o", "sgd": "s"}
NAMES = {
    "sgd": "SGD", "nesterov": "SGD, Nesterov", "lars": "LARS", "larc": "LARC",
    "lars-weights-only": "LARS, norm layers and biases plain",
}  # fmt: skip


def progress_table() -> str:
    """How many of the runs that are asked for so far are done; what is done may ask for more."""
    lines = ["| experiment | done | of the runs asked for so far | diverged |", "|---|---|---|---|"]
    labels = [f"({letter})" for letter in "abccdefg"]
    for label, group in zip([*labels, "[learn](../docs/learn.md)"], matrix.GROUPS, strict=True):
        asked = list(matrix.GROUPS[group]())
        done = [e for e in asked if e.is_done]
        diverged = sum(e.result is None for e in done)
        lines.append(f"| {label} `{group}` | {len(done)} | {len(asked) or 'waits'} | {diverged} |")
    return "\n".join(lines)


def seeds_of(group: str, prefix: str) -> list[Record]:
    """The ended runs ``<prefix>-seed<n>`` of ``group``, by seed."""
    found = [r for name, r in on_fractals(group).items() if name.rpartition("-seed")[0] == prefix and r.result]
    return sorted(found, key=lambda r: r.config.seed)


def of_seeds(values: list[float]) -> str:
    """Two cells: every value, and the mean with its 95 % interval."""
    if not values:
        return "missing | missing"
    low, high = mean_interval(values)
    mean = f"{statistics.mean(values):.2f}" + ("" if math.isnan(low) else f" ({low:.2f} to {high:.2f})")
    return f"{', '.join(f'{v:.2f}' for v in values)} | {mean}"


def main_table() -> str:
    """The published rows and the other optimizer at each batch: others' top-1 on ImageNet, and ours on fractals.

    With a column of our own on ImageNet as soon as there is one record.
    """
    top1 = {row["batch"]: row["top1"] for row in published("torchlars.csv")}
    ours = {"fractals": {row: [r.on_report for r in seeds_of("rows", "-".join(row))] for row in matrix.ROWS}}
    if any(on_imagenet(*row) for row in matrix.ROWS):
        ours["ImageNet"] = {row: [r.last for r in on_imagenet(*row)] for row in matrix.ROWS}
    columns = ["`batch=`", "optimizer, lr", "ImageNet, published", *(f"{data}, ours: mean (seeds)" for data in ours)]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for preset, optimizer in sorted(matrix.ROWS, key=lambda row: (PRESETS[row[0]], row[1])):
        lr = compose("data=imagenet", f"batch={preset}", f"optimizer={optimizer}").optimizer.lr
        is_published = optimizer == PUBLISHED_OPTIMIZER[preset]
        cells = [f"`{preset}`", f"{NAMES[optimizer]}, {lr:g}", top1[str(PRESETS[preset])] if is_published else "-"]
        cells += [mean_of(reached[preset, optimizer]) for reached in ours.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_of(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ({len(values)})" if values else "-"


def rows_table() -> str:
    """(a): each preset and optimizer, with what a step is there."""
    lines = [
        "| `batch=` | images a step | updates | share of the images in a step | ImageNet batch of as many updates "
        "| optimizer | lr | top-1 % on report, each seed | mean (95 %) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for preset, optimizer in sorted(matrix.ROWS, key=lambda row: (PRESETS[row[0]], row[1])):
        total = PRESETS[preset] // DIVISOR
        updates = IMAGES // total * 90
        runs = seeds_of("rows", f"{preset}-{optimizer}")
        lr = f"{runs[0].config.optimizer.lr:g}" if runs else "-"
        lines.append(
            f"| `{preset}` | {total:,} | {updates:,} | {100 * total / IMAGES:.2g} % "
            f"| {ILSVRC_2012[0] * 90 / updates:,.0f} | {NAMES[optimizer]} | {lr} "
            f"| {of_seeds([r.on_report for r in runs])} |"
        )
    return "\n".join(lines)


def differences_table(group: str, pairs: list[tuple[str, str, str]]) -> str:
    """Between two sets of seeds of ``group``: label, first and second prefix of each pair."""
    lines = ["| difference | n | points (95 %) | exact permutation p |", "|---|---|---|---|"]
    for label, first, second in pairs:
        a, b = ([r.on_report for r in seeds_of(group, prefix)] for prefix in (first, second))
        if min(len(a), len(b)) < 3:
            lines.append(f"| {label} | {len(a)} and {len(b)} | not tested | - |")
            continue
        d = difference(a, b)
        lines.append(
            f"| {label} | {len(a)} and {len(b)} | {d.estimate:+.2f} ({d.low:+.2f} to {d.high:+.2f}) | {d.p:.3f} |"
        )
    return "\n".join(lines)


def row_differences() -> str:
    pairs = [(f"`{p}`: LARS - SGD", f"{p}-lars", f"{p}-sgd") for p in ("8k", "16k", "32k")]
    pairs += [(f"LARS at `{p}` - SGD at `256`", f"{p}-lars", "256-sgd") for p in ("8k", "16k", "32k")]
    return differences_table("rows", pairs)


def to_target() -> list[tuple[int, str, Record]]:
    """The runs of (b) at the best lr of their point that reached the target: images a step, optimizer, record."""
    found = []
    for images in matrix.EPOCHS:
        for optimizer in matrix.OPTIMIZERS:
            _, best = matrix.target_search(images, optimizer)
            if best:
                prefix = best.name.rpartition("-seed")[0]
                found += [(images, optimizer, r) for r in seeds_of("target", prefix) if r.reached["reached_top1"]]
    return found


def target_table() -> str:
    """(b): steps to the target by lr, and of every seed at the best."""
    lines = [
        "| images a step | optimizer | steps by lr, seed 0 | best lr | steps there, each seed | epochs |",
        "|---|---|---|---|---|---|",
    ]
    reached = to_target()
    for images in matrix.EPOCHS:
        for optimizer in matrix.OPTIMIZERS:
            tried, best = matrix.target_search(images, optimizer)
            cells = ", ".join(f"{lr_of(e.name)}: {steps_cell(e)}" for e in tried if e.is_done) or "missing"
            runs = [r for n, o, r in reached if (n, o) == (images, optimizer)]
            steps = ", ".join(f"{r.reached['steps']:,}" for r in runs) or "missing"
            epochs = f"{statistics.mean(r.rows[-1]['epoch'] for r in runs):.1f}" if runs else "-"
            at = lr_of(best.name) + (" (edge)" if best in (tried[0], tried[-1]) else "") if best else "-"
            lines.append(f"| {images:,} | {NAMES[optimizer]} | {cells} | {at} | {steps} | {epochs} |")
    return "\n".join(lines)


def lr_of(name: str) -> str:
    return name.partition("-lr")[2].partition("-")[0]


def steps_cell(experiment: matrix.Experiment) -> str:
    result = experiment.result
    if result is None:
        return "diverged"
    return f"{result['steps']:,}" if result["reached_top1"] else f"missed ({result['best_top1']:.1f} %)"


def batch_and_epochs(optimizer: str) -> tuple[list[int], list[float]]:
    """Of (b): images a step, and epochs of images to the target, of each run; whole steps, so that none is left out."""
    runs = [
        (images, r.result["steps"] * images / IMAGES) for images, o, r in to_target() if o == optimizer and r.result
    ]
    return [images for images, _ in runs], [epochs for _, epochs in runs]


def fits_table() -> str:
    """(b): the two numbers of each optimizer's curve."""
    lines = [
        "| optimizer | runs | fewest steps (95 %) | fewest epochs (95 %) | critical batch (95 %) |",
        "|---|---|---|---|---|",
    ]
    for optimizer in matrix.OPTIMIZERS:
        batch, epochs = batch_and_epochs(optimizer)
        if len(set(batch)) < 3:
            lines.append(f"| {NAMES[optimizer]} | {len(batch)} | missing | missing | missing |")
            continue
        curve, others = fit(batch, epochs), resample(batch, epochs)
        cells = []
        for one, many, shape in (
            (curve.fewest_steps(IMAGES), others.fewest_steps(IMAGES), "{:,.0f}"),
            (curve.fewest_epochs, others.fewest_epochs, "{:.1f}"),
            (curve.critical_batch, others.critical_batch, "{:,.0f}"),
        ):
            low, high = interval(many)
            cells.append(f"{shape} ({shape}-{shape})".format(float(one), float(low), float(high)))
        lines.append(f"| {NAMES[optimizer]} | {len(batch)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tuned_table() -> str:
    """(c): the trials, on selection."""
    lines = ["| optimizer | warm-up, epochs | top-1 % on selection by lr, seed 0 |", "|---|---|---|"]
    for kind in matrix.KINDS:
        for warmup in matrix.WARMUPS:
            trials = [e for e in matrix.tuned(kind) if e.name.endswith(f"-warmup{warmup}")]
            cells = ", ".join(f"{lr_of(e.name)}: {top1_cell(e)}" for e in trials if e.is_done)
            lines.append(f"| {NAMES[kind]} | {warmup} | {cells or 'missing'} |")
    return "\n".join(lines)


def top1_cell(experiment: matrix.Experiment) -> str:
    result = experiment.result
    return f"{result['last_top1']:.2f}" if result else "diverged"


def fresh_table() -> str:
    """(c) and (d): the best of each on seeds that chose nothing."""
    lines = [
        "| setting | epochs | lr | warm-up | top-1 % on report, each seed | mean (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for group in ("fresh", "longer"):
        for name in NAMES:
            runs = seeds_of(group, name)
            if runs:
                c = runs[0].config
                lines.append(
                    f"| {NAMES[name]} | {c.epochs} | {c.optimizer.lr:g} | {c.schedule.warmup_epochs:g} "
                    f"| {of_seeds([r.on_report for r in runs])} |"
                )
    return "\n".join(lines) if len(lines) > 2 else "No run of these is done yet."


def fresh_differences() -> str:
    pairs = [(f"LARS - {NAMES[name]}", "lars", name) for name in NAMES if name != "lars"]
    return differences_table("fresh", pairs)


def steps_points() -> list[dict[str, object]]:
    """What the picture of (b) is drawn from: every run at the best lr, and the curves."""
    found: list[dict[str, object]] = [
        {"what": "run", "optimizer": optimizer, "batch": images, "steps": r.result["steps"], "low": "", "high": ""}
        for images, optimizer, r in to_target() if r.result
    ]  # fmt: skip
    for optimizer in matrix.OPTIMIZERS:
        batch, epochs = batch_and_epochs(optimizer)
        if len(set(batch)) < 3:
            continue
        curve, others = fit(batch, epochs), resample(batch, epochs)
        xs = np.geomspace(32, 16384, 37)
        scale = IMAGES / xs
        bounds = interval(others.epochs(xs))
        for x, y, low, high in zip(xs, curve.epochs(xs) * scale, *(b * scale for b in bounds), strict=True):
            found.append({"what": "curve", "optimizer": optimizer, "batch": f"{x:.0f}", "steps": f"{y:.1f}",
                          "low": f"{low:.1f}", "high": f"{high:.1f}"})  # fmt: skip
    return found


def draw_steps(axes: Axes, rows: Rows) -> None:
    for optimizer in matrix.OPTIMIZERS:
        of = [r for r in rows if r["optimizer"] == optimizer]
        batch, steps = columns([r for r in of if r["what"] == "run"], "batch", "steps")
        if not len(batch):
            continue
        axes.scatter(batch, steps, 26, marker=MARKERS[optimizer], facecolors="none" if optimizer == "sgd" else None,
                     edgecolors=[colour_of(DIVISOR * b) for b in batch],
                     c=[colour_of(DIVISOR * b) for b in batch] if optimizer == "lars" else None, zorder=3)  # fmt: skip
        curve = [r for r in of if r["what"] == "curve"]
        if curve:
            x, y, low, high = columns(curve, "batch", "steps", "low", "high")
            axes.fill_between(x, low, high, color="#666666", alpha=0.15, linewidth=0)
            axes.plot(x, y, LINES[optimizer], color="#444444", linewidth=1.6, label=NAMES[optimizer])
            axes.plot(x, [y[0] * x[0] / b for b in x], ":", color="#999999", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(matrix.EPOCHS), [f"{images:,}" for images in matrix.EPOCHS])
    axes.set_xlabel("images a step (dotted: perfect scaling)")
    axes.set_ylabel(f"steps to {matrix.TARGET:g} % top-1 on selection")
    axes.set_title("ResNet-8 on fractals (not ImageNet)", fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def error_points() -> list[dict[str, object]]:
    """Percent of the report images that are wrong, of each seed of (a)."""
    return [
        {"batch": preset, "images": PRESETS[preset] // DIVISOR, "optimizer": optimizer, "seed": r.config.seed,
         "error": round(100 - r.on_report, 4)}
        for preset, optimizer in matrix.ROWS for r in seeds_of("rows", f"{preset}-{optimizer}")
    ]  # fmt: skip


def draw_errors(axes: Axes, rows: Rows) -> None:
    for optimizer in matrix.OPTIMIZERS:
        of = [r for r in rows if r["optimizer"] == optimizer]
        by_images = itertools.groupby(sorted(of, key=lambda r: float(r["images"])), key=lambda r: float(r["images"]))
        middles = {x: statistics.median(float(r["error"]) for r in runs) for x, runs in by_images}
        if small := middles.pop(PRESETS["256"] // DIVISOR, None):  # no line over the five octaves up to the next batch
            axes.axhline(small, linestyle=":", color="#999999")
            axes.annotate(f"{NAMES[optimizer]} at 256", (PRESETS["256"] / DIVISOR, small), (6, -14), **NEAR)
        axes.plot(list(middles), list(middles.values()), LINES[optimizer], color="#666666", zorder=1)
        if middles:
            axes.annotate(NAMES[optimizer], (max(middles), middles[max(middles)]), (10, -4), **NEAR)
        x, y = columns(of, "images", "error")
        colours = [colour_of(DIVISOR * b) for b in x]
        axes.scatter(x, y, 26, marker=MARKERS[optimizer], edgecolors=colours, zorder=3,
                     facecolors=colours if optimizer == "lars" else "none")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = {float(r["images"]): r["batch"] for r in rows}
    axes.set_xticks(list(ticks), [f"{name}\n({x:,.0f})" for x, name in ticks.items()])
    axes.set_xlim(min(ticks) / 1.3, max(ticks) * 1.6)  # with room for the names at the lines' ends
    errors = [float(r["error"]) for r in rows]
    axes.set_yticks(ERRORS, [str(e) for e in ERRORS])
    axes.set_ylim(0.95 * min(errors), 1.05 * max(errors))
    axes.minorticks_off()
    axes.set_xlabel("batch= (images a step)")
    axes.set_ylabel("top-1 error on report (%), each seed")
    axes.set_title(
        "ResNet-8 on fractals (not ImageNet), 90 epochs: every seed, and lines through the medians", fontsize=10
    )


def curve_points() -> list[dict[str, object]]:
    """Percent of the selection images that are wrong after each epoch, of each seed of (a)."""
    return [
        {"batch": preset, "optimizer": optimizer, "seed": r.config.seed, "epoch": row["epoch"],
         "error": round(100 - row["val_top1"], 4)}
        for preset, optimizer in matrix.ROWS for r in seeds_of("rows", f"{preset}-{optimizer}") for row in r.rows
    ]  # fmt: skip


def draw_curves(axes: Axes, rows: Rows) -> None:
    by_batch = sorted(rows, key=lambda r: PRESETS[r["batch"]])
    for (batch, optimizer), runs in itertools.groupby(by_batch, key=lambda r: (r["batch"], r["optimizer"])):
        label: str | None = f"{batch}, {NAMES[optimizer]}"
        for _, points in itertools.groupby(runs, key=lambda r: r["seed"]):
            epochs, errors = columns(list(points), "epoch", "error")
            axes.plot(epochs, errors, LINES[optimizer], color=COLOURS[batch], linewidth=0.8, alpha=0.8, label=label)
            label = None  # one for all seeds
    axes.set_yscale("log")
    axes.set_yticks(ERRORS, [str(e) for e in ERRORS])
    axes.minorticks_off()
    axes.set_xlim(0, 90)
    axes.set_xlabel("epoch")
    axes.set_ylabel("top-1 error on selection (%), each seed")
    axes.set_title("ResNet-8 on fractals (not ImageNet), settings as published", fontsize=10)
    axes.legend(fontsize=8, ncols=2)


PLOTS = [
    Plot("rows-curves", curve_points, draw_curves),
    Plot("steps-to-target", steps_points, draw_steps),
    Plot("rows-error", error_points, draw_errors),
]
