"""What the four rows would take on ImageNet, before anything is rented: a Markdown table, and a plot.

Usage: python scripts/plan.py [--plot FILE.png] [overrides]
       python scripts/plan.py plan.gpus=[8,64,512] plan.dollars_per_hour=2 --plot plan.png
It needs no GPU and no images. `python train/main.py batch=32k data=imagenet plan.show=true` says more of one row.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.reporting.records import PRESETS
from train import app, forecast
from train.config import Config
from train.cost import Cost
from train.data import ILSVRC_2012
from train.footprint import Footprint
from train.main import MISTAKES, composed, refuse

MACHINES = ("a100", "h100")


def costs_of_rows(*overrides: str) -> list[tuple[Config, list[Cost | None]]]:
    """Every row on every kind of machine, and what it costs on each of ``plan.gpus``."""
    found = []
    net: Footprint | None = None
    for machine in MACHINES:
        for row in PRESETS:
            config = composed("data=imagenet", f"batch={row}", f"plan={machine}", *overrides)
            # the network, and so what is summed and computed for an image, is the same in every row
            net = net or app.footprint_of(config, ILSVRC_2012[2], 1)
            found.append((config, forecast.costs(config, ILSVRC_2012[0], ILSVRC_2012[1], net)))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="draw hours against GPUs into this PNG, its figures beside it")
    arguments, overrides = parser.parse_known_args()
    try:
        print(markdown(*overrides))
    except MISTAKES as error:
        sys.exit(refuse(error))
    if arguments.plot:
        # plots take their rows from here
        from scripts.reporting import plots

        plot = plots.plan_plot(*overrides)
        figures = plot.as_csv()
        arguments.plot.with_suffix(".csv").write_text(figures)
        plot.picture(arguments.plot, figures)


if __name__ == "__main__":
    main()
