"""The noise scale against the critical batch, a batch that grows, and VR-LARS against LARS: experiments (e) to (g)."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from scripts import matrix
from scripts.estimate.frontier import median_scale
from scripts.records import Record, on_fractals
from scripts.reporting.experiments.accuracy import DIVISOR, NAMES, cpu_of, top1_cell
from scripts.reporting.experiments.seeds import Seeds, differences_table, seeds_of
from scripts.reporting.experiments.to_target import critical_batch, curves
from scripts.reporting.plot import GREY, LINES, NEAR, Plot, Rows, colour_of, columns, label_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FACTOR = 2  # of the critical batch, within which a prediction holds
SCALES = {"noise_scale": "of the gradient", "noise_scale_lars": "of a step of LARS"}
VARIANCE_NAMES = {"vr": "VR-LARS", "lars": "LARS"}


# ---- (e) does the noise scale predict the critical batch? ----


def measured(setting: str) -> list[Record]:
    return seeds_of("noise", setting, len(matrix.NOISE_SEEDS)).ended


def settings(optimizer: str) -> list[tuple[str, list[Record]]]:
    """What a line of the table is of, and its runs: the row of (a), and the batches of (b) at their best lr."""
    found = []
    preset, of_row = matrix.NOISE_ROW
    if optimizer == of_row:
        found.append((f"(a), `{preset}`", measured(f"{preset}-{optimizer}")))
    for images in matrix.NOISE_IMAGES:
        _, best = matrix.target_search(images, optimizer)
        runs = measured(best.name.rpartition("-seed")[0]) if best else []
        found.append((f"(b), {images:,}", runs))
    return found


def noise_table() -> str:
    """The median of each run, their median, and what it is of the critical batch that (b) gives for this optimizer."""
    lines = [
        "| optimizer | noise scale | runs of | images, each seed | median | critical batch (95 %) "
        "| median / critical batch | log as without |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for optimizer in matrix.OPTIMIZERS:
        both = curves(optimizer)
        for key in SCALES if optimizer == "lars" else ["noise_scale"]:
            for of, runs in settings(optimizer):
                scales = [median_scale([row[key] for row in r.rows]) for r in runs]
                cells = [NAMES[optimizer], SCALES[key], of, ", ".join(f"{s:,.0f}" for s in scales) or "missing"]
                whole = len(runs) == len(matrix.NOISE_SEEDS)
                cells.append(f"{statistics.median(scales):,.0f}" if whole else "-")
                cells.append(critical_batch(*both) if both else "-")
                ratio = statistics.median(scales) / float(both[0].critical_batch) if whole and both else None
                cells.append(f"{ratio:.2f}" if ratio is not None else "-")
                cells.append(same_as_without(runs))
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def same_as_without(runs: list[Record]) -> str:
    """Whether the log of each is that of the same run without the measurement; other CPUs round differently."""
    cells = []
    for run in runs:
        twins = (on_fractals(group).get(run.folder.name) for group in ("rows", "target"))
        other = next(filter(None, twins), None)
        cells.append("missing" if other is None else compared(run, other))
    return ", ".join(cells) or "-"


def compared(run: Record, other: Record) -> str:
    keys = ("step", "train_loss", "val_loss", "val_top1")
    if [[row[k] for k in keys] for row in run.rows] == [[row[k] for k in keys] for row in other.rows]:
        return "equal"
    return "differs" if cpu_of(run) == cpu_of(other) else "other CPU"


def noise_points() -> list[dict[str, object]]:
    """The noise scale of each run after every epoch, and the critical batch of its optimizer."""
    found = []
    for optimizer in matrix.OPTIMIZERS:
        key = "noise_scale_lars" if optimizer == "lars" else "noise_scale"
        both = curves(optimizer)
        for of, runs in settings(optimizer):
            found += [
                {"optimizer": optimizer, "of": of.replace("`", ""), "batch": r.config.batch.total,
                 "seed": r.config.seed, "epoch": row["epoch"], "scale": f"{row[key]:.4g}",
                 "critical": f"{float(both[0].critical_batch):.4g}" if both else ""}
                for r in runs for row in r.rows if row[key] is not None
            ]  # fmt: skip
    return found


def draw_noise(axes: Axes, rows: Rows) -> None:
    """A panel of one optimizer."""
    optimizer, ends = rows[0]["optimizer"], []
    for of, runs in itertools.groupby(rows, key=lambda row: row["of"]):
        colour = colour_of(DIVISOR * float(next(r["batch"] for r in rows if r["of"] == of)))
        for _, points in itertools.groupby(runs, key=lambda row: row["seed"]):
            epochs, scales = columns(list(points), "epoch", "scale")
            axes.plot(epochs, scales, LINES[optimizer], color=colour, linewidth=1)
        ends.append((epochs[-1], scales[-1], of, colour))
    if rows[0]["critical"]:
        critical = float(rows[0]["critical"])
        axes.axhspan(critical / FACTOR, FACTOR * critical, color=GREY, alpha=0.12, linewidth=0)
        axes.axhline(critical, linestyle=LINES[optimizer], color=GREY, linewidth=1.2)
        axes.annotate("critical batch, and a factor of 2", (0, critical), (4, 4), **NEAR)
    axes.set_yscale("log")
    axes.set_xlim(0, 1.5 * max(float(row["epoch"]) for row in rows))
    axes.set_xlabel("epoch")
    axes.set_ylabel("noise scale (images), each seed")
    axes.set_title(f"{NAMES[optimizer]}, ResNet-8 on fractals", fontsize=10)
    label_ends(axes, ends)


# ---- (f) does growing save steps? ----


def growth_seeds() -> dict[str, Seeds]:
    return {
        "1,024 throughout": seeds_of("rows", "8k-lars"),
        "1,024, from epoch 15 on 4,096": seeds_of("growth", "growing"),
        "4,096 throughout": seeds_of("growth", "4096"),
    }


def growth_table() -> str:
    lines = ["| images a step | steps | top-1 % on report, each seed | mean (95 %) |", "|---|---|---|---|"]
    for name, seeds in growth_seeds().items():
        steps = f"{seeds.ended[0].reached['steps']:,}" if seeds.ended else "-"
        lines.append(f"| {name} | {steps} | {seeds.cells()} |")
    return "\n".join(lines)


def growth_differences() -> str:
    fixed, growing, large = growth_seeds().values()
    return differences_table(
        [("growing - 1,024", growing, fixed), ("4,096 - 1,024", large, fixed), ("growing - 4,096", growing, large)]
    )


# ---- (g) is VR-LARS better than LARS? ----


def variance_table() -> str:
    """The trials of lr on selection, and the seeds at the best, which had no say in that."""
    lines = [
        "| `batch=` | optimizer | top-1 % on selection by lr | best lr | top-1 % on report, each seed | mean (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for preset in matrix.VARIANCE_PRESETS:
        for kind, name in VARIANCE_NAMES.items():
            trials = matrix.variance_trials(preset, kind)
            by_lr = ", ".join(f"{matrix.lr_of(e):g}: {top1_cell(e)}" for e in trials if e.is_done) or "missing"
            best = matrix.best_once_done(trials)
            edge = " (edge)" if best in (trials[0], trials[-1]) else ""
            lr = f"{matrix.lr_of(best):g}{edge}" if best else "-"
            lines.append(f"| `{preset}` | {name} | {by_lr} | {lr} | {variance_seeds(preset, kind).cells()} |")
    return "\n".join(lines)


def variance_seeds(preset: str, kind: str) -> Seeds:
    return seeds_of("variance", f"{preset}-{kind}")


def variance_differences() -> str:
    return differences_table(
        [(f"`{preset}`: VR-LARS - LARS", *(variance_seeds(preset, kind) for kind in VARIANCE_NAMES))  # type: ignore[misc]
         for preset in matrix.VARIANCE_PRESETS]
    )  # fmt: skip


TABLES = {
    "noise scale": noise_table,
    "growth": growth_table,
    "growth differences": growth_differences,
    "variance": variance_table,
    "variance differences": variance_differences,
}
PLOTS = [Plot("noise-scale", noise_points, draw_noise, by="optimizer")]
