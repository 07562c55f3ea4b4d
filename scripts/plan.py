"""Estimate a run before renting machines: its steps, memory, traffic, time and cost.

Usage: python scripts/plan.py batch=32k data=imagenet machine=h100 machine.gpus=[8,64]     one run
       python scripts/plan.py [overrides] [--plot FILE.png]      all rows of a recipe on ILSVRC-2012, as a table
       python scripts/plan.py --from runs/NAME [--plot FILE.png]      a finished run with noise_scale=true: what the
                                                                 same result would take and cost on 1 to 1,024 GPUs

It takes every override that the app takes, and ``machine=`` and ``machine.`` for the machine. With ``batch=`` or
``batch.total=`` it plans that run, without them or with ``--plot`` the rows. Nothing is started, and no GPU or image is
needed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import hydra

from train.config.compose import compose, default_name
from train.config.groups import CONFIGS
from train.config.overrides import parse
from train.config.refusals import MISTAKES, refuse
from train.errors import UserError, print_error

if TYPE_CHECKING:
    from scripts.reporting.plot import Plot


def one_run(overrides: list[str]) -> str:
    # torch takes seconds to import: only once the command line is checked
    from scripts.estimate.machine import compose_machine, split

    of_machine, of_run = split(overrides)
    config, machine = compose(*of_run), compose_machine(*of_machine)
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        name = config.name or default_name(config, parse(of_run).overrides)
    from scripts.estimate.one_run import describe

    return f"plan of {name}, nothing is started\n{describe(config, machine)}"


def all_rows(overrides: list[str], picture: Path | None) -> str:
    from scripts.estimate.rows import markdown

    table = markdown(*overrides)
    if picture:
        from scripts.reporting.costs import plan_plot

        draw(plan_plot(*overrides), picture)
    return table


def from_run(folder: Path, overrides: list[str], picture: Path | None) -> str:
    from scripts.estimate import frontier
    from scripts.estimate.machine import compose_machine, split

    of_machine, others = split(overrides)
    if others:
        raise UserError(f"{others[0]}: --from takes everything from the run; only machine= and machine.* may be given")
    run, machine = frontier.read(folder), compose_machine(*of_machine)
    if not run.on_gpus and not any(o.startswith(("machine=", "machine.dollars_per_hour=")) for o in of_machine):
        # the default machine's price is that of a GPU
        machine = replace(machine, dollars_per_hour=None)
    points = frontier.frontier(run, machine)
    if picture:
        from scripts.reporting.costs import frontier_plot

        draw(frontier_plot(frontier.rows(points), run.noise_scale, run.unit), picture)
    return frontier.describe(run, machine, points)


def draw(plot: Plot, picture: Path) -> None:
    figures = plot.as_csv()
    picture.with_suffix(".csv").write_text(figures)
    plot.picture(picture, figures)


def main() -> int:
    # its reader may have seen enough, as head has
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="draw hours against GPUs into this PNG, its figures beside it")
    parser.add_argument("--from", type=Path, dest="run", help="a run's folder; --plot draws cost against time")
    arguments, overrides = parser.parse_known_args()
    if arguments.plot and arguments.plot.suffix != ".png":
        parser.error(f"--plot {arguments.plot}: give a name that ends in .png")
    is_one_run = not arguments.plot and any(o.startswith(("batch=", "batch.total=")) for o in overrides)
    try:
        if arguments.run:
            print(from_run(arguments.run, overrides, arguments.plot))
        else:
            print(one_run(overrides) if is_one_run else all_rows(overrides, arguments.plot))
    except MISTAKES as error:
        return refuse(error)
    except OSError as error:
        return print_error(UserError(f"{error.filename}: {error.strerror}: give another --plot=FILE.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
