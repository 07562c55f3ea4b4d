"""Writes the figures of a benchmark, with what they were measured on, under ``results/benchmarks``."""

import json
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from train.errors import UserError
from train.output import environment

FOLDER = Path(__file__).parents[2] / "results" / "benchmarks"


def clean_commit() -> str:
    """The commit of the running code; raises UserError where the figures could not be measured again from it."""
    commit = environment.commit()
    if commit is None or commit.endswith("-dirty"):
        raise UserError(
            f"commit {commit}: a benchmark is recorded from a clean checkout only; commit the changes under lars, "
            "train, configs and scripts first"
        )
    return commit


def write(name: str, figures: dict[str, object], libraries: Sequence[str] = ()) -> None:
    """Keep ``figures`` under results/benchmarks, with what they were measured on; as ``clean_commit``.

    ``libraries`` are distributions that were measured too.
    """
    commit = clean_commit()
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = {
        **figures,
        "command": f"python scripts/bench.py {name}",
        "hardware": environment.hardware(1),
        "versions": environment.versions() | {library: version(library) for library in libraries},
        "commit": commit,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}
