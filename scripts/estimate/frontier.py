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
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from scripts.estimate.cost import Cost, cost_of, speed_of
from scripts.estimate.machine import MachineConfig
from scripts.estimate.text import aligned, duration
from train.errors import UserError
from train.plan import Plan

GPUS = [2**n for n in range(11)]


@dataclass(frozen=True)
class Measured:
    """What a finished run says of itself."""

    name: str
    noise_scale: float  # images, the median over its evaluations
    noise_range: tuple[float, float]  # the least and the most of those that are finite
    evaluations: int  # that measured it, of which so many
    infinite: int  # could not tell it from infinity
    unused: dict[str, float]  # medians of its other noise scales, by their keys in log.jsonl
    batch: int
    micro: int
    steps: int
    top1: float
    images_per_second: float  # of one process, the median over its evaluations
    processes: int
    on_gpus: bool
    train_images: int
    gradients: int  # bytes that a step all-reduces
    squares: int  # bytes that variance reduction all-reduces after them

    @property
    def unit(self) -> tuple[str, str]:
        """What a process runs on, one and many."""
        return ("GPU", "GPUs") if self.on_gpus else ("process", "processes")

    @property
    def hours(self) -> float:
        """What its steps took, evaluations not counted."""
        return self.steps * self.batch / (self.images_per_second * self.processes) / 3600

    @property
    def own_accumulation(self) -> int:
        """Micro-batches that each of its processes took for a step."""
        return self.batch // self.micro // self.processes

    def steps_at(self, batch: float) -> float:
        """Steps to the same point: ``S = S_min (1 + B_c / B)``, arXiv 1812.06162, equation 2.11 with 2.12."""
        fewest = self.steps / (1 + self.noise_scale / self.batch)
        return fewest * (1 + self.noise_scale / batch)


@dataclass(frozen=True)
class Point:
    """One way to the same point: a batch on so many GPUs."""

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


def median_scale(values: Sequence[float | None]) -> float:
    """The median of noise scales, which may be infinite.

    None counts as infinite: the estimate of |G|^2 was not positive, which happens where the scale is large. Without
    these the median would be too low.
    """
    return statistics.median(math.inf if value is None else value for value in values)


def read(folder: Path) -> Measured:
    """Read the run in ``folder``; raises UserError where it is not finished, or did not measure its noise."""
    if not (folder / "result.json").exists():
        why = "diverged" if (folder / "diverged.json").exists() else "has no result.json"
        raise UserError(f"{folder} {why}: give the folder of a finished run")
    try:
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        result = json.loads((folder / "result.json").read_text())
        return _measured(folder, rows, result, OmegaConf.load(folder / "config.yaml"))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}: give the folder of a finished run") from error
    except (ValueError, KeyError, TypeError, YAMLError, OmegaConfBaseException) as error:
        what = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise UserError(
            f"{folder}: log.jsonl, result.json or config.yaml is damaged ({what}): give the folder of another run"
        ) from error


def _measured(folder: Path, rows: list[dict[str, Any]], result: dict[str, Any], config: Any) -> Measured:
    if OmegaConf.select(config, "batch.grow"):
        raise UserError(f"{folder}: its batch grew, and a plan starts from the steps that one batch took")
    # a run may have been resumed with noise_scale=false: those rows lack the keys
    found = {key: [row[key] for row in rows if key in row] for key in ("noise_scale", "noise_scale_lars")}
    # the one that plans: SGD's, for LARS too, until an experiment has shown which of the two predicts better
    used = "noise_scale"
    scales = found.pop(used)
    if not scales:
        raise UserError(f"{folder} has no {used} in its log.jsonl: train it with noise_scale=true")
    finite = [scale for scale in scales if scale is not None]
    infinite, median = len(scales) - len(finite), median_scale(scales)
    if median == math.inf:
        raise UserError(
            f"{folder}: {infinite} of {len(scales)} evaluations could not tell {used} from infinity, so it has no "
            "median: train with more steps between evaluations (evaluate_every=N), or longer"
        )
    speeds = [row["images_per_second"] for row in rows if row["images_per_second"]]
    if not speeds:
        raise UserError(f"{folder} has no images/s in its log.jsonl: a run needs two steps between evaluations")
    processes, gradients = result["hardware"]["processes"], 4 * result["parameters"]
    return Measured(
        name=folder.name,
        noise_scale=median,
        noise_range=(min(finite), max(finite)),
        evaluations=len(scales),
        infinite=infinite,
        unused={key: median_scale(values) for key, values in found.items() if values},
        batch=config.batch.total,
        micro=config.batch.micro,
        steps=result["steps"],
        top1=result["last_top1"],
        images_per_second=statistics.median(speeds) / processes,
        processes=processes,
        on_gpus=bool(result["hardware"]["gpus"]),
        train_images=result["train_images"],
        gradients=gradients,
        squares=gradients if OmegaConf.select(config, "optimizer.variance_reduction") else 0,
    )


def with_speed_of(run: Measured, machine: MachineConfig) -> MachineConfig:
    """``machine`` with the images/s of a single GPU, unless they are given: at them the run's own step takes its time.

    They are more than the run's images/s of one process, which already contain what the plan adds: waiting for one
    another, and ``machine_efficiency``. Raises UserError where waiting alone would take longer than the step took.
    """
    if machine.images_per_second is not None:
        return machine
    measured = run.batch / (run.images_per_second * run.processes)
    # bounds of the seconds that an image takes; a step takes longer with each of them
    low, high = 0.0, 1 / run.images_per_second
    for _ in range(60):
        middle = (low + high) / 2
        tried = replace(machine, images_per_second=1 / middle)
        step = _cost(run, tried, run.processes, run.own_accumulation).step_seconds
        low, high = (low, middle) if step > measured else (middle, high)
    if not low:
        raise UserError(
            f"machine={machine.name} waits longer for gradients than the {1e3 * measured:,.3g} ms of a step of "
            f"{run.name}: give the machine= that it ran on, or machine.images_per_second="
        )
    return replace(machine, images_per_second=1 / high)


def frontier(run: Measured, machine: MachineConfig) -> list[Point]:
    """The fastest batch on each of 1 to 1,024 GPUs that have a micro-batch each, and what the run itself had.

    Evaluations are not counted.
    """
    machine = with_speed_of(run, machine)
    found = {_point(run, machine, run.processes, run.own_accumulation)}
    for gpus in sorted({*GPUS, run.processes}):
        most = run.train_images // (gpus * run.micro)
        if not most:
            break
        one = _cost(run, machine, gpus, 1)
        # steps fall as 1 + B_c / B and a step takes a computing + exposed: the a at which the product is least
        a = min(most, math.sqrt(run.noise_scale * one.exposed_seconds / (gpus * run.micro * one.computing_seconds)))
        choices = {max(1, n) for n in (math.floor(a), math.ceil(a))}
        found.add(min((_point(run, machine, gpus, n) for n in choices), key=lambda point: point.hours))
    return sorted(found, key=lambda point: (point.gpus, point.batch))


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
    # nothing hides the squares, as in the plan of one run
    return cost_of(plan, 0, run.gradients, run.squares, machine, speed_of(machine, run.micro, gmacs=0.0))


def describe(run: Measured, machine: MachineConfig, points: Sequence[Point]) -> str:
    """The table, what it rests on, and the sentence that it is for."""
    (one, many), (low, high) = run.unit, run.noise_range
    own = f"{run.processes} process{'es' if run.processes > 1 else ''}"
    lines = [
        f"{run.name}: {run.steps:,} steps of {run.batch:,} images to {run.top1:.2f} % top-1, {duration(run.hours)} of "
        f"training on {own}",
        f"  noise scale  {run.noise_scale:,.0f} images, the median of {run.evaluations} evaluations ({low:,.0f} to "
        f"{high:,.0f})",
    ]
    if run.infinite:
        lines.append(f"               in {run.infinite} it could not be told from infinity, and counts as that")
    lines += [f"               {key} {scale:,.0f}; not used below" for key, scale in run.unused.items()]
    alone = with_speed_of(run, machine).images_per_second
    speed = f"{alone:,.6g} images/s of one {one if run.on_gpus else 'CPU process'}"
    is_given = machine.images_per_second is not None
    speed += ", as given" if is_given else f"; measured {run.processes * run.images_per_second:,.6g} on {own}"
    lines += [f"  speed        {speed}; waiting for one another as on machine={machine.name} (docs/plan.md)", ""]
    rows = [[many, "batch", "steps", "images", "time", f"{one} hours", "$"]]
    for p in points:
        mark = "" if p.is_own else "*"
        cost = "-" if p.dollars is None else f"{p.dollars:,.2f}"
        figures = [f"{p.batch:,}", f"{p.steps:,.0f}", f"{p.images:,.0f}", duration(p.hours), f"{p.gpu_hours:,.3g}"]
        rows.append([f"{p.gpus:,}{mark}", *figures, cost])
    lines += [*aligned(rows), ""]
    if points[-1].gpus < GPUS[-1]:
        most = run.train_images // run.micro
        lines.append(f"more {many} than {most:,} would not get a micro-batch of {run.micro} images each")
    lines += [
        f"* extrapolated: the run has measured {run.batch:,} images a step on {own}. Steps are S_min (1 + B_c / B) and",
        "  images E_min (1 + B / B_c) with the noise scale as B_c, if each batch has its own best lr; evaluations",
        "  are not counted",
        f"beyond about {rounded(run.noise_scale):,} images a step more {many} mostly buy waste: there a run takes "
        "twice the fewest steps and twice the fewest images",
    ]
    return "\n".join(lines)


def rounded(images: float) -> int:
    """To two digits, which is more than a noise scale is worth; at least 1."""
    images = max(images, 1.0)
    unit = 10 ** max(math.floor(math.log10(images)) - 1, 0)
    return round(images / unit) * unit


def rows(points: Sequence[Point]) -> list[dict[str, object]]:
    """The points for a plot."""
    return [
        {"gpus": p.gpus, "batch": p.batch, "steps": round(p.steps), "images": round(p.images),
         "hours": f"{p.hours:.4g}", "gpu_hours": f"{p.gpu_hours:.4g}",
         "dollars": "" if p.dollars is None else f"{p.dollars:.4g}", "own": int(p.is_own)}
        for p in points
    ]  # fmt: skip
