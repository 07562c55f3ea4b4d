"""Tables and plots of the rows, (a), and of the tuned baseline, (c) and (d), on fractals, as far as runs are done."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING

from scripts import matrix
from scripts.matrix import lr_of
from scripts.records import PRESETS, PUBLISHED_OPTIMIZER, Record, on_fractals, on_imagenet, published
from scripts.reporting import drawings
from scripts.reporting.experiments.seeds import Seeds, differences_table, seeds_of
from scripts.reporting.plot import Plot, Rows, log_axis
from train.config.compose import compose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVISOR = 8  # of the presets' batches on fractals
NAMES = {
    "sgd": "SGD", "nesterov": "SGD, Nesterov", "lars": "LARS", "larc": "LARC",
    "lars-weights-only": "LARS, norm layers and biases plain",
}  # fmt: skip


def progress_table() -> str:
    """How many of the runs that are asked for so far are done; what is done may ask for more."""
    lines = ["| experiment | done | of the runs asked for so far | diverged | on |", "|---|---|---|---|---|"]
    for group, runs in matrix.GROUPS.items():
        label = f"({matrix.LETTERS[group]})" if group in matrix.LETTERS else "[learn](../docs/learn.md)"
        asked = list(runs())
        done = [e for e in asked if e.is_done]
        diverged = sum(e.result is None for e in done)
        cpus = Counter(map(cpu_of, on_fractals(group).values()))
        on = ", ".join(f"{cpu}: {n}" for cpu, n in sorted(cpus.items())) or "-"
        lines.append(f"| {label} `{group}` | {len(done)} | {len(asked) or 'waits'} | {diverged} | {on} |")
    return "\n".join(lines)


def cpu_of(run: Record) -> str:
    """The make of its CPU: "Xeon" or "EPYC"."""
    name = str(run.ended["hardware"]["cpu"])
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
    columns.append("updates there; share of the images in a step; ImageNet batch of as many updates")
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
    step = drawings.what_a_step_is(PRESETS[preset] // DIVISOR)
    return f"{step['updates']:,}", f"{step['share']} %", f"{step['imagenet']:,}"


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
                cell = f"{lr_of(e):g}: {top1_cell(e)}"
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
         "error": round(100 - r.on_report, 4), **drawings.what_a_step_is(PRESETS[preset] // DIVISOR)}
        for preset, optimizer in matrix.ROWS for r in seeds_of("rows", f"{preset}-{optimizer}").ended
    ]  # fmt: skip


def draw_errors(axes: Axes, rows: Rows) -> None:
    drawings.draw_ends(axes, rows, "batch", drawings.step_ticks(rows))
    axes.set_xlabel(drawings.STEP)
    axes.set_ylabel("top-1 error (%), each seed")
    axes.set_title("ResNet-8 on fractals (not ImageNet),\n90 epochs, nothing tuned", fontsize=10)


def curve_points() -> list[dict[str, object]]:
    """Percent of the selection images that are wrong after each epoch, of each seed of (a)."""
    return [
        {"batch": preset, "optimizer": optimizer, "seed": r.config.seed, "epoch": row["epoch"],
         "error": round(100 - row["val_top1"], 4)}
        for preset, optimizer in matrix.ROWS for r in seeds_of("rows", f"{preset}-{optimizer}").ended for row in r.rows
    ]  # fmt: skip


def draw_curves(axes: Axes, rows: Rows) -> None:
    drawings.draw_curves(axes, rows, "error")
    log_axis(axes)
    axes.set_ylabel("top-1 error on selection (%), log axis")
    title = "ResNet-8 on fractals (not ImageNet), nothing tuned: every seed, and bold the median of five"
    axes.figure.suptitle(title, fontsize=10)


PLOTS = [
    Plot("rows-curves", curve_points, draw_curves, by="batch"),
    Plot("rows-error", error_points, draw_errors, (4.8, 4.4)),
]
