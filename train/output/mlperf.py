"""``mlperf.log``: a run in the format of MLPerf Training, one ``:::MLLOG`` line for each event.

The keys are those of ruleset 4.0.0 of github.com/mlcommons/logging, the last with ResNet. Values are logged as they
are, and its compliance checker decides. The lines have the form of ``mlperf_logging.mllog``, which would require pandas
and scipy to write a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from train.engine.logger import Logger
from train.errors import UserError
from train.output.files import write_whole

TARGET = 0.759  # top-1: compliance_checker/training_4.0.0/closed_resnet.yaml

KINDS = {"start": "INTERVAL_START", "stop": "INTERVAL_END"}


class MLPerfLogger(Logger):
    """The file ``path`` from MLPerf's init_start to its run_stop, after which nothing is added.

    For MLPerf the run stops with the first top-1 at the target, even if training continues.
    """

    def __init__(self, path: Path, rows: int | None, facts: dict[str, Any]) -> None:
        """Begin the file with ``facts``, or continue it after ``rows`` evaluations; UserError if it lacks some."""
        self._path = path
        kept = [] if rows is None else self._lines_until(rows)
        write_whole(path, "".join(kept).encode())
        events = [_event(line) for line in kept]
        self._counts = Counter(event["key"] for event in events)
        blocks = [event["metadata"]["first_epoch_num"] for event in events if event["key"] == "block_start"]
        self._block = blocks[-1] if blocks else 1  # the first epoch of the block that is open
        if rows is None:
            # the app does not empty the system's caches
            self._log("cache_clear", False)
            self._log("init_start")
            for key, value in facts.items():
                self._log(key, value)

    def _lines_until(self, rows: int) -> list[str]:
        """All lines of a closed log; of an open one, those before the end of the epoch after ``rows``."""
        text = self._path.read_text() if self._path.exists() else ""
        # a kill may leave half a line
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        keys = [_event(line)["key"] for line in lines]
        if "init_start" not in keys or keys.count("eval_accuracy") < rows and "run_stop" not in keys:
            raise UserError(
                f"{self._path} does not hold this run from its beginning: resume without mlperf_log=true, "
                "or give another name=NAME"
            )
        if "run_stop" in keys:
            return lines
        ends = [i for i, key in enumerate(keys) if key == "block_stop"]
        return lines[: ends[rows]] if len(ends) > rows else lines

    def _log(self, key: str, value: object = None, **metadata: object) -> None:
        if self._counts["run_stop"]:
            return
        event = {
            "namespace": "",
            "time_ms": int(1000 * time.time()),
            "event_type": KINDS.get(key.rpartition("_")[2], "POINT_IN_TIME"),
            "key": key,
            "value": value,
            "metadata": {"file": "train/output/mlperf.py", "lineno": sys._getframe(1).f_lineno, **metadata},
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f":::MLLOG {json.dumps(event)}\n")
        self._counts[key] += 1

    def training(self, epoch: int, until: int) -> None:
        if not self._counts["run_start"]:
            # everything is built
            self._log("init_stop")
            self._log("run_start")
        if self._counts["block_start"] == self._counts["block_stop"]:
            self._block = epoch
            self._log("block_start", first_epoch_num=epoch, epoch_count=until - epoch + 1)

    def evaluating(self, epoch: int) -> None:
        self._log("block_stop", first_epoch_num=self._block)
        self._log("eval_start", epoch_num=epoch)

    def row(self, row: dict[str, Any]) -> None:
        accuracy = row["val_top1"] / 100
        self._log("eval_accuracy", accuracy, epoch_num=row["epoch"])
        self._log("eval_stop", epoch_num=row["epoch"])
        if accuracy >= TARGET:
            self._log("run_stop", status="success", epoch_num=row["epoch"])

    def rewind(self, rows: int, images: int) -> None:
        """After a restart the log no longer describes the run."""
        self._log("run_stop", status="aborted")

    def close(self, is_over: bool) -> None:
        if is_over:
            # below the target; after a success nothing is added
            self._log("run_stop", status="aborted")


def _event(line: str) -> dict[str, Any]:
    return json.loads(line.removeprefix(":::MLLOG "))
