"""What the rows would take on rented machines, and how far the model behind that is from published runs."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

from scripts.reporting import scaling
from scripts.reporting.plot import COLOURS, Plot, Rows
from train.command_line import by_size
from train.config import Config
from train.data import ILSVRC_2012
from train.errors import UserError
from train.main import CONFIGS, MISTAKES, composed
from train.planning import forecast
from train.planning.cost import Cost
from train.planning.footprint import Footprint
from train.planning.foresee import footprint_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MACHINES = ("a100", "h100")
BATCHES = sorted((path.stem for path in (CONFIGS / "batch").glob("*.yaml")), key=by_size)
# of plot and table
GPUS = "plan.gpus=[1,2,4,8,16,32,64,128,256,512,1024]"


@functools.cache
def costs_of_rows(*overrides: str) -> list[tuple[Config, list[Cost | None]]]:
    """Every batch that the recipe publishes on every kind of machine, and what it costs on each of ``plan.gpus``.

    Raises one of ``MISTAKES`` when ``overrides`` fit none.
    """
    found = []
    net: Footprint | None = None
    refused: Exception | None = None
    given = dict(o.partition("=")[::2] for o in overrides)
    if given.get("data", "imagenet") != "imagenet" or "data.root" in given:
        raise UserError("rows are planned with ILSVRC-2012's images: leave out data, or take plan.show=true for a run")
    for machine in [given["plan"]] if "plan" in given else MACHINES:
        for batch in [given["batch"]] if "batch" in given else BATCHES:
            try:
                config = composed("data=imagenet", f"batch={batch}", f"plan={machine}", *overrides)
            except MISTAKES as error:
                refused = refused or error
                continue
            # the network, and so what is summed and computed for an image, is the same in every row
            net = net or footprint_of(config, ILSVRC_2012[2], 1)
            found.append((config, forecast.costs(config, ILSVRC_2012[0], ILSVRC_2012[1], net)))
    if refused and not found:
        raise refused
    return found


def markdown(*overrides: str) -> str:
    lines = ["| `batch=` | machine | GPUs | micro-batch | images/s | time | $ |", "|---|---|---|---|---|---|---|"]
    for config, costs in costs_of_rows(*overrides):
        for gpus, cost in zip(forecast.process_counts(config), costs, strict=True):
            start = f"| `{config.batch.preset}` | {config.plan.machine} | {gpus:,} | "
            if cost is None:
                lines.append(f"{start}cannot share {config.batch.total:,} images | - | - | - |")
                continue
            smaller = f"{cost.micro}, smaller than the recipe's" if cost.micro < config.batch.micro else f"{cost.micro}"
            lines.append(
                f"{start}{smaller} | {cost.images_per_second:,.0f} | {forecast.time_of(cost)} "
                f"| {forecast.dollars_of(cost)} |"
            )
    return "\n".join(lines)


def hours_of_rows(*overrides: str) -> list[dict[str, object]]:
    """Hours of each row on ImageNet by the number of GPUs that share its micro-batches."""
    found: list[dict[str, object]] = []
    for config, costs in costs_of_rows(GPUS, *overrides):
        found += [
            {"batch": config.batch.preset, "machine": config.plan.machine, "gpus": cost.gpus,
             "hours": f"{cost.hours:.4g}", "dollars": "" if cost.dollars is None else f"{cost.dollars:.4g}"}
            for cost in costs
            if cost and cost.micro == config.batch.micro
        ]  # fmt: skip
    if not found:
        raise UserError("nothing to draw: no number of plan.gpus shares the recipe's micro-batches")
    return found


def draw_hours(axes: Axes, rows: Rows) -> None:
    series = [(key, list(g)) for key, g in itertools.groupby(rows, key=lambda r: (r["machine"], r["batch"]))]
    # the longest first: rows take the same time, so that each covers the next one until it ends
    for (machine, batch), points in reversed(series):
        gpus, hours = ([float(p[key]) for p in points] for key in ("gpus", "hours"))
        style = "-" if machine == rows[0]["machine"] else "--"
        end = f"{batch}, {machine.upper()}: to {int(gpus[-1]):,} GPUs"
        axes.plot(gpus, hours, style, color=COLOURS[batch], linewidth=1.8, label=end)
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


def plan_plot(*overrides: str) -> Plot:
    return Plot("plan", lambda: hours_of_rows(*overrides), draw_hours)


PLOTS = [plan_plot(), Plot("scaling", scaling_points, draw_scaling)]
