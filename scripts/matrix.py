"""The experiments on fractals: their settings, which of them are done, and which runs the results so far call for next.

Hypotheses, targets and the reasons for these grids stand in ``results/LOG.md``, written down before the first run.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.records import FRACTALS as RECORDS

RUNS = Path("runs", "experiments")  # relative to the checkout, so that records name no folder of a machine

OPTIMIZERS = ("lars", "sgd")
# (a) the published row of each batch, and the other optimizer beside it
ROWS = (("256", "sgd"), ("32k", "lars"), ("32k", "sgd"), ("8k", "lars"), ("8k", "sgd"), ("16k", "lars"), ("16k", "sgd"))
ROW_SEEDS = range(5)

IMAGES = 20480  # of training
# (b) images a step, and the epochs after which a run that has not reached the target is ended
TARGET = 75.0  # percent top-1 on selection
EPOCHS = {64: 60, 256: 60, 1024: 60, 2048: 90, 4096: 150, 8192: 240}
AVERAGED = 2  # epochs that the average of the weights reaches back
TARGET_SEEDS = range(1, 3)  # besides 0, on which lr is chosen

# (c) and (d) at 32k: the middle lr is the best of version 1 of the data set
KINDS = {
    "sgd": (1.8, ("optimizer=sgd",)),
    "nesterov": (1.8, ("optimizer=sgd", "optimizer.nesterov=true")),
    "lars": (51.6, ("optimizer=lars",)),
}
VARIANTS = {"larc": "optimizer.clip=true", "lars-weights-only": "optimizer.exclude_norm_and_bias=true"}
WARMUPS = (5, 15)  # epochs
FRESH_SEEDS = range(5, 10)
LONGER_SEEDS = range(5, 8)
LONGER_EPOCHS = 180

# How large may my batch be? Batches of (b) at which the noise scale is held against the fitted critical batch, and the
# row of (a) whose figure the README shows
NOISE_IMAGES = (1024, 4096)
NOISE_ROW = ("32k", "lars")
NOISE_SEEDS = range(3)
# a batch that grows against the same lr at either of its two batches throughout; the smaller one is (a)'s 8k
GROWTH = {"growing": "batch.grow=[[0,1024],[15,4096]]", "4096": "batch.total=4096"}
GROWTH_SEEDS = range(5)
# VR-LARS against LARS at the two largest batches
VARIANCE = {"vr": "optimizer.variance_reduction=true", "lars": "optimizer.variance_reduction=false"}
VARIANCE_PRESETS, VARIANCE_LRS = ("32k", "64k"), (16, 32, 64)
VARIANCE_SEEDS, VARIANCE_TRIAL_SEED = range(5), 100

FURTHEST = 3  # half-decades from the middle, at which a search ends even if its best is at the edge


@dataclass(frozen=True)
class Experiment:
    """One run: the group it belongs to, its name there, and what it overrides."""

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
    def is_done(self) -> bool:
        return any((self.record / name).exists() for name in ("result.json", "diverged.json"))

    @property
    def result(self) -> dict[str, float] | None:
        """Of a run that is done: what it reached; None where it diverged."""
        path = self.record / "result.json"
        return json.loads(path.read_text()) if path.exists() else None


def rate(middle: float, half_decades: int) -> float:
    return float(f"{middle * 10 ** (half_decades / 2):.3g}")


def row(preset: str, optimizer: str, seed: int) -> Experiment:
    chosen = (f"batch={preset}", f"optimizer={optimizer}", f"seed={seed}")
    return Experiment("rows", f"{preset}-{optimizer}-seed{seed}", chosen)


def rows() -> Iterator[Experiment]:
    """(a) The presets as published, and the other optimizer at each."""
    yield from (row(*of, seed) for seed in ROW_SEEDS for of in ROWS)


def steps_to_target(images: int, optimizer: str, lr: float, seed: int) -> Experiment:
    chosen = (
        f"batch.total={images}", f"optimizer={optimizer}", f"optimizer.lr={lr:g}", f"seed={seed}",
        f"stop_at_top1={TARGET:g}", f"epochs={EPOCHS[images]}", "schedule.warmup_epochs=5", "schedule.power=0",
        f"ema={1 - images / (AVERAGED * IMAGES):.10g}", "log.layers_every_epochs=0",
    )  # fmt: skip
    return Experiment("target", f"{images}-{optimizer}-lr{lr:g}-seed{seed}", chosen)


def middle_lr(images: int, optimizer: str) -> float:
    """Where a search begins: 12.8 (LARS, torchlars' 8k row) or 0.4 (SGD) at 1,024 images, by the square-root rule."""
    return {"lars": 12.8, "sgd": 0.4}[optimizer] * math.sqrt(images / 1024)


def slowness(done: Experiment) -> tuple[float, float]:
    """Orders runs of (b), the best first: by steps to the target; those that missed it by top-1."""
    result = done.result
    if result is None:
        return math.inf, 0.0
    return (math.inf if result["reached_top1"] is None else result["steps"]), -result["best_top1"]


def error(done: Experiment) -> float:
    """Orders runs of (c), the best first: percent of the selection images that are wrong after the last epoch."""
    return 100.0 - done.result["last_top1"] if done.result else math.inf


def search(
    at: Callable[[float], Experiment], middle: float, badness: Callable[[Experiment], object]
) -> tuple[list[Experiment], Experiment | None]:
    """The runs of a search over lr that are asked for so far, and the best one once that is settled.

    It begins with three half a decade apart, and goes on beyond an edge as long as the best one lies there.
    """
    low, high = -1, 1
    while True:
        tried = [at(rate(middle, k)) for k in range(low, high + 1)]
        if not all(run.is_done for run in tried):
            return tried, None
        best = min(tried, key=badness)  # type: ignore[arg-type]
        if best == tried[0] and low > -FURTHEST:
            low -= 1
        elif best == tried[-1] and high < FURTHEST:
            high += 1
        else:
            return tried, best


def target_search(images: int, optimizer: str) -> tuple[list[Experiment], Experiment | None]:
    return search(lambda lr: steps_to_target(images, optimizer, lr, seed=0), middle_lr(images, optimizer), slowness)


def target() -> Iterator[Experiment]:
    """(b) Steps to the target against batch: a search at each point, and two more seeds at the best."""
    for images in EPOCHS:
        for optimizer in OPTIMIZERS:
            tried, best = target_search(images, optimizer)
            yield from tried
            if best:
                yield from (steps_to_target(images, optimizer, lr_of(best), seed) for seed in TARGET_SEEDS)


def lr_of(run: Experiment) -> float:
    return float(run.name.partition("-lr")[2].partition("-")[0])


def trial(kind: str, half_decades: int, warmup: int) -> Experiment:
    middle, overrides = KINDS[kind]
    lr = f"{rate(middle, half_decades):g}"
    chosen = ("batch=32k", *overrides, f"optimizer.lr={lr}", f"schedule.warmup_epochs={warmup}", "seed=0",
              "evaluate_every=3")  # fmt: skip
    return Experiment("tuned", f"{kind}-lr{lr}-warmup{warmup}", chosen)


def trials(kind: str, low: int, high: int) -> list[Experiment]:
    return [trial(kind, k, warmup) for warmup in WARMUPS for k in range(low, high + 1)]


def reach() -> tuple[int, int]:
    """Between which half-decades from the middle (c) tries lr: the same for each kind, so that all have equally many.

    It goes on beyond an edge, for all, as long as the best trial of any of them lies there.
    """
    low, high = -1, 1
    while True:
        bests = {kind: best_once_done(trials(kind, low, high)) for kind in KINDS}
        below, above = (any(best in trials(kind, k, k) for kind, best in bests.items()) for k in (low, high))
        below, above = below and low > -FURTHEST, above and high < FURTHEST
        if None in bests.values() or not (below or above):
            return low, high
        low, high = low - below, high + above


def tuned(kind: str) -> list[Experiment]:
    return trials(kind, *reach())


def baseline() -> Iterator[Experiment]:
    """(c) SGD, Nesterov SGD and LARS at 32k, equally many trials of each."""
    for kind in KINDS:
        yield from tuned(kind)


def best_of(kind: str) -> Experiment | None:
    """The best of the trials of (c), once all kinds have all of theirs."""
    return best_once_done(tuned(kind)) if all(e.is_done for e in baseline()) else None


def best_once_done(trials: list[Experiment]) -> Experiment | None:
    """The best of ``trials``; None as long as one is not done, or where all diverged."""
    best = min(trials, key=error)
    return best if all(e.is_done for e in trials) and best.result else None


def again(group: str, name: str, of: Experiment, seed: int, *more: str) -> Experiment:
    """``of`` with another seed and ``more`` overrides."""
    kept = tuple(o for o in of.overrides if not o.startswith("seed="))
    return Experiment(group, f"{name}-seed{seed}", (*kept, f"seed={seed}", *more))


def fresh() -> Iterator[Experiment]:
    """(c) continued: the best of each with five seeds that no choice has seen, and two variants of LARS there."""
    bests = {kind: best for kind in KINDS if (best := best_of(kind))}
    for seed in FRESH_SEEDS:
        yield from (again("fresh", kind, best, seed) for kind, best in bests.items())
        if best := bests.get("lars"):
            yield from (again("fresh", name, best, seed, override) for name, override in VARIANTS.items())


def longer() -> Iterator[Experiment]:
    """(d) The best LARS of (c), and the best SGD, with or without Nesterov, for twice as many epochs."""
    bests = {kind: best for kind in longer_kinds() if (best := best_of(kind))}
    for seed in LONGER_SEEDS:
        yield from (again("longer", kind, best, seed, f"epochs={LONGER_EPOCHS}") for kind, best in bests.items())


def longer_kinds() -> tuple[str, ...]:
    """LARS and the better of the two kinds of SGD; none before (c) has chosen."""
    of_sgd = {kind: best for kind in ("sgd", "nesterov") if (best := best_of(kind))}
    return ("lars", min(of_sgd, key=lambda kind: error(of_sgd[kind]))) if of_sgd else ()


def noise() -> Iterator[Experiment]:
    """A row of (a), and runs of (b) at the best lr, with their noise scale measured."""
    yield from (with_noise(row(*NOISE_ROW, seed)) for seed in NOISE_SEEDS)
    for images in NOISE_IMAGES:
        for optimizer in OPTIMIZERS:
            if best := target_search(images, optimizer)[1]:
                lr = lr_of(best)
                yield from (with_noise(steps_to_target(images, optimizer, lr, seed)) for seed in NOISE_SEEDS)


def with_noise(of: Experiment) -> Experiment:
    return Experiment("noise", of.name, (*of.overrides, "noise_scale=true"))


def growth() -> Iterator[Experiment]:
    """A batch that grows, and its last one throughout, with the lr and the schedule of (a)'s 8k."""
    for seed in GROWTH_SEEDS:
        for name, override in GROWTH.items():
            yield Experiment("growth", f"{name}-seed{seed}", ("batch=8k", override, f"seed={seed}"))


def variance_trials(preset: str, kind: str) -> list[Experiment]:
    chosen = ("recipe=vr", f"batch={preset}", VARIANCE[kind])
    return [
        Experiment("variance", f"{preset}-{kind}-lr{lr}-trial",
                   (*chosen, f"optimizer.lr={lr}", f"seed={VARIANCE_TRIAL_SEED}"))
        for lr in VARIANCE_LRS
    ]  # fmt: skip


def variance() -> Iterator[Experiment]:
    """VR-LARS and LARS, the same trials of lr for both, and five fresh seeds of each at its best."""
    for preset in VARIANCE_PRESETS:
        for kind in VARIANCE:
            trials = variance_trials(preset, kind)
            yield from trials
            if best := best_once_done(trials):
                yield from (again("variance", f"{preset}-{kind}", best, seed) for seed in VARIANCE_SEEDS)


def learn() -> Iterator[Experiment]:
    """The commands of the three experiments in ``docs/learn.md``."""
    chosen: tuple[str, ...]
    sgd = ("batch=16k", "optimizer=sgd")
    for name, chosen in (("256", ("batch=256",)), ("16k", sgd), ("16k-lr0.025", (*sgd, "optimizer.lr=0.025"))):
        yield Experiment("learn", f"1-{name}", ("epochs=20", *chosen))
    for optimizer, warmup, seed in itertools.product(("sgd", "lars"), (0, 5), (0, 1)):
        chosen = ("batch=8k", f"optimizer={optimizer}", f"schedule.warmup_epochs={warmup}", f"seed={seed}")
        yield Experiment("learn", f"2-{optimizer}-warmup{warmup}-seed{seed}", ("epochs=20", *chosen))
    for optimizer in OPTIMIZERS:
        chosen = ("epochs=60", "batch=32k", f"optimizer={optimizer}", "log.layers_every_epochs=1")
        yield Experiment("learn", f"3-{optimizer}", chosen)


GROUPS = {"rows": rows, "target": target, "tuned": baseline, "fresh": fresh, "longer": longer,
          "noise": noise, "growth": growth, "variance": variance, "learn": learn}  # fmt: skip
# of the groups in results/README.md and in all that is said of them here
LETTERS = {"rows": "a", "target": "b", "tuned": "c", "fresh": "c", "longer": "d", "noise": "e", "growth": "f",
           "variance": "g"}  # fmt: skip
