"""Which runs on fractals the results are made of: the experiments, their settings, and which of them are done."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.records import FRACTALS as RECORDS

RUNS = Path("runs", "experiments")  # relative to the checkout, so that records name no folder of a machine

OPTIMIZERS = ("lars", "sgd")
# lr of the rows at the smallest and the largest batch, on fractals: the middle of each grid
MIDDLE = {("256", "lars"): 2.26, ("256", "sgd"): 0.025, ("32k", "lars"): 29.0, ("32k", "sgd"): 3.2}
DECADES = (-1.5, -0.75, -0.25, 0.0, 0.25, 0.75, 1.5)
BEST = 3  # learning rates that get all epochs; one seed of a third of the epochs does not choose between them
# the recipes of others, and the batches that they publish
RECIPES = {
    "paper": ("256", "8k", "16k", "32k"),
    "nus": ("4k", "8k", "16k", "32k"),
    "mlperf": ("4k", "8k", "16k", "32k", "48k", "64k"),
    "goyal": ("256", "4k", "8k", "16k", "32k"),
    "nesterov": ("256", "4k", "32k"),
}


@dataclass(frozen=True)
class Experiment:
    """One run: the experiment it belongs to, its name there, and what it overrides."""

    group: str
    name: str
    overrides: tuple[str, ...]

    @property
    def record(self) -> Path:
        return RECORDS / self.group / self.name

    @property
    def folder(self) -> Path:
        """Where it runs, relative to the checkout."""
        return RUNS / f"{self.group}-{self.name}"

    @property
    def output(self) -> Path:
        """The file of what it prints. A name may hold a dot, so the ending is appended, not replaced."""
        return RUNS / f"{self.folder.name}.out"

    @property
    def is_done(self) -> bool:
        return any((self.record / name).exists() for name in ("result.json", "diverged"))


def rows() -> Iterator[Experiment]:
    for seed in range(3):
        for preset in ("32k", "256", "8k", "16k"):
            for optimizer in OPTIMIZERS:
                chosen = (f"batch={preset}", f"optimizer={optimizer}", f"seed={seed}")
                yield Experiment("rows", f"{preset}-{optimizer}-seed{seed}", chosen)


def learning_rates(preset: str, optimizer: str) -> list[float]:
    return [float(f"{MIDDLE[preset, optimizer] * 10**decade:.3g}") for decade in DECADES]


def lr() -> Iterator[Experiment]:
    for preset in ("32k", "256"):
        for optimizer in OPTIMIZERS:
            for rate in learning_rates(preset, optimizer):
                yield at_lr(preset, optimizer, rate)


def at_lr(preset: str, optimizer: str, rate: float) -> Experiment:
    chosen = (f"batch={preset}", f"optimizer={optimizer}", f"optimizer.lr={rate}", "epochs=30")
    return Experiment("lr", f"{preset}-{optimizer}-lr{rate:g}", chosen)


def best() -> Iterator[Experiment]:
    if lacking := [e.name for e in lr() if e.name.startswith("32k") and not e.is_done]:
        sys.exit(f"experiments: best needs lr/{lacking[0]} first")
    for seed in range(3, 6):
        for optimizer in OPTIMIZERS:
            for rate in best_lrs("32k", optimizer):
                chosen = ("batch=32k", f"optimizer={optimizer}", f"optimizer.lr={rate}", f"seed={seed}")
                yield Experiment("best", f"32k-{optimizer}-lr{rate:g}-seed{seed}", chosen)


def best_lrs(preset: str, optimizer: str) -> list[float]:
    """The learning rates of ``lr`` whose runs ended with the highest top-1, the best first."""
    ends = {}
    for rate in learning_rates(preset, optimizer):
        result = at_lr(preset, optimizer, rate).record / "result.json"
        if result.exists():
            ends[rate] = json.loads(result.read_text())["last_top1"]
    return sorted(ends, key=lambda rate: -ends[rate])[:BEST]


def recipes() -> Iterator[Experiment]:
    for recipe, presets in RECIPES.items():
        for preset in presets:
            chosen = (f"recipe={recipe}", f"batch={preset}", "epochs=10")
            yield Experiment("recipes", f"{recipe}-{preset}", chosen)


def resnet50() -> Iterator[Experiment]:
    for preset in ("32k", "256"):
        yield Experiment("resnet50", preset, ("model=resnet50", f"batch={preset}", "epochs=30"))


GROUPS = {"rows": rows, "lr": lr, "best": best, "recipes": recipes, "resnet50": resnet50}
