"""Loggers that a person chooses: what they get to know of a run, resumed or rewound, and what their failure costs."""

import json
import math
import shutil
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.helpers import ROOT, SMALL, App, assert_same_run, train_here
from train.engine.logger import Logger, Run
from train.errors import Stopped
from train.output.board import BoardLogger
from train.output.loggers import open_logger

Curves = dict[str, list[tuple[int, float]]]  # images and value, by name


def run_at(folder: Path, images: int) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(folder, "a-run", images, {"seed": 0, "optimizer.lr": 29.0}, "about it")


def tell(logger: Logger, images: int, value: float) -> None:
    """As the loop tells a logger of a step and of an evaluation."""
    logger.scalars(images, {"train/loss": value})
    row = {"images": images, "val_top1": value, "val_top5": value, "val_loss": value, "train_loss": value, "epoch": 1}
    logger.row({**row, "images_per_second": None})


class Wandb:
    """W&B in its offline mode, read back from the files that it would send."""

    name = "wandb"

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("wandb")
        monkeypatch.setenv("WANDB_MODE", "offline")

    def records(self, run: Path) -> Iterator[Any]:
        """What is in W&B's own files, which are logs of LevelDB's form: parts of records in blocks of 32 KiB."""
        from wandb.proto import wandb_internal_pb2

        for path in sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
            data, at, record = path.read_bytes(), 7, b""
            while at + 7 <= len(data):
                if 32768 - at % 32768 < 7:
                    at += 32768 - at % 32768
                    continue
                _, length, kind = struct.unpack_from("<IHB", data, at)
                record += data[at + 7 : at + 7 + length]
                at += 7 + length
                # a whole record, or the last part of one
                if kind in (1, 4):
                    yield wandb_internal_pb2.Record.FromString(record)
                    record = b""

    def read(self, run: Path) -> tuple[set[str], Curves]:
        """The ids of the runs that there are, and the curves, cut where W&B was told to cut them."""
        curves: Curves = defaultdict(list)
        ids = set()
        for record in self.records(run):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(record.run.run_id or record.run.branch_point.run)
                if record.run.HasField("branch_point"):
                    cut = record.run.branch_point.value
                    for name in curves:
                        curves[name] = [point for point in curves[name] if point[0] <= cut]
            if kind == "history":
                step = record.history.step.num
                for item in record.history.item:
                    key = item.key or "/".join(item.nested_key)
                    value = json.loads(item.value_json)
                    if not key.startswith("_") and isinstance(value, (int, float)):
                        curves[key].append((step, value))
        return ids, curves


class Mlflow:
    """MLflow with a store in a file of SQLite."""

    name = "mlflow"

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        # where it keeps pictures by default
        monkeypatch.chdir(folder)

    def read(self, run: Path) -> tuple[set[str], Curves]:
        from mlflow import MlflowClient

        client = MlflowClient()
        experiment = client.get_experiment_by_name("lars-imagenet")
        runs = client.search_runs([experiment.experiment_id])
        curves = {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for run in runs
            for name in run.data.metrics
        }
        return {run.info.run_id for run in runs}, curves


@pytest.mark.parametrize("service", [Wandb, Mlflow])
def test_a_resumed_run_stays_one_run_and_what_came_after_its_checkpoint_is_cut(service, tmp_path, monkeypatch):
    of = service(tmp_path, monkeypatch)
    folder, said = tmp_path / "run", []
    first = open_logger(of.name, run_at(folder, 0), said.append)
    first.layers(1, 10, ["fc.weight"], {"trust_ratio": torch.tensor([0.5])})
    first.picture(10, "images/augmented", torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    for images in (10, 20, 30):
        tell(first, images, images / 10)
    # back to the last checkpoint, as after a divergence
    first.rewind(1, 10)
    tell(first, 20, 2.5)
    first.close(is_over=False)
    (before,), _ = of.read(folder)
    # the next process resumes from what was saved at 20 images
    second = open_logger(of.name, run_at(folder, 20), said.append)
    tell(second, 30, 3.5)
    second.close(is_over=True)
    assert said == []
    (after,), curves = of.read(folder)
    assert after == before and (folder / f"{of.name}.id").read_text().strip() == after
    assert curves["train/loss"] == curves["validation/top1"] == [(10, 1.0), (20, 2.5), (30, 3.5)]
    assert curves["trust_ratio/fc.weight"] == [(10, 0.5)]


@pytest.mark.parametrize("service", [Wandb, Mlflow])
def test_a_run_killed_after_its_checkpoint_shows_each_point_once(service, tmp_path, monkeypatch):
    of = service(tmp_path, monkeypatch)
    folder, said = tmp_path / "run", []
    killed = open_logger(of.name, run_at(folder, 0), said.append)
    for images in (10, 20, 30):
        tell(killed, images, images / 10)
    killed.close(is_over=False)
    resumed = open_logger(of.name, run_at(folder, 20), said.append)
    tell(resumed, 30, 3.5)
    resumed.close(is_over=True)
    ids, curves = of.read(folder)
    assert len(ids) == 1 and said == [] and curves["train/loss"] == [(10, 1.0), (20, 2.0), (30, 3.5)]


@pytest.mark.parametrize("service", [Wandb, Mlflow])
def test_a_training_is_logged_as_in_tensorboard(service, tmp_path, monkeypatch):
    of = service(tmp_path, monkeypatch)
    run = train_here(tmp_path, *SMALL, "epochs=2", f"logger=[{of.name}]", "log.every_steps=2")
    _, curves = of.read(run)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [value for _, value in curves["validation/top1"]] == pytest.approx([row["val_top1"] for row in rows])
    assert [images for images, _ in curves["train/loss"]] == [256, 512, 768, 1024]
    assert not (run / "tb").exists()


class Recording(Logger):
    """A logger of one's own."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._file = open(run.folder / "own.txt", "a")
        self._say(f"open {run.images}")

    def _say(self, line: str) -> None:
        print(line, file=self._file, flush=True)

    def row(self, row: dict[str, Any]) -> None:
        self._say(f"row {row['images']}")

    def rewind(self, rows: int, images: int) -> None:
        self._say(f"rewind {images}")

    def close(self, is_over: bool) -> None:
        self._say(f"close {is_over}")


def test_a_logger_of_ones_own_hears_of_every_row_and_of_the_resume(tmp_path: Path):
    own = "logger=[tests.test_loggers:Recording]"
    train_here(tmp_path, *SMALL, "epochs=2", "max_steps=4", own)
    run = train_here(tmp_path, *SMALL, "epochs=2", own)
    said = (run / "own.txt").read_text().split("\n")
    assert said == ["open 0", "row 512", "close False", "open 512", "row 1024", "close True", ""]


def test_code_of_ones_own_is_taken_from_the_command_line_alone(app: App, tmp_path: Path):
    (tmp_path / "recipe").mkdir()
    text = "# @package _global_\nrecipe: {name: torchlars}\nschedule: {warmup_epochs: 0}\nlogger: ['os:abort']\n"
    (tmp_path / "recipe" / "foul.yaml").write_text(text)
    done = app("-cd", str(tmp_path), "recipe=foul", *SMALL)
    assert done.returncode == 2 and "logger=os:abort is code" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_examples_of_the_documents_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A logger of one's own, and a board that is sent to W&B afterwards."""
    examples = [part.split("```")[0] for part in (ROOT / "docs/loggers.md").read_text().split("```python\n")[1:]]
    sent, own = examples
    (tmp_path / "my_module.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    run = train_here(tmp_path, *SMALL, "epochs=1", "logger=[tensorboard,my_module:MyLogger]")
    (row,) = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert (run / "top1.txt").read_text() == f"1 {row['val_top1']}\n"
    of = Wandb(tmp_path, monkeypatch)
    # wandb keeps the folder in which it was first used
    subprocess.run([sys.executable, "-c", sent.replace("runs/NAME", str(run))], cwd=tmp_path, check=True)
    _, curves = of.read(tmp_path)
    assert curves["validation/top1"] == [(512, pytest.approx(row["val_top1"]))]


class Failing(Logger):
    """A logger whose server goes away."""

    def __init__(self, run: Run) -> None:
        self._rows = 0

    def row(self, row: dict[str, Any]) -> None:
        self._rows += 1
        raise ConnectionError(f"no answer to row {self._rows}")


def test_a_logger_that_fails_or_is_not_there_is_said_once_and_the_run_is_as_without_it(tmp_path: Path, capsys):
    for number, loggers in enumerate(
        ("tensorboard", "tests.test_loggers:Failing,nowhere:at_all,tests.helpers:nothing")
    ):
        train_here(tmp_path / str(number), *SMALL, "epochs=2", f"logger=[{loggers}]")
    assert_same_run(tmp_path / "0/run", tmp_path / "1/run")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("logger=")]
    assert len(said) == 3 and all("training continues without it" in line for line in said)
    assert (
        sum("no answer to row 1" in line for line in said)
        == sum("No module named 'nowhere'): put the folder of its module on PYTHONPATH" in line for line in said)
        == 1
    )


def leaving(run: Run) -> Logger:
    sys.exit(0)


def making_none(run: Run) -> None:
    return None


def making_a_number(run: Run) -> int:
    return 3


def test_a_logger_that_exits_or_is_none_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    own = ",".join(f"tests.test_loggers:{name}" for name in ("leaving", "making_none", "making_a_number"))
    run = train_here(tmp_path, *SMALL, "epochs=1", f"logger=[{own}]")
    assert (run / "result.json").exists()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("logger=")]
    assert len(said) == 3 and "SystemExit" in said[0] and "it made None" in said[1] and "it made 3" in said[2], said


def test_a_board_that_cannot_be_written_prints_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture):
    board = BoardLogger(tmp_path / "tb", 0, [])
    shutil.rmtree(tmp_path / "tb")
    with pytest.raises(OSError, match="No such file"):
        for images in range(100):
            board.row(
                {
                    "images": images,
                    "train_loss": 1.0,
                    "lr": 0.1,
                    "val_top1": 1.0,
                    "val_top5": 1.0,
                    "val_loss": 1.0,
                    "epoch": 1,
                    "images_per_second": 1.0,
                }
            )
            time.sleep(0.01)
    assert "Traceback" not in capfd.readouterr().err


def test_a_signal_within_a_loggers_call_is_not_its_failure(tmp_path: Path):
    def stopped(run: Run) -> Logger:
        raise Stopped("stopped by SIGINT")

    with mock.patch("train.output.loggers._factory", return_value=stopped), pytest.raises(Stopped):
        open_logger("wandb", run_at(tmp_path, 0), print)


@pytest.mark.parametrize("service", ["wandb", "mlflow"])
def test_a_service_that_is_not_installed_is_named_with_the_command_that_installs_it(service, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, service, None)
    said: list[str] = []
    logger = open_logger(service, run_at(tmp_path, 0), said.append)
    tell(logger, 10, 1.0)
    logger.close(is_over=True)
    (line,) = said
    assert f"pip install {service}" in line and "training continues" in line


@pytest.mark.parametrize(
    ("service", "address"),
    [("wandb", {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40}),
     ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})],
)  # fmt: skip
@pytest.mark.slow
def test_a_server_that_does_not_answer_is_said_once(service, address, tmp_path, monkeypatch):
    pytest.importorskip(service)
    for name, value in address.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    logger = open_logger(service, run_at(tmp_path, 0), said.append)
    tell(logger, 10, 1.0)
    logger.close(is_over=True)
    (line,) = said
    assert line.startswith(f"logger={service} is off, training continues without it") and "\n" not in line


def test_the_progress_line_has_no_top1_before_there_is_one_and_waits_at_most_all_the_time(tmp_path, monkeypatch):
    from train.output.progress import ProgressLogger

    seen: list[dict[str, float]] = []
    monkeypatch.setattr(ProgressLogger, "progress", lambda self, images, **figures: seen.append(figures))
    few = ["data.classes=5", "data.train_per_class=34", "batch.total=16", "batch.micro=8", "log.every_steps=1"]
    train_here(tmp_path, *SMALL, *few, "epochs=2", "logger=[]")
    steps = 170 // 16
    assert ["top1" in figures for figures in seen] == [False] * steps + [True] * steps
    assert all(0 <= figures["waiting"] <= 1 and math.isfinite(figures["loss"]) for figures in seen)
