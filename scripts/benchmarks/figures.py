"""Writes the figures of a benchmark, with what they were measured on, under ``results/benchmarks``."""

import json
import statistics
from pathlib import Path

from train.output import environment

FOLDER = Path(__file__).parents[2] / "results" / "benchmarks"


def write(name: str, figures: dict[str, object]) -> None:
    """Keep ``figures`` under results/benchmarks, with what they were measured on."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = {
        **figures,
        "command": f"python scripts/bench.py {name}",
        "hardware": environment.hardware(1),
        "versions": environment.versions(),
        "commit": environment.commit(),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}
