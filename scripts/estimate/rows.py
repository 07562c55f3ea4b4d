"""What every row of a recipe would take on ImageNet, on each kind of machine."""

from __future__ import annotations

import functools

from scripts.estimate.cost import Cost
from scripts.estimate.machine import MachineConfig, compose_machine, ends, split
from scripts.estimate.memory import Footprint
from scripts.estimate.one_run import costs_of, dollars_of, footprint_of, process_counts
from scripts.estimate.text import duration
from train.config.compose import compose
from train.config.groups import choices
from train.config.refusals import MISTAKES
from train.config.schema import Config
from train.data.dataset import ILSVRC_2012
from train.errors import UserError

MACHINES = ("a100", "h100")
BATCHES = choices("batch")
# of the README's table and of the plot
GPUS = "machine.gpus=[1,2,4,8,16,32,64,128,256,512,1024]"

Row = tuple[Config, MachineConfig, list[Cost | None]]


@functools.cache
def costs_of_rows(*overrides: str) -> list[Row]:
    """Every batch that the recipe publishes, on each end of every kind of machine, and its cost on ``machine.gpus``.

    Raises one of ``MISTAKES`` when the overrides fit no batch.
    """
    of_machine, of_run = split(overrides)
    given = dict(o.partition("=")[::2] for o in [*of_machine, *of_run])
    if given.get("data", "imagenet") != "imagenet" or "data.root" in given:
        raise UserError("rows are planned with ILSVRC-2012's images: leave out data, or give batch= for a single run")
    names = [given["machine"]] if "machine" in given else MACHINES
    of_machine = [o for o in of_machine if not o.startswith("machine=")]
    machines = [end for name in names for end in ends(compose_machine(f"machine={name}", *of_machine))]
    found: list[Row] = []
    net: Footprint | None = None
    refused: Exception | None = None
    for machine in machines:
        for batch in [given["batch"]] if "batch" in given else BATCHES:
            try:
                config = compose("data=imagenet", f"batch={batch}", *(o for o in of_run if not o.startswith("batch=")))
            except MISTAKES as error:
                refused = refused or error
                continue
            # every row has the same network, and so the same gradients and operations for an image
            net = net or footprint_of(config, ILSVRC_2012[2], 1)
            found.append((config, machine, costs_of(config, machine, ILSVRC_2012[0], ILSVRC_2012[1], net)))
    if refused and not found:
        raise refused
    return found


def markdown(*overrides: str) -> str:
    lines = ["| `batch=` | machine | GPUs | micro-batch | images/s | time | $ |", "|---|---|---|---|---|---|---|"]
    for config, machine, costs in costs_of_rows(*overrides):
        for gpus, cost in zip(process_counts(config, machine), costs, strict=True):
            start = f"| `{config.batch.preset}` | {machine.name} | {gpus:,} | "
            if cost is None:
                lines.append(f"{start}cannot share {config.batch.total:,} images | - | - | - |")
                continue
            smaller = f"{cost.micro}, smaller than the recipe's" if cost.micro < config.batch.micro else f"{cost.micro}"
            lines.append(
                f"{start}{smaller} | {cost.images_per_second:,.0f} | {duration(cost.hours)} | {dollars_of(cost)} |"
            )
    return "\n".join(lines)


def hours_of_rows(*overrides: str) -> list[dict[str, object]]:
    """Hours of each row on ImageNet by the number of GPUs that share its micro-batches."""
    found: list[dict[str, object]] = []
    for config, machine, costs in costs_of_rows(GPUS, *overrides):
        found += [
            {"batch": config.batch.preset, "machine": machine.name, "gpus": cost.gpus,
             "hours": f"{cost.hours:.4g}", "dollars": "" if cost.dollars is None else f"{cost.dollars:.4g}"}
            for cost in costs
            if cost and cost.micro == config.batch.micro
        ]  # fmt: skip
    if not found:
        raise UserError("nothing to draw: no number of machine.gpus shares the recipe's micro-batches")
    return found
