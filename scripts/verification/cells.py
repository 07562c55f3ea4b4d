"""What the recomputation of every table needs: the rows that a page shows, and figures from the log of a run."""

import statistics
from collections.abc import Iterator
from pathlib import Path

from scripts.verification.runs import RESULTS, ROOT, load

V1, V2 = RESULTS / "fractals-v1", RESULTS / "fractals"
PRESETS = {"256": 256, "8k": 8192, "16k": 16384, "32k": 32768}
NAMES = {"SGD": "sgd", "SGD, Nesterov": "nesterov", "LARS": "lars", "LARC": "larc",
         "LARS, norm layers and biases plain": "lars-weights-only"}  # fmt: skip
IMAGES = 20480
IMAGENET = 1_281_167
Row = list[str]


def shown(page: str, name: str) -> Iterator[Row]:
    """The rows of the table between the comments ``name`` of a page, without heads and marks of code."""
    between = (ROOT / page).read_text().split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    for table in between.strip().split("\n\n"):
        for line in table.splitlines()[2:]:
            if line.startswith("|"):
                yield [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]


def number(cell: str) -> float:
    return float(cell.replace(",", "").rstrip("%").strip())


def spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def ended(folder: Path) -> bool:
    return (folder / "result.json").exists()


def top1(folder: Path) -> list[float]:
    return [row["val_top1"] for row in load(folder)[1]]


def last(folder: Path) -> float:
    return top1(folder)[-1]


def lr_of(folder: Path) -> float:
    return float(load(folder)[0]["optimizer"]["lr"])


def seeds(group: Path, prefix: str) -> list[Path]:
    """Runs that are done, diverged or not, by seed."""
    found = [p for p in group.glob(f"{prefix}-seed*") if p.name.rpartition("-seed")[0] == prefix]
    return sorted((p for p in found if (p / "config.yaml").exists()), key=seed_of)


def seed_of(folder: Path) -> int:
    return int(folder.name.rpartition("-seed")[2])


def report(folder: Path) -> float:
    result = load(folder)[2]
    assert result
    return float(result["report_top1"])


def steps(folder: Path) -> int:
    return int(load(folder)[1][-1]["step"])
