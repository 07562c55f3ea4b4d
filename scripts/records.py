"""The committed records under ``results``: ended runs on fractals and on ImageNet, and what others published."""

import csv
import io
import itertools
import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
FRACTALS = ROOT / "results" / "fractals"
# the first data set's, whose faults its README lists
FRACTALS_V1 = ROOT / "results" / "fractals-v1"
V1_FINGERPRINT = "d339df24c0ebeee84b1b1ba9c1ab1139cf96ede32df4a69d97d6549671a733c3"
IMAGENET = ROOT / "results" / "imagenet"
BENCHMARKS = ROOT / "results" / "benchmarks"
PUBLISHED = ROOT / "results" / "published"

FILES = ("config.yaml", "log.jsonl", "result.json")  # of the folder of a finished run, which make its record

PRESETS = {"256": 256, "8k": 8192, "16k": 16384, "32k": 32768}  # and their images a step, as published
PUBLISHED_OPTIMIZER = {"256": "sgd", "8k": "lars", "16k": "lars", "32k": "lars"}


@dataclass(frozen=True)
class Record:
    """One ended run: its composed configuration, its rows, and its result, None when it diverged."""

    folder: Path
    config: Any
    rows: list[dict[str, float]]
    result: dict[str, Any] | None

    @property
    def preset(self) -> str:
        return str(self.config.batch.preset)

    @property
    def optimizer(self) -> str:
        return str(self.config.optimizer.name)

    @property
    def is_published_row(self) -> bool:
        return PUBLISHED_OPTIMIZER[self.preset] == self.optimizer

    @property
    def reached(self) -> dict[str, Any]:
        """``result`` of a run that did not diverge."""
        assert self.result is not None
        return self.result

    @property
    def ended(self) -> dict[str, Any]:
        """What was written at its end: ``result``, or that it diverged, with the same conditions."""
        return self.result or json.loads((self.folder / "diverged.json").read_text())  # type: ignore[no-any-return]

    @property
    def last(self) -> float:
        """Top-1 after the last epoch, in percent."""
        return float(self.reached["last_top1"])

    @property
    def on_report(self) -> float:
        """Top-1 on the images that no setting was chosen on, after the last epoch, in percent."""
        return float(self.reached["report_top1"])

    @property
    def best(self) -> float:
        return float(self.reached["best_top1"])


def read(folder: Path) -> Record:
    result = folder / "result.json"
    return Record(
        folder,
        OmegaConf.load(folder / "config.yaml"),
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()],
        json.loads(result.read_text()) if result.exists() else None,
    )


def file_run(run: Path, record: Path) -> None:
    """Copy what makes a record of ``run``, finished or diverged, into the folder ``record``."""
    record.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, "diverged", "diverged.json", "layers.csv"):
        if (run / name).exists():
            shutil.copy(run / name, record / name)


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """The text of a CSV file with a column for each key; nothing when there are no rows."""
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def on_fractals_v1(experiment: str) -> list[Record]:
    """The runs of ``experiment`` on version 1 of fractals, presets in order and the published optimizer first."""
    found = []
    for path in sorted((FRACTALS_V1 / experiment).glob("*/config.yaml")):
        record = read(path.parent)
        if record.result and record.result["data_fingerprint"] != V1_FINGERPRINT:
            print(f"left out {record.folder.name}: its images are not those of the other records", file=sys.stderr)
            continue
        found.append(record)
    return sorted(found, key=lambda r: (list(PRESETS).index(r.preset), not r.is_published_row, r.folder.name))


@cache
def on_fractals(group: str) -> dict[str, Record]:
    """The runs of a group of ``scripts/matrix.py`` by their names."""
    return {path.parent.name: read(path.parent) for path in sorted((FRACTALS / group).glob("*/config.yaml"))}


def on_imagenet(preset: str, optimizer: str) -> list[Record]:
    return [read(path.parent) for path in sorted(IMAGENET.glob(f"{preset}-{optimizer}-seed*/result.json"))]


def by_row(records: list[Record]) -> list[list[Record]]:
    """The seeds of each preset, optimizer and lr together; ``records`` are in order."""

    def row(r: Record) -> tuple[str, str, float]:
        return r.preset, r.optimizer, float(r.config.optimizer.lr)

    return [list(group) for _, group in itertools.groupby(records, key=row)]


def published(name: str) -> list[dict[str, str]]:
    with open(PUBLISHED / name, newline="") as file:
        return list(csv.DictReader(file))


def layers(folder: Path) -> list[dict[str, str]]:
    """A record's norms and ratios of layers, in the order of the network; empty if none were logged."""
    path = folder / "layers.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def mean_and_deviation(values: list[float]) -> str:
    """Mean, and standard deviation where there are several."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
