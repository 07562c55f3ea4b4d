"""A run in MLPerf Training's own words: ``mlperf.log``, one ``:::MLLOG`` line for each event.

Keys are those of ruleset 4.0.0 of github.com/mlcommons/logging, the last with ResNet; what that ruleset fixes is logged
as it was, and its compliance checker is the judge. The form is that of ``mlperf_logging.mllog``, which would
bring pandas and scipy to write a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from train import record
from train.checkpoint import write_whole
from train.config import Config, LARSConfig, Plan
from train.data import Data
from train.errors import UserError

TARGET = 0.759  # top-1: compliance_checker/training_4.0.0/closed_resnet.yaml

KINDS = {"start": "INTERVAL_START", "stop": "INTERVAL_END"}


class MLPerfLog:
    """The file ``path`` from MLPerf's init_start to its run_stop, after which it takes nothing more.

    The run stops for MLPerf with the first top-1 at the target, even if training goes on.
    """

    def __init__(self, path: Path, rows: int | None) -> None:
        """Begin the file, or go on in it with a run of ``rows`` evaluations; raises UserError if it lacks some."""
        self._path = path
        kept = [] if rows is None else self._lines_until(rows)
        write_whole(path, "".join(kept).encode())
        self._counts = Counter(_event(line)["key"] for line in kept)
        if rows is None:
            # nothing empties the system's caches here
            self._log("cache_clear", False)
            self._log("init_start")

    def _lines_until(self, rows: int) -> list[str]:
        """All lines of a closed log; of an open one those before the end of the epoch after ``rows``."""
        text = self._path.read_text() if self._path.exists() else ""
        # a kill may leave half a line
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        keys = [_event(line)["key"] for line in lines]
        if "init_start" not in keys or keys.count("eval_accuracy") < rows and "run_stop" not in keys:
            raise UserError(
                f"{self._path} does not hold this run from its beginning: go on without mlperf_log=true, "
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
            "metadata": {"file": "train/mlperf.py", "lineno": sys._getframe(1).f_lineno, **metadata},
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f":::MLLOG {json.dumps(event)}\n")
        self._counts[key] += 1

    def start(self, facts: dict[str, Any]) -> None:
        """Everything is built and training begins: ``facts``, each in a line of its own, and run_start, once."""
        if self._counts["run_start"]:
            return
        for key, value in facts.items():
            self._log(key, value)
        self._log("init_stop")
        self._log("run_start")

    def training(self, epoch: int) -> None:
        """Steps of ``epoch``, from 1, begin or go on."""
        if self._counts["block_start"] < epoch:
            self._log("block_start", first_epoch_num=epoch, epoch_count=1)

    def evaluating(self, epoch: int) -> None:
        self._log("block_stop", first_epoch_num=epoch)
        self._log("eval_start", epoch_num=epoch)

    def evaluated(self, epoch: int, top1: float) -> None:
        """``top1``, in percent, was reached after ``epoch``."""
        accuracy = top1 / 100
        self._log("eval_accuracy", accuracy, epoch_num=epoch)
        self._log("eval_stop", epoch_num=epoch)
        if accuracy >= TARGET:
            self._log("run_stop", status="success", epoch_num=epoch)

    def abort(self) -> None:
        """The run ended below the target, or left the course that its log describes."""
        self._log("run_stop", status="aborted")


def _event(line: str) -> dict[str, Any]:
    return json.loads(line.removeprefix(":::MLLOG "))


def facts(config: Config, plan: Plan, data: Data) -> dict[str, Any]:
    """What MLPerf asks of a run of ResNet, by its keys, and what it takes for granted: ``model`` and ``data``."""
    optimizer, schedule = config.optimizer, config.schedule
    hardware = record.hardware(plan.processes)
    warmup_steps = round(schedule.warmup_epochs * plan.steps_per_epoch)
    about_optimizer = {
        "base_learning_rate": optimizer.lr,
        "end_learning_rate": schedule.end_lr,
        **({"learning_rate_decay_poly_power": schedule.power} if schedule.decay == "poly" else {}),
        # over which lr falls
        "learning_rate_decay_steps": plan.steps - (warmup_steps if schedule.origin == "warmup" else 0),
        "learning_rate_warmup_epochs": schedule.warmup_epochs,
        "momentum": optimizer.momentum,
        "weight_decay": optimizer.weight_decay,
    }
    return {
        "submission_benchmark": "resnet",
        "submission_division": "closed",
        "submission_org": "lars-imagenet",
        "submission_platform": f"{plan.processes} x {(hardware['gpus'] or [hardware['cpu']])[0]}",
        "submission_status": "research",
        "model": config.model.name,
        "data": data.remark,
        "seed": config.seed,
        "global_batch_size": plan.total,
        "gradient_accumulation_steps": plan.accumulation,
        "model_bn_span": plan.micro,
        "train_samples": data.train_images,
        "eval_samples": data.val_images,
        "opt_name": optimizer.name,
        **{f"{optimizer.name}_opt_{key}": value for key, value in about_optimizer.items()},
        "opt_learning_rate_warmup_epochs": schedule.warmup_epochs,
        **({"lars_epsilon": optimizer.eps} if isinstance(optimizer, LARSConfig) else {}),
    }
