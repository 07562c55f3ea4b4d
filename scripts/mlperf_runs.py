"""File the ResNet results of MLPerf Training, from the logs of its submissions, as results/published/mlperf-runs.csv.

Usage: python scripts/mlperf_runs.py REPOSITORY [REPOSITORY ...]

A REPOSITORY is a clone of https://github.com/mlcommons/training_results_vX.Y, whose folder's path holds that name. What
its HEAD holds is read, with or without a work tree. results/published/README.md says what the columns mean.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.command import exit_with
from scripts.records import PUBLISHED, csv_text
from train.errors import UserError

TARGET = 0.759  # the benchmark's top-1; a run is over at the first evaluation that reaches it

# column: the keys of the log that may hold it, the first that is there counts
SETTINGS = {
    "division": ("submission_division",),
    "batch": ("global_batch_size",),
    "optimizer": ("opt_name",),
    "lr": ("lars_opt_base_learning_rate", "sgd_opt_base_learning_rate", "shampoo_opt_base_learning_rate"),
    "warmup_epochs": ("lars_opt_learning_rate_warmup_epochs", "opt_learning_rate_warmup_epochs",
                      "shampoo_opt_learning_rate_warmup_epochs"),
    "momentum": ("lars_opt_momentum", "sgd_opt_momentum"),
    "weight_decay": ("lars_opt_weight_decay", "sgd_opt_weight_decay", "opt_weight_decay"),
    "decay_steps": ("lars_opt_learning_rate_decay_steps", "sgd_opt_learning_rate_decay_steps",
                    "shampoo_opt_learning_rate_decay_steps"),
    "bn_span": ("model_bn_span",),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One log: what it was set to, and where it reached the target, None where it did not."""

    times: tuple[int, ...]  # ms, of run_start and run_stop: runs with the same two times are one run
    settings: tuple[str, ...]  # in the order of SETTINGS
    epochs: float | None
    top1: float | None  # percent
    minutes: float | None


@dataclass(frozen=True)
class Log:
    """A ``result_N.txt`` of a repository: its folder, and git's name of its content."""

    folder: str
    blob: str


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{repository}: {done.stderr.strip().splitlines()[-1]}: give a clone of a results repository")
    return done.stdout


def version_of(repository: Path) -> str:
    """The X.Y of training_results_vX.Y; raises UserError when the path does not hold it."""
    found = re.findall(r"training_results_v(\d+\.\d+)", str(repository.resolve()))
    if not found:
        raise UserError(f"{repository}: its path does not say training_results_vX.Y: name the clone so")
    return str(found[-1])


def logs_in(repository: Path) -> list[Log]:
    found = []
    for line in git(repository, "-c", "core.quotePath=false", "ls-tree", "-r", "HEAD").splitlines():
        kind, path = line.split("\t")
        if match := re.fullmatch(r"(.+/resnet)/result_\d+\.txt", path):
            found.append(Log(match[1], kind.split()[2]))
    return found


def texts(repository: Path, logs: list[Log]) -> Iterator[str | None]:
    """The text of each log, None where the clone lacks it."""
    command = ["git", "-C", str(repository), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        for log in logs:
            process.stdin.write(f"{log.blob}\n".encode())
            process.stdin.flush()
            _, kind, *size = process.stdout.readline().split()
            # the object, and a line feed
            yield process.stdout.read(int(size[0]) + 1).decode(errors="replace") if kind == b"blob" else None


def as_text(value: object) -> str:
    """17 and 17.0 as the same text, and nothing for a value that is not there."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.10g}"
    return "" if value is None else str(value)


def read_run(text: str) -> Run:
    events: dict[str, list[dict[str, Any]]] = {}
    for line in re.findall(r":::MLLOG\s*(\{.*\})", text):
        event = json.loads(line)
        events.setdefault(event["key"], []).append(event)

    def value(keys: tuple[str, ...]) -> str:
        return as_text(next((events[key][0]["value"] for key in keys if key in events), None))

    times = tuple(int(events[key][0]["time_ms"]) for key in ("run_start", "run_stop") if key in events)
    settings = tuple(value(keys) for keys in SETTINGS.values())
    reached = next((e for e in events.get("eval_accuracy", []) if e["value"] >= TARGET), None)
    if not reached:
        return Run(times, settings, None, None, None)
    minutes = (times[1] - times[0]) / 60_000
    return Run(times, settings, float(reached["metadata"]["epoch_num"]), 100 * reached["value"], minutes)


def row(source: dict[str, str], settings: tuple[str, ...], runs: list[Run]) -> dict[str, str]:
    """The runs of a system with one set of settings; means over those that reached the target."""
    ended = [r for r in runs if r.epochs is not None]
    epochs, top1, minutes = ([getattr(r, name) for r in ended] for name in ("epochs", "top1", "minutes"))
    return {
        **source,
        **dict(zip(SETTINGS, settings, strict=True)),
        "runs": str(len(runs)),
        "reached": str(len(ended)),
        "epochs": f"{statistics.mean(epochs):.4g}" if ended else "",
        "epochs_each": " ".join(f"{e:g}" for e in epochs),
        "top1": f"{statistics.mean(top1):.2f}" if ended else "",
        "minutes": f"{statistics.median(minutes):.4g}" if ended else "",
    }


def rows_of(repository: Path, known: set[tuple[int, ...]]) -> Iterator[dict[str, str]]:
    """A row for each system and its settings, without the runs whose times are in ``known``; new ones are put there."""
    version, commit = version_of(repository), git(repository, "rev-parse", "HEAD").strip()
    systems: dict[str, dict[tuple[str, ...], list[Run]]] = {}
    lacking, again = set(), set()
    logs = logs_in(repository)
    for log, text in zip(logs, texts(repository, logs), strict=True):
        if text is None:
            lacking.add(log.folder)
        elif (run := read_run(text)).times in known:
            again.add(log.folder)
        else:
            known.add(run.times)
            systems.setdefault(log.folder, {}).setdefault(run.settings, []).append(run)
    before = len(again - systems.keys())
    print(f"{version}: {len(systems)} systems, without {before} that were there before", file=sys.stderr)
    for folder in sorted(again & systems.keys()):
        print(f"{version}: {folder} has a run that was there before, which is left out", file=sys.stderr)
    for folder in sorted(lacking):
        print(f"{version}: {folder} left out: this clone lacks its logs", file=sys.stderr)
    for folder, by_settings in sorted(systems.items()):
        for settings, runs in sorted(by_settings.items()):
            yield row({"version": version, "commit": commit, "path": folder}, settings, runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+", type=Path, metavar="REPOSITORY")
    parser.add_argument("--to", type=Path, default=PUBLISHED / "mlperf-runs.csv", help="the file that is written")
    arguments = parser.parse_args()
    known: set[tuple[int, ...]] = set()
    found = [r for path in sorted(arguments.repositories, key=version_of) for r in rows_of(path, known)]
    arguments.to.write_text(csv_text(found))
    print(f"{len(found)} rows in {arguments.to}")
    return 0


if __name__ == "__main__":
    exit_with(main)
