"""Whether a run on fractals is as it should be: within what the committed seeds of its setting let one expect.

A run of the rows is judged by its top-1 after the last epoch, a run to the target by the steps that it took.
"""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import yaml
from scipy import special

from scripts.verification.runs import FINGERPRINTS, RESULTS, load
from train.errors import UserError

FRACTALS = RESULTS / "fractals"
LEVEL = 0.99  # of the prediction interval
LEAST = 3  # seeds
WIDEST = 15  # points of top-1 that an interval may span and still tell something
# what does not change the setting that a run is of
FREE = {"seed", "name", "runs_dir", "nproc", "compile", "precision", "max_steps", "evaluate", "profile", "mlperf_log",
        "timeout_minutes", "on_divergence", "log", "checkpoint", "evaluate_every", "logger", "noise_scale"}  # fmt: skip


def judge(run: Path) -> tuple[bool, str]:
    """Whether ``run`` is as it should be, and one line that says so."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        result = json.loads((run / "result.json").read_text())
        fingerprint = result["data_fingerprint"]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{run} is not the folder of a finished run ({why[:160]}): give another one") from error
    if fingerprint != FINGERPRINTS["fractals"]:
        raise UserError(f"{run} did not train on the fractals of this version: there is nothing to compare it with")
    first = setting_of(config)
    if first is None:
        raise UserError(f"{run}: no record has its settings: no reference")
    name, of_target = first.name.rpartition("-seed")[0], first.parent.name == "target"
    known = ended(first)
    if len(known) < LEAST:
        raise UserError(f"{run}: {name} has {len(known)} seeds, and {LEAST} make a reference: none")
    if of_target:
        return steps_judged(result, name, known)
    if "last_top1" not in result:
        raise UserError(f"{run}: its result.json has no last_top1: give the folder of a finished run")
    return top1_judged(run, result, name, [r["last_top1"] for r in known])


def top1_judged(run: Path, result: dict[str, Any], name: str, top1: list[float]) -> tuple[bool, str]:
    low, high = predicted(top1)
    had = f"{len(top1)} seeds of {name} had {min(top1):.2f} to {max(top1):.2f}"
    if high - low > WIDEST:
        raise UserError(f"{run}: no useful reference: {had} % on selection, which tells little of another")
    holds = low <= result["last_top1"] <= high
    return holds, (
        f"{word(holds)}: {result['last_top1']:.2f} % top-1 on selection; {had}, so {low:.2f} to {high:.2f} are "
        f"expected of another ({100 * LEVEL:g} %)"
    )


def steps_judged(result: dict[str, Any], name: str, known: list[dict[str, Any]]) -> tuple[bool, str]:
    """By steps to the target, whose relative spread is that of all points of the optimizer together."""
    points: dict[str, list[float]] = {}
    for path in (FRACTALS / "target").glob(f"*-{name.split('-')[1]}-*-seed*/result.json"):
        of = json.loads(path.read_text())
        if of["reached_top1"]:
            points.setdefault(path.parent.name.rpartition("-seed")[0], []).append(math.log(of["steps"]))
    whole = [logs for logs in points.values() if len(logs) >= LEAST]
    freedom = sum(len(logs) - 1 for logs in whole)
    spread = math.sqrt(sum(statistics.variance(logs) * (len(logs) - 1) for logs in whole) / freedom)
    steps = [r["steps"] for r in known if r["reached_top1"]]
    middle, half = statistics.mean(map(math.log, steps)), half_width(spread, freedom, len(steps))
    low, high = math.exp(middle - half), math.exp(middle + half)
    holds = bool(result["reached_top1"]) and low <= result["steps"] <= high
    took = f"{result['steps']:,} steps to the target" if result["reached_top1"] else "the target was missed"
    return holds, (
        f"{word(holds)}: {took}; {len(steps)} seeds of {name} took {min(steps):,} to {max(steps):,}, so {low:,.0f} to "
        f"{high:,.0f} are expected of another ({100 * LEVEL:g} %)"
    )


def word(holds: bool) -> str:
    return "as it should be" if holds else "NOT as it should be"


def half_width(spread: float, freedom: int, n: int) -> float:
    """Of Student's prediction interval for one more value beside ``n``."""
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * spread * math.sqrt(1 + 1 / n)


def predicted(values: list[float]) -> tuple[float, float]:
    """Student's prediction interval for one more value."""
    middle, half = statistics.mean(values), half_width(statistics.stdev(values), len(values) - 1, len(values))
    return middle - half, middle + half


def ended(first: Path) -> list[dict[str, Any]]:
    """The results of all seeds of the setting that the record ``first`` has."""
    found = sorted(first.parent.glob(f"{first.name.rpartition('-seed')[0]}-seed*/result.json"))
    return [result for path in found if (result := load(path.parent)[2])]


def setting_of(config: dict[str, Any]) -> Path | None:
    """The first record of the setting that ``config`` has; None where none has."""
    for group in ("rows", "target"):
        for first in sorted((FRACTALS / group).glob("*-seed0/config.yaml")):
            if settings_of(yaml.safe_load(first.read_text())) == settings_of(config):
                return first.parent
    return None


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    # a run to a target can end only where it is evaluated
    free = FREE - {"evaluate_every"} if config.get("stop_at_top1") else FREE
    return in_force({key: value for key, value in config.items() if key not in free})


def in_force(part: dict[str, Any]) -> dict[str, Any]:
    """The settings that are on; those that a later version added are off at their defaults."""
    return {
        key: in_force(value) if isinstance(value, dict) else value
        for key, value in part.items()
        if value is not None and value is not False
    }
