"""The model of ``cost.py`` against what others measured: results/published/scaling.csv."""

import itertools
from dataclasses import dataclass, replace

from scripts.estimate.cost import Speed, cost_of
from scripts.estimate.machine import compose_machine
from scripts.records import published
from train.plan import Plan

GRADIENTS, STATISTICS = 102_228_128, 212_480  # bytes of ResNet-50's 25,557,032 parameters and 53,120 statistics


@dataclass(frozen=True)
class Point:
    """Published and predicted images/s of all ``gpus`` together; a ``base`` is what the prediction starts from."""

    who: str
    gpu: str
    gpus: int
    images_per_gpu: int
    precision: str
    is_base: bool
    published: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.published - 1


def points() -> list[Point]:
    """Every published point; a series' first base gives a GPU's speed, and a second one its fixed part."""
    found = []
    rows = [row for row in published("scaling.csv") if row["use"] != "ratio"]
    machine = compose_machine("machine.dollars_per_hour=null", "machine.machine_efficiency=1")
    for _, group in itertools.groupby(rows, key=lambda r: (r["who"], r["gpu"], r["precision"])):
        series = list(group)
        # images a GPU and seconds for them
        bases = [
            (int(r["images_per_gpu"]), int(r["images_per_gpu"]) * int(r["gpus"]) / float(r["images_per_second"]))
            for r in series
            if r["use"] == "base"
        ]
        (images, seconds), (fewer, faster) = bases[0], bases[-1]
        slope = (seconds - faster) / (images - fewer) if len(bases) > 1 else seconds / images
        speed = Speed(fixed=seconds - images * slope, image=slope)
        for r in series:
            micro, gpus = int(r["images_per_gpu"]), int(r["gpus"])
            links = replace(machine, inside_gbs=float(r["inside_gbs"]), between_gbs=float(r["between_gbs"] or 1))
            plan = Plan(micro * gpus, micro, 1, gpus, train_images=micro * gpus, epochs=1)
            cost = cost_of(plan, 0, GRADIENTS, STATISTICS, links, speed)
            found.append(
                Point(
                    r["who"], r["gpu"], gpus, micro, r["precision"], r["use"] == "base",
                    float(r["images_per_second"]), cost.images_per_second,
                )
            )  # fmt: skip
    return found
