"""Whether a run on fractals is as it should be: within what the committed seeds of its row let one expect."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import yaml
from scipy import special

from scripts.verification.runs import FINGERPRINTS, RESULTS, load
from train.errors import UserError

ROWS = RESULTS / "fractals" / "rows"
LEVEL = 0.99  # of the prediction interval
LEAST = 3  # seeds
# what does not change the row that a run is of
FREE = {"seed", "name", "runs_dir", "nproc", "compile", "precision", "max_steps", "evaluate", "profile", "mlperf_log",
        "timeout_minutes", "on_divergence", "log", "checkpoint", "evaluate_every", "logger", "noise_scale"}  # fmt: skip


def judge(run: Path) -> tuple[bool, str]:
    """Whether ``run`` is as it should be, and one line that says so."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        result = json.loads((run / "result.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{run} is not the folder of a finished run: {error}") from error
    if result.get("data_fingerprint") != FINGERPRINTS["fractals"]:
        raise UserError(f"{run} did not train on the fractals of this version: there is nothing to compare it with")
    row = row_of(config)
    known = [load(p)[2] for p in seeds(row)] if row else []
    top1 = [r["last_top1"] for r in known if r]
    if row is None or len(top1) < LEAST:
        raise UserError(f"{run}: {'changed settings' if row is None else f'{row} has {len(top1)} seeds'}: no reference")
    low, high = predicted(top1)
    holds = low <= result["last_top1"] <= high
    word = "as it should be" if holds else "NOT as it should be"
    return holds, (
        f"{word}: {result['last_top1']:.2f} % top-1 on selection; {len(top1)} seeds of {row} had "
        f"{min(top1):.2f} to {max(top1):.2f}, so {low:.2f} to {high:.2f} are expected of another ({100 * LEVEL:g} %)"
    )


def predicted(values: list[float]) -> tuple[float, float]:
    """Student's prediction interval for one more value."""
    n = len(values)
    half = special.stdtrit(n - 1, (1 + LEVEL) / 2) * statistics.stdev(values) * math.sqrt(1 + 1 / n)
    return statistics.mean(values) - half, statistics.mean(values) + half


def seeds(row: str) -> list[Path]:
    return sorted(p.parent for p in ROWS.glob(f"{row}-seed*/result.json"))


def row_of(config: dict[str, Any]) -> str | None:
    """The row whose settings ``config`` has; None where none has."""
    for first in sorted(ROWS.glob("*-seed0/config.yaml")):
        if settings_of(yaml.safe_load(first.read_text())) == settings_of(config):
            return first.parent.name.removesuffix("-seed0")
    return None


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    return in_force({key: value for key, value in config.items() if key not in FREE})


def in_force(part: dict[str, Any]) -> dict[str, Any]:
    """The settings that are on; those that a later version added are off at their defaults."""
    return {
        key: in_force(value) if isinstance(value, dict) else value
        for key, value in part.items()
        if value is not None and value is not False
    }
