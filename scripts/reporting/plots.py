"""Every plot, in one style, drawn from a CSV file beside it and from nothing else."""

import csv
import io
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from scripts import plan
from scripts.experiments import OPTIMIZERS
from scripts.reporting import scaling
from scripts.reporting.records import FRACTALS, PRESETS, ROOT, by_row, layers, on_fractals, on_imagenet, published, read

FOLDER = ROOT / "results" / "plots"

# Okabe and Ito's palette, told apart also by the colour-blind
COLOURS = {"256": "#000000", "8k": "#0072B2", "16k": "#009E73", "32k": "#D55E00", "lars": "#0072B2", "sgd": "#D55E00"}
NAMES = {str(batch): preset for preset, batch in PRESETS.items()}

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Plot:
    """``<name>.csv`` and ``<name>.png``."""

    name: str
    data: Callable[[], list[dict[str, object]]]
    draw: Callable[[Axes, Rows], None]
    inches: tuple[float, float] = (8, 4.5)

    def as_csv(self) -> str:
        """The file's text; nothing as long as there are no data."""
        rows = self.data()
        if not rows:
            return ""
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def picture(self, path: Path, text: str) -> None:
        figure, axes = plt.subplots(figsize=self.inches, dpi=120)
        axes.grid(alpha=0.3)
        self.draw(axes, list(csv.DictReader(io.StringIO(text))))
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)


def curves(key: str) -> list[dict[str, object]]:
    """Mean, least and largest of ``key`` over the seeds, after every epoch of each row on fractals."""
    found = []
    for seeds in by_row([r for r in on_fractals("rows") if r.result]):
        for rows in zip(*(s.rows for s in seeds), strict=False):
            values = [row[key] for row in rows]
            found.append(
                {"batch": seeds[0].preset, "images": seeds[0].config.batch.total, "optimizer": seeds[0].optimizer,
                 "seeds": len(seeds), "epoch": rows[0]["epoch"], "mean": round(statistics.mean(values), 4),
                 "least": round(min(values), 4), "largest": round(max(values), 4)}
            )  # fmt: skip
    return found


def draw_curves(axes: Axes, rows: Rows, label: str) -> None:
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
    axes.legend(title="batch= (images a step), optimizer: last epoch", fontsize=8, title_fontsize=8)


def draw_top1(axes: Axes, rows: Rows) -> None:
    draw_curves(axes, rows, "{:.1f} %")
    axes.set_ylabel("validation top-1 (%)")
    axes.set_ylim(0, 100)
    axes.set_title("ResNet-8 on fractals, 64 classes (not ImageNet), batches divided by 8", fontsize=10)


def draw_loss(axes: Axes, rows: Rows) -> None:
    draw_curves(axes, rows, "{:.3f}")
    axes.set_ylabel("training loss (nats)")
    axes.set_yscale("log")
    axes.set_title("ResNet-8 on fractals: mean training loss of each epoch", fontsize=10)


def final() -> list[dict[str, object]]:
    """Top-1 at the last epoch by batch, over seeds."""
    found = []
    for seeds in by_row([r for r in on_fractals("rows") if r.result]):
        ends = [s.last for s in seeds]
        found.append(
            {"batch": seeds[0].preset, "images": seeds[0].config.batch.total, "optimizer": seeds[0].optimizer,
             "seeds": len(ends), "mean": round(statistics.mean(ends), 4),
             "deviation": round(statistics.stdev(ends), 4) if len(ends) > 1 else 0.0}
        )  # fmt: skip
    return found


def draw_final(axes: Axes, rows: Rows) -> None:
    ticks = sorted({int(p["images"]) for p in rows})
    for optimizer, marker in zip(OPTIMIZERS, "os", strict=True):
        points = {int(p["images"]): p for p in rows if p["optimizer"] == optimizer}
        # no line over a batch that is still to come
        mean, deviation = (
            [float(points[t][key]) if t in points else nan for t in ticks] for key in ("mean", "deviation")
        )
        axes.errorbar(
            ticks, mean, deviation, marker=marker, color=COLOURS[optimizer], label=optimizer.upper(), capsize=3
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_xlabel("images a step (batch= divided by 8)")
    axes.set_ylabel("validation top-1 at the last epoch (%)")
    axes.set_title(
        "ResNet-8 on fractals: mean and standard deviation over seeds; SGD's lr follows the batch", fontsize=10
    )
    axes.legend()


def on_imagenet_curves() -> list[dict[str, object]]:
    """The published curves, and ours where a record is."""
    found: list[dict[str, object]] = [
        {"batch": NAMES[row["batch"]], "who": "torchlars", "epoch": row["epoch"], "top1": row["top1"]}
        for row in published("torchlars-figure.csv")
    ]
    for preset in PRESETS:
        for optimizer in OPTIMIZERS:
            for record in on_imagenet(preset, optimizer):
                who = record.folder.name
                found += [
                    {"batch": preset, "who": who, "epoch": r["epoch"], "top1": r["val_top1"]} for r in record.rows
                ]
    return found


def draw_imagenet(axes: Axes, rows: Rows) -> None:
    for (batch, who), group in itertools.groupby(rows, key=lambda r: (r["batch"], r["who"])):
        points = list(group)
        epochs, top1 = ([float(p[key]) for p in points] for key in ("epoch", "top1"))
        theirs = who == "torchlars"
        label = f"{batch}, {'published' if theirs else who}: {max(top1):.1f} %"
        axes.plot(epochs, top1, color=COLOURS[batch], label=label, linewidth=1 if theirs else 1.8,
                  alpha=0.45 if theirs else 1)  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation top-1 (%)")
    axes.set_xlim(0, 90)
    axes.set_ylim(0, 80)
    ours = any(row["who"] != "torchlars" for row in rows)
    axes.set_title(
        "ResNet-50 on ImageNet: torchlars' published curves" + ("" if ours else "; ours: not run yet"), fontsize=10
    )
    axes.legend(title="batch, whose: best", fontsize=8, title_fontsize=8, loc="lower right")


def rates() -> list[dict[str, object]]:
    """Top-1 after 30 epochs by learning rate; of a run that diverged, none."""
    return [
        {"batch": r.preset, "optimizer": r.optimizer, "lr": float(r.config.optimizer.lr),
         "top1": round(r.last, 4) if r.result else ""}
        for r in sorted(on_fractals("lr"), key=lambda r: (r.preset, r.optimizer, float(r.config.optimizer.lr)))
    ]  # fmt: skip


def draw_rates(axes: Axes, rows: Rows) -> None:
    for (batch, optimizer), group in itertools.groupby(rows, key=lambda r: (r["batch"], r["optimizer"])):
        points = list(group)
        middle = float(points[len(points) // 2]["lr"])
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
    axes.set_title("ResNet-8 on fractals: sensitivity to the learning rate, seed 0", fontsize=10)
    axes.legend()


def ratios() -> list[dict[str, object]]:
    """Trust ratio of every layer over the epochs of the largest batch with LARS, seed 0."""
    folder = FRACTALS / "rows" / "32k-lars-seed0"
    epochs = {str(row["images"]): row["epoch"] for row in read(folder).rows}
    return [
        {"epoch": epochs[row["images"]], "layer": row["layer"], "trust_ratio": row["trust_ratio"]}
        for row in layers(folder)
    ]


def draw_ratios(axes: Axes, rows: Rows) -> None:
    # in the order of the network, as they were logged
    names = list(dict.fromkeys(row["layer"] for row in rows))
    epochs = sorted({int(row["epoch"]) for row in rows})
    table = np.full((len(names), len(epochs)), np.nan)
    for row in rows:
        table[names.index(row["layer"]), epochs.index(int(row["epoch"]))] = float(row["trust_ratio"])
    picture = axes.imshow(table, aspect="auto", cmap="cividis", norm=LogNorm())
    axes.figure.colorbar(picture, label="trust ratio: what lr is multiplied by", pad=0.02)
    axes.set_xticks(range(len(epochs)), [str(e) for e in epochs])
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("epoch, at its last step")
    axes.grid(False)
    axes.set_title("ResNet-8 on fractals, 4,096 images a step, LARS: trust ratio of each layer", fontsize=10)


def norms() -> list[dict[str, object]]:
    """Weight norm over gradient norm of every layer of ResNet-50, before the first and the last step of the warm-up."""
    rows = layers(FRACTALS / "resnet50-layers")
    steps = {rows[0]["step"], rows[-1]["step"]} if rows else set()
    return [
        {"step": row["step"], "layer": row["layer"],
         "ratio": f"{float(row['weight_norm']) / float(row['gradient_norm']):.6g}"}
        for row in rows if row["step"] in steps
    ]  # fmt: skip


# kinds of layers, and how to tell them
KINDS = {
    "weight of a convolution": (
        "o",
        lambda name: name.endswith("weight") and ("conv" in name or "downsample.0" in name),
    ),
    "BatchNorm, scale": ("^", lambda name: name.endswith("weight") and ("bn" in name or "downsample.1" in name)),
    "BatchNorm, shift": ("v", lambda name: name.endswith("bias") and not name.startswith("fc")),
    "last layer": ("s", lambda name: name.startswith("fc")),
}


def draw_norms(axes: Axes, rows: Rows) -> None:
    names = list(dict.fromkeys(row["layer"] for row in rows))
    for step, colour in zip(sorted({int(row["step"]) for row in rows}), ("#0072B2", "#D55E00"), strict=True):
        when = "at initialisation" if step == 0 else f"before step {step + 1}, the last of the warm-up"
        for kind, (marker, is_one) in KINDS.items():
            points = [
                (names.index(row["layer"]), float(row["ratio"]))
                for row in rows
                if int(row["step"]) == step and is_one(row["layer"]) and float(row["ratio"]) > 0
            ]
            if points:
                axes.scatter(*zip(*points, strict=True), marker=marker, s=16, color=colour, alpha=0.8, linewidth=0,
                             label=f"{kind}, {when}")  # fmt: skip
    axes.set_yscale("log")
    parts = {name.split(".")[0]: i for i, name in reversed(list(enumerate(names)))}
    del parts["bn1"]
    axes.set_xticks(list(parts.values()), list(parts), ha="left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.set_xlabel("parameters in the order of the network")
    axes.set_ylabel("norm of weights / norm of gradient")
    axes.set_title(
        "ResNet-50 on fractals, 4,096 images a step, LARS (shifts begin at zero and have no ratio then)", fontsize=10
    )
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)


def hours_of_rows(*overrides: str) -> list[dict[str, object]]:
    """Hours of each row on ImageNet by the number of GPUs that share its micro-batches."""
    found: list[dict[str, object]] = []
    for config, costs in plan.costs_of_rows("plan.gpus=[1,2,4,8,16,32,64,128,256,512,1024]", *overrides):
        found += [
            {"batch": config.batch.preset, "machine": config.plan.machine, "gpus": cost.gpus,
             "hours": f"{cost.hours:.4g}", "dollars": "" if cost.dollars is None else f"{cost.dollars:.4g}"}
            for cost in costs
            if cost and cost.micro == config.batch.micro
        ]  # fmt: skip
    return found


def draw_hours(axes: Axes, rows: Rows) -> None:
    series = [(key, list(g)) for key, g in itertools.groupby(rows, key=lambda r: (r["machine"], r["batch"]))]
    # the longest first: rows take the same time, so that each covers the next one until it ends
    for (machine, batch), points in reversed(series):
        gpus, hours = ([float(p[key]) for p in points] for key in ("gpus", "hours"))
        style = "-" if machine == plan.MACHINES[0] else "--"
        end = f"{batch}, {machine.upper()}: to {int(gpus[-1]):,} GPUs"
        axes.plot(gpus, hours, style, color=COLOURS[batch], linewidth=1.8, label=end)
        axes.plot(gpus[-1], hours[-1], "o", color=COLOURS[batch], markersize=5)
    ticks = sorted({int(row["gpus"]) for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_yscale("log")
    axes.set_yticks([1 / 60, 1 / 6, 1, 10], ["1 min", "10 min", "1 h", "10 h"])
    axes.set_xlabel("GPUs, as many as share the recipe's micro-batches")
    axes.set_ylabel("time to the end of 90 epochs")
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


def plan_plot(*overrides: str) -> Plot:
    return Plot("plan", lambda: hours_of_rows(*overrides), draw_hours)


PLOTS = [
    Plot("fractals-top1", lambda: curves("val_top1"), draw_top1),
    Plot("fractals-loss", lambda: curves("train_loss"), draw_loss),
    Plot("fractals-final", final, draw_final),
    Plot("fractals-lr", rates, draw_rates),
    Plot("fractals-trust-ratios", ratios, draw_ratios, (8, 5.5)),
    Plot("resnet50-norms", norms, draw_norms, (8, 5.5)),
    Plot("imagenet-top1", on_imagenet_curves, draw_imagenet),
    plan_plot(),
    Plot("scaling", scaling_points, draw_scaling),
]
