"""The table of runs that ends a sweep, such as ``python train/main.py -m seed=0,1,2 optimizer.lr=10,20``."""

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A run of a sweep: its overrides by key, and its folder."""

    overrides: dict[str, str]
    folder: Path

    def scores(self) -> tuple[float, float] | None:
        """Top-1 of the last epoch and of the best, in percent; None if the run is not finished."""
        path = self.folder / "result.json"
        result = json.loads(path.read_text()) if path.exists() else None
        return (result["last_top1"], result["best_top1"]) if result else None


def table(jobs: list[Job]) -> str:
    """A line for each of ``jobs``; below, mean and sample standard deviation of those that differ only by seed."""
    varied = [key for key in jobs[0].overrides if len({job.overrides[key] for job in jobs}) > 1]
    rows = [[*varied, "last top-1 %", "best top-1 %"]]
    seeds: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for job in jobs:
        values, scores = {key: job.overrides[key] for key in varied}, job.scores()
        rows.append([*values.values(), *(f"{top1:.2f}" for top1 in scores or ())])
        if scores:
            seeds[tuple((values | {"seed": "all"})[key] for key in varied)].append(scores)
    for others, runs in seeds.items():
        if len(runs) > 1:
            columns = zip(*runs, strict=True)
            rows.append([*others, *(f"{statistics.mean(c):.2f} +- {statistics.stdev(c):.2f}" for c in columns)])
    rows = [[*row, *["-"] * (len(rows[0]) - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
