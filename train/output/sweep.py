"""The table of runs that ends a sweep, such as ``python train/main.py -m seed=0,1,2 optimizer.lr=10,20``."""

import json
import statistics
from collections import defaultdict
from pathlib import Path


def scores(folder: Path) -> tuple[float, float] | None:
    """Top-1 of the last epoch and of the best, in percent, of the run in ``folder``; None if it is not finished."""
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text()) if path.exists() else None
    except ValueError:
        # it is damaged, which the job has said
        return None
    return (result["last_top1"], result["best_top1"]) if result else None


def table(jobs: dict[Path, dict[str, str]]) -> str:
    """A line for each of ``jobs``, which are overrides by folder.

    Below are mean and sample standard deviation of runs that differ only in the seed.
    """
    first = next(iter(jobs.values()))
    varied = [key for key in first if len({overrides[key] for overrides in jobs.values()}) > 1]
    rows = [[*varied, "last top-1 %", "best top-1 %"]]
    seeds: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for folder, overrides in jobs.items():
        values, reached = {key: overrides[key] for key in varied}, scores(folder)
        rows.append([*values.values(), *(f"{top1:.2f}" for top1 in reached or ())])
        if reached:
            seeds[tuple((values | {"seed": "all"})[key] for key in varied)].append(reached)
    for others, runs in seeds.items():
        if len(runs) > 1:
            columns = zip(*runs, strict=True)
            rows.append([*others, *(f"{statistics.mean(c):.2f} +- {statistics.stdev(c):.2f}" for c in columns)])
    rows = [[*row, *["-"] * (len(rows[0]) - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
