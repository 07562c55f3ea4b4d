"""From a run's noise scale and speed: what the same point would take and cost on other numbers of GPUs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from scripts.estimate.cost import Cost, cost_of, speed_of
from scripts.estimate.machine import MachineConfig
from train.errors import UserError
from train.plan import Plan

GPUS = [2**n for n in range(11)]


@dataclass(frozen=True)
class Measured:
    """What a finished run says of itself."""

    name: str
    noise_scale: float  # images, the median over its evaluations
    noise_range: tuple[float, float]  # the least and the most
    noise_scale_lars: float | None
    evaluations: int  # of which so many had
    estimated: int  # a noise scale
    batch: int
    micro: int
    steps: int
    top1: float
    images_per_second: float  # of one process, the median over its evaluations
    processes: int
    train_images: int
    parameters: int

    @property
    def hours(self) -> float:
        """What its steps took, evaluations not counted."""
        return self.steps * self.batch / (self.images_per_second * self.processes) / 3600

    def steps_at(self, batch: float) -> float:
        """Steps to the same point: ``S = S_min (1 + B_c / B)``, arXiv 1812.06162, equation 2.11 with 2.12."""
        fewest = self.steps / (1 + self.noise_scale / self.batch)
        return fewest * (1 + self.noise_scale / batch)


@dataclass(frozen=True)
class Point:
    """The fastest way to the same point on so many GPUs."""

    gpus: int
    batch: int
    steps: float
    hours: float
    gpu_hours: float
    dollars: float | None
    is_own: bool  # the batch and the processes of the run itself

    @property
    def images(self) -> float:
        return self.steps * self.batch


def read(folder: Path) -> Measured:
    """Read the run in ``folder``; raises UserError where it is not finished, or did not measure its noise."""
    try:
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        result = json.loads((folder / "result.json").read_text())
        config: Any = OmegaConf.load(folder / "config.yaml")
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}: give the folder of a finished run") from error
    if OmegaConf.select(config, "batch.grow"):
        raise UserError(f"{folder}: its batch grew, and a plan starts from the steps that one batch took")
    noise = [row["noise_scale"] for row in rows if row.get("noise_scale")]
    if not noise:
        raise UserError(f"{folder} has no noise scale in its log.jsonl: train it with noise_scale=true")
    speeds = [row["images_per_second"] for row in rows if row["images_per_second"]]
    if not speeds:
        raise UserError(f"{folder} has no images/s in its log.jsonl: a run needs two steps between evaluations")
    processes = result["hardware"]["processes"]
    of_lars = [row["noise_scale_lars"] for row in rows if row.get("noise_scale_lars")]
    return Measured(
        name=folder.name,
        noise_scale=statistics.median(noise),
        noise_range=(min(noise), max(noise)),
        noise_scale_lars=statistics.median(of_lars) if of_lars else None,
        evaluations=len(rows),
        estimated=len(noise),
        batch=config.batch.total,
        micro=config.batch.micro,
        steps=result["steps"],
        top1=result["last_top1"],
        images_per_second=statistics.median(speeds) / processes,
        processes=processes,
        train_images=result["train_images"],
        parameters=result["parameters"],
    )


def with_speed_of(run: Measured, machine: MachineConfig) -> MachineConfig:
    """``machine`` with the run's own images/s, unless it has some given."""
    return replace(machine, images_per_second=machine.images_per_second or run.images_per_second)


def frontier(run: Measured, machine: MachineConfig) -> list[Point]:
    """The fastest batch on each of 1 to 1,024 GPUs that have a micro-batch each; evaluations are not counted."""
    found = []
    for gpus in GPUS:
        most = run.train_images // (gpus * run.micro)
        if not most:
            break
        one = _cost(run, machine, gpus, 1)
        # steps fall as 1 + B_c / B and a step takes a (one - exposed) + exposed: the a at which the product is least
        a = math.sqrt(
            run.noise_scale * one.exposed_seconds / (gpus * run.micro * (one.step_seconds - one.exposed_seconds))
        )
        choices = {min(max(1, n), most) for n in (math.floor(a), math.ceil(a))}
        found.append(min((_point(run, machine, gpus, n) for n in choices), key=lambda point: point.hours))
    return found


def _point(run: Measured, machine: MachineConfig, gpus: int, accumulation: int) -> Point:
    batch = gpus * run.micro * accumulation
    steps = run.steps_at(batch)
    hours = steps * _cost(run, machine, gpus, accumulation).step_seconds / 3600
    price = machine.dollars_per_hour
    return Point(
        gpus=gpus,
        batch=batch,
        steps=steps,
        hours=hours,
        gpu_hours=gpus * hours,
        dollars=None if price is None else price * gpus * hours,
        is_own=(batch, gpus) == (run.batch, run.processes),
    )


def _cost(run: Measured, machine: MachineConfig, gpus: int, accumulation: int) -> Cost:
    plan = Plan(gpus * run.micro * accumulation, run.micro, accumulation, gpus, run.train_images, epochs=1)
    return cost_of(plan, 0, 4 * run.parameters, 0, machine, speed_of(machine, run.micro, gmacs=0.0))


def describe(run: Measured, machine: MachineConfig, points: Sequence[Point]) -> str:
    """The table, what it rests on, and the sentence that it is for."""
    low, high = run.noise_range
    lines = [
        f"{run.name}: {run.steps:,} steps of {run.batch:,} images to {run.top1:.2f} % top-1, {duration(run.hours)} of "
        f"training on {run.processes} process{'es' if run.processes > 1 else ''}",
        f"  noise scale  {run.noise_scale:,.0f} images, the median of {run.estimated} evaluations ({low:,.0f} to "
        f"{high:,.0f})",
    ]
    if run.estimated < run.evaluations:
        lines.append(f"               none came out in {run.evaluations - run.estimated} more: too few steps or images")
    if run.noise_scale_lars is not None:
        lines.append(f"               for steps of LARS {run.noise_scale_lars:,.0f}; not used below")
    whose = "as given" if machine.images_per_second != run.images_per_second else "of one process of this run"
    speed = f"{machine.images_per_second:,.6g} images/s {whose}"
    lines += [f"  speed        {speed}; more GPUs as {machine.name} connects them (docs/plan.md)", ""]
    rows = [["GPUs", "batch", "steps", "images", "time", "GPU hours", "$"]]
    for p in points:
        mark = "" if p.is_own else "*"
        cost = "-" if p.dollars is None else f"{p.dollars:,.2f}"
        figures = [f"{p.batch:,}", f"{p.steps:,.0f}", f"{p.images:,.0f}", duration(p.hours), f"{p.gpu_hours:,.3g}"]
        rows.append([f"{p.gpus:,}{mark}", *figures, cost])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.append("")
    if points[-1].gpus < GPUS[-1]:
        lines.append(f"more GPUs than {points[-1].gpus:,} would not get a micro-batch of {run.micro} images each")
    lines += [
        f"* extrapolated: the run has measured {run.batch:,} images a step on {run.processes} "
        f"process{'es' if run.processes > 1 else ''}. Steps are S_min (1 + B_c / B) and",
        "  images E_min (1 + B / B_c) with the noise scale as B_c, if each batch has its own best lr; evaluations",
        "  are not counted",
        f"beyond about {rounded(run.noise_scale):,} images a step more GPUs mostly buy waste: there a run takes twice "
        "the fewest steps and twice the fewest images",
    ]
    return "\n".join(lines)


def rounded(images: float) -> int:
    """To two digits, which is more than a noise scale is worth."""
    unit = 10 ** max(math.floor(math.log10(images)) - 1, 0)
    return round(images / unit) * unit


def duration(hours: float) -> str:
    for unit, name in ((24.0, "d"), (1.0, "h"), (1 / 60, "min")):
        if hours >= unit:
            return f"{hours / unit:,.1f} {name}"
    return f"{3600 * hours:.1f} s"


def rows(points: Sequence[Point]) -> list[dict[str, object]]:
    """The points for a plot."""
    return [
        {"gpus": p.gpus, "batch": p.batch, "steps": round(p.steps), "images": round(p.images),
         "hours": f"{p.hours:.4g}", "gpu_hours": f"{p.gpu_hours:.4g}",
         "dollars": "" if p.dollars is None else f"{p.dollars:.4g}"}
        for p in points
    ]  # fmt: skip
