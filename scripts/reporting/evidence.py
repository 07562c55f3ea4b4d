"""Tables and plots of the rows, (a), and of the tuned baseline, (c) and (d), on fractals, as far as runs are done."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from scripts import matrix
from scripts.matrix import IMAGES
from scripts.records import PRESETS, PUBLISHED_OPTIMIZER, Record, on_fractals, on_imagenet, published
from scripts.reporting.mlperf import colour_of, columns
from scripts.reporting.plot import COLOURS, Plot, Rows
from scripts.reporting.seeds import Seeds, differences_table, seeds_of
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
    lines = ["| experiment | done | of the runs asked for so far | diverged | on |", "|---|---|---|---|---|"]
    labels = [f"({letter})" for letter in "abccdefg"]
    for label, group in zip([*labels, "[learn](../docs/learn.md)"], matrix.GROUPS, strict=True):
        asked = list(matrix.GROUPS[group]())
        done = [e for e in asked if e.is_done]
        diverged = sum(e.result is None for e in done)
        cpus = Counter(cpu for r in on_fractals(group).values() if r.result and (cpu := cpu_of(r)))
        on = ", ".join(f"{cpu}: {n}" for cpu, n in sorted(cpus.items())) or "-"
        lines.append(f"| {label} `{group}` | {len(done)} | {len(asked) or 'waits'} | {diverged} | {on} |")
    return "\n".join(lines)


def cpu_of(run: Record) -> str:
    """The make of its CPU: "Xeon" or "EPYC"."""
    name = str(run.reached["hardware"]["cpu"])
    return next((make for make in ("Xeon", "EPYC") if make in name), name)


def main_table() -> str:
    """The published rows and the other optimizer at each batch: others' top-1 on ImageNet, and ours on fractals.

    With a column of our own on ImageNet as soon as there is one record.
    """
    top1 = {row["batch"]: row["top1"] for row in published("torchlars.csv")}
    ours = {"fractals": {row: seeds_of("rows", "-".join(row)).on_report for row in matrix.ROWS}}
    if any(on_imagenet(*row) for row in matrix.ROWS):
        ours["ImageNet"] = {row: [r.last for r in on_imagenet(*row)] for row in matrix.ROWS}
    columns = ["`batch=`", "optimizer, lr", "ImageNet, published", *(f"{data}, ours: mean (seeds)" for data in ours)]
    columns.append("fractals: updates; share of the images in a step; ImageNet batch of as many updates")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for preset, optimizer in sorted(matrix.ROWS, key=lambda row: (PRESETS[row[0]], row[1])):
        lr = compose("data=imagenet", f"batch={preset}", f"optimizer={optimizer}").optimizer.lr
        is_published = optimizer == PUBLISHED_OPTIMIZER[preset]
        cells = [f"`{preset}`", f"{NAMES[optimizer]}, {lr:g}", top1[str(PRESETS[preset])] if is_published else "-"]
        cells += [mean_of(reached[preset, optimizer]) for reached in ours.values()]
        cells.append("; ".join(in_proportion(preset)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def in_proportion(preset: str) -> tuple[str, str, str]:
    """On fractals: updates in 90 epochs, share of the images in a step, and the ImageNet batch of as many updates."""
    total = PRESETS[preset] // DIVISOR
    updates = IMAGES // total * 90
    return f"{updates:,}", f"{100 * total / IMAGES:.2g} %", f"{ILSVRC_2012[0] * 90 / updates:,.0f}"


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
        seeds = seeds_of("rows", f"{preset}-{optimizer}")
        lr = f"{seeds.runs[0].config.optimizer.lr:g}" if seeds.runs else "-"
        lines.append(
            f"| `{preset}` | {PRESETS[preset] // DIVISOR:,} | {' | '.join(in_proportion(preset))} "
            f"| {NAMES[optimizer]} | {lr} "
            f"| {seeds.cells()} |"
        )
    return "\n".join(lines)


def reference_table() -> str:
    """(a) on selection, for the runs of others: the last top-1, and the steps to (b)'s target, of all seeds."""
    lines = [
        "| `batch=` | optimizer | seeds | top-1 %: mean (least to most) | steps to 75 %: mean (least to most) |",
        "|---|---|---|---|---|",
    ]
    for preset, optimizer in sorted(matrix.ROWS, key=lambda row: (PRESETS[row[0]], row[1])):
        runs = seeds_of("rows", f"{preset}-{optimizer}").ended
        top1 = [r.last for r in runs]
        at = [[row["step"] for row in r.rows if row["val_top1"] >= matrix.TARGET] for r in runs]
        steps = [reached[0] for reached in at if reached]
        never = f"; {len(at) - len(steps)} never" if len(steps) < len(at) else ""
        cells = [
            f"{statistics.mean(top1):.2f} ({min(top1):.2f} to {max(top1):.2f})" if top1 else "missing",
            f"{statistics.mean(steps):,.0f} ({min(steps):,.0f} to {max(steps):,.0f}){never}" if steps else "never",
        ]
        lines.append(f"| `{preset}` | {NAMES[optimizer]} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def row_differences() -> str:
    rows = {row: seeds_of("rows", "-".join(row)) for row in matrix.ROWS}
    larger = ("8k", "16k", "32k")
    pairs = [(f"`{p}`: LARS - SGD", rows[p, "lars"], rows[p, "sgd"]) for p in larger]
    pairs += [(f"LARS at `{p}` - SGD at `256`", rows[p, "lars"], rows["256", "sgd"]) for p in larger]
    return differences_table(pairs)


def lr_of(name: str) -> str:
    return name.partition("-lr")[2].partition("-")[0]


def tuned_table() -> str:
    """(c): the trials, on selection; the best of each kind in bold."""
    lines = ["| optimizer | warm-up, epochs | top-1 % on selection by lr, seed 0 |", "|---|---|---|"]
    for kind in matrix.KINDS:
        best = matrix.best_of(kind)
        for warmup in matrix.WARMUPS:
            trials = [e for e in matrix.tuned(kind) if e.name.endswith(f"-warmup{warmup}")]
            cells = []
            for e in (e for e in trials if e.is_done):
                edge = " (edge)" if e in (trials[0], trials[-1]) else ""
                cell = f"{lr_of(e.name)}: {top1_cell(e)}"
                cells.append(f"**{cell}{edge}**" if e == best else cell)
            lines.append(f"| {NAMES[kind]} | {warmup} | {', '.join(cells) or 'missing'} |")
    return "\n".join(lines)


def top1_cell(experiment: matrix.Experiment) -> str:
    result = experiment.result
    return f"{result['last_top1']:.2f}" if result else "diverged"


def longer_seeds(kind: str) -> Seeds:
    return seeds_of("longer", kind, len(matrix.LONGER_SEEDS))


def fresh_table() -> str:
    """(c) and (d): the best of each on seeds that chose nothing."""
    lines = [
        "| setting | epochs | lr | warm-up | top-1 % on report, each seed | mean (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    sets = [(name, 90, seeds_of("fresh", name)) for name in NAMES]
    sets += [(kind, matrix.LONGER_EPOCHS, longer_seeds(kind)) for kind in matrix.longer_kinds()]
    for name, epochs, seeds in sets:
        if seeds.runs:
            config = seeds.runs[0].config
            chosen = f"{config.optimizer.lr:g} | {config.schedule.warmup_epochs:g}"
        else:
            chosen = "- | -"
        lines.append(f"| {NAMES[name]} | {epochs} | {chosen} | {seeds.cells()} |")
    return "\n".join(lines)


def fresh_differences() -> str:
    lars, *others = matrix.longer_kinds() or ("lars",)
    pairs = [(f"LARS - {NAMES[name]}", seeds_of("fresh", "lars"), seeds_of("fresh", name))
             for name in NAMES if name != "lars"]  # fmt: skip
    pairs += [(f"{matrix.LONGER_EPOCHS} epochs: LARS - {NAMES[kind]}", longer_seeds(lars), longer_seeds(kind))
              for kind in others]  # fmt: skip
    return differences_table(pairs)


def error_points() -> list[dict[str, object]]:
    """Percent of the report images that are wrong, of each seed of (a)."""
    return [
        {"batch": preset, "images": PRESETS[preset] // DIVISOR, "optimizer": optimizer, "seed": r.config.seed,
         "error": round(100 - r.on_report, 4)}
        for preset, optimizer in matrix.ROWS for r in seeds_of("rows", f"{preset}-{optimizer}").ended
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
        for preset, optimizer in matrix.ROWS for r in seeds_of("rows", f"{preset}-{optimizer}").ended for row in r.rows
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
    Plot("rows-error", error_points, draw_errors),
]
