"""What every benchmark does with its figures: spreads, and one JSON file with what they were measured on."""

import json
import statistics
from pathlib import Path

from train import record

FOLDER = Path(__file__).parents[2] / "results" / "benchmarks"


def write(name: str, figures: dict[str, object]) -> None:
    """Keep ``figures`` under results/benchmarks, with what they were measured on."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = {
        **figures,
        "command": f"python scripts/bench.py {name}",
        "hardware": record.hardware(1),
        "versions": record.versions(),
        "commit": record.commit(),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}
