"""Plots of the runs on version 1 of fractals, each seed by itself: by epoch, at the end, and by learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scripts.matrix import OPTIMIZERS
from scripts.records import Record, on_fractals_v1
from scripts.reporting import drawings
from scripts.reporting.plot import COLOURS, LINES, NEAR, Plot, Rows, columns, log_axis, mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# lr of the rows at the smallest and the largest batch, the middle of each grid
MIDDLE_V1 = {("256", "lars"): 2.26, ("256", "sgd"): 0.025, ("32k", "lars"): 29.0, ("32k", "sgd"): 3.2}
CHANCE = 100 * (1 - 1 / 64)  # error of a guess, in percent
DIVERGED = 130  # where runs without an end are drawn, beyond every error


def curves(name: str, value: Callable[[dict[str, float]], float]) -> list[dict[str, object]]:
    """``value`` of each row of a log, as ``name``, for every run of the rows."""
    return [
        {"batch": r.preset, "optimizer": r.optimizer, "seed": r.config.seed, "epoch": row["epoch"],
         name: round(value(row), 4)}
        for r in on_fractals_v1("rows") if r.result for row in r.rows
    ]  # fmt: skip


def draw_errors(axes: Axes, rows: Rows) -> None:
    drawings.draw_curves(axes, rows, "error")
    log_axis(axes)
    axes.set_ylabel("validation top-1 error (%), log axis")
    axes.figure.suptitle("ResNet-8 on fractals v1 (not ImageNet), batches divided by 8: every seed", fontsize=10)


def draw_losses(axes: Axes, rows: Rows) -> None:
    drawings.draw_curves(axes, rows, "loss")
    log_axis(axes, (0.05, 0.1, 0.2, 0.5, 1, 2, 5))
    axes.set_ylabel("training loss (nats), log axis")
    axes.figure.suptitle("ResNet-8 on fractals v1, batches divided by 8: loss of each epoch, every seed", fontsize=10)


def end(r: Record) -> dict[str, object]:
    """Percent of the validation images that are wrong after the last epoch of a run."""
    return {"batch": r.preset, "optimizer": r.optimizer, "lr": float(r.config.optimizer.lr), "seed": r.config.seed,
            "error": round(100 - r.last, 4)}  # fmt: skip


def ends() -> list[dict[str, object]]:
    return [
        {**end(r), "images": r.config.batch.total, **drawings.what_a_step_is(r.config.batch.total)}
        for r in on_fractals_v1("rows") if r.result
    ]  # fmt: skip


def draw_final(axes: Axes, rows: Rows) -> None:
    drawings.draw_ends(axes, rows, "batch", drawings.step_ticks(rows))
    axes.set_xlabel(drawings.STEP)
    axes.set_ylabel("validation top-1 error (%), log axis")
    what = "ResNet-8 on fractals v1, 90 epochs: every seed, and lines through medians"
    axes.set_title(f"{what}\nBatchNorm over 32 images at 256, over 512 elsewhere", fontsize=10)


def best() -> list[dict[str, object]]:
    """The ends of version 1's (c), each with its lr in units of the row's."""
    return [
        {**end(r), "of_row": f"{r.config.optimizer.lr / MIDDLE_V1[r.preset, r.optimizer]:.2g}"}
        for r in on_fractals_v1("best") if r.result
    ]  # fmt: skip


def draw_chance(axes: Axes, x: float) -> None:
    axes.axhline(CHANCE, linestyle=":", color="#999999")
    axes.annotate("chance", (x, CHANCE), (0, 3), ha="center", **{**NEAR, "fontsize": 9})


def draw_best(axes: Axes, rows: Rows) -> None:
    ticks = {}
    for of_row in sorted({row["of_row"] for row in rows}, key=float):
        lrs = {row["optimizer"]: float(row["lr"]) for row in rows if row["of_row"] == of_row}
        ticks[of_row] = f"{of_row}\n" + ", ".join(f"{optimizer.upper()} {lrs[optimizer]:g}" for optimizer in lrs)
    draw_chance(axes, 0)
    drawings.draw_ends(axes, rows, "of_row", ticks)
    axes.set_xlabel("learning rate, in units of the row's")
    axes.set_ylabel("validation top-1 error (%), log axis")
    what = "ResNet-8 on fractals v1, batch=32k, 90 epochs"
    axes.set_title(f"{what}: every seed, and lines through medians", fontsize=10)


def rates() -> list[dict[str, object]]:
    """Error after 30 epochs by learning rate; of a run that diverged, none."""
    return [
        {"batch": r.preset, "optimizer": r.optimizer, "lr": float(r.config.optimizer.lr),
         "error": round(100 - r.last, 4) if r.result else ""}
        for r in sorted(on_fractals_v1("lr"), key=lambda r: (r.preset, r.optimizer, float(r.config.optimizer.lr)))
    ]  # fmt: skip


def draw_rates(axes: Axes, rows: Rows) -> None:
    (batch,) = {row["batch"] for row in rows}
    draw_chance(axes, 1)
    for optimizer, (side, align) in zip(OPTIMIZERS, ((-4, "right"), (0, "center")), strict=True):
        middle = MIDDLE_V1[batch, optimizer]
        of = [row for row in rows if row["optimizer"] == optimizer]
        lrs, errors = columns([row for row in of if row["error"]], "lr", "error")
        x = [lr / middle for lr in lrs]
        axes.plot(x, errors, LINES[optimizer], color=COLOURS[batch], linewidth=1.2)
        mark(axes, x, errors, optimizer, COLOURS[batch])
        lowest = errors.index(min(errors))
        axes.annotate(optimizer.upper(), (x[lowest], errors[lowest]), (side, -15), ha=align, **NEAR)
        for row in of:
            if not row["error"]:
                axes.plot(float(row["lr"]) / middle, DIVERGED, "x", color=COLOURS[batch], markersize=8)
                axes.annotate(f"{optimizer.upper()}\ndiverged", (float(row["lr"]) / middle, DIVERGED), (-8, 0),
                              ha="right", va="center", **{**NEAR, "fontsize": 9})  # fmt: skip
    axes.set_xscale("log")
    log_axis(axes)
    axes.set_ylim(5.5, 1.2 * DIVERGED)
    ticks = [10 ** (k / 4) for k in (-6, -3, -1, 0, 1, 3, 6)]
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("learning rate, in units of the row's")
    axes.set_ylabel("validation top-1 error (%), log axis")
    of_row = ", ".join(f"{MIDDLE_V1[batch, optimizer]:g} ({optimizer.upper()})" for optimizer in OPTIMIZERS)
    axes.set_title(f"batch={batch}; the row's lr: {of_row}", fontsize=10)
    axes.figure.suptitle("ResNet-8 on fractals v1, 30 epochs, one seed", fontsize=10)


PLOTS = [
    Plot("fractals-top1", lambda: curves("error", lambda row: 100 - row["val_top1"]), draw_errors, by="batch"),
    Plot("fractals-loss", lambda: curves("loss", lambda row: row["train_loss"]), draw_losses, by="batch"),
    Plot("fractals-final", ends, draw_final),
    Plot("fractals-lr", rates, draw_rates, by="batch"),
    Plot("fractals-best", best, draw_best),
]
