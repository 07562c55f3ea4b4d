"""MLPerf's logs become rows: what scripts/mlperf_runs.py reads in a repository of results."""

import csv
import json
import statistics
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from scripts import mlperf_runs
from scripts.records import published
from train.errors import UserError

LARS = {
    "submission_division": "closed", "global_batch_size": 8192, "opt_name": "lars", "lars_opt_momentum": 0.9,
    "lars_opt_base_learning_rate": 17.0, "lars_opt_learning_rate_warmup_epochs": 5, "lars_opt_weight_decay": 5e-05,
    "lars_opt_learning_rate_decay_steps": 44,
}  # fmt: skip


def log(settings: dict[str, object], evaluations: Iterable[tuple[int, float]], minutes: float = 10) -> str:
    """A log as MLPerf's logger writes it, among lines of others."""

    def line(key: str, value: object, **metadata: object) -> str:
        at = round(minutes * 60_000) if key == "run_stop" else 0
        event = {"namespace": "", "time_ms": 1_600_000_000_000 + at, "event_type": "POINT_IN_TIME", "key": key}
        return f"0: :::MLLOG {json.dumps({**event, 'value': value, 'metadata': metadata})}"

    lines = ["Clearing caches {}", *(line(*item) for item in settings.items()), line("run_start", None)]
    lines += [line("eval_accuracy", top1, epoch_num=epoch) for epoch, top1 in evaluations]
    return "\n".join([*lines, line("run_stop", None, status="success"), "done"])


def repository(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "results"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def rows(repositories: list[Path], to: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    monkeypatch.setattr("sys.argv", ["mlperf_runs.py", *map(str, repositories), "--to", str(to)])
    assert mlperf_runs.main() == 0
    with open(to, newline="") as file:
        return list(csv.DictReader(file))


def test_a_system_becomes_a_row_with_its_settings_and_the_epochs_to_the_target(tmp_path, monkeypatch, capsys):
    runs = {
        "Org/results/big/resnet/result_0.txt": log(LARS, [(37, 0.74), (41, 0.7601)], 10),
        "Org/results/big/resnet/result_1.txt": log(LARS, [(41, 0.759), (45, 0.764)], 11),  # went on after the target
        "Org/results/big/resnet/result_2.txt": log(LARS, [(41, 0.7589), (45, 0.7589)], 12),  # a success by its word
        "Org/results/big/ssd/result_0.txt": log(LARS, [(41, 0.8)]),
        "Org/results/big/resnet/notes.txt": log(LARS, [(41, 0.8)]),
    }
    folder = repository(tmp_path / "training_results_v2.0", runs)
    (row,) = rows([folder], tmp_path / "runs.csv", monkeypatch)
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert row == {
        "version": "2.0", "commit": head.strip(), "path": "Org/results/big/resnet", "division": "closed",
        "batch": "8192", "optimizer": "lars", "lr": "17", "warmup_epochs": "5", "momentum": "0.9",
        "weight_decay": "5e-05", "decay_steps": "44", "bn_span": "", "runs": "3", "reached": "2", "epochs": "41",
        "epochs_each": "41 41", "top1": "75.96", "minutes": "10.5",
    }  # fmt: skip


def test_results_that_are_handed_in_again_or_changed_on_the_way_are_told_apart(tmp_path, monkeypatch, capsys):
    old, other = log(LARS, [(41, 0.76)], 10), log({**LARS, "lars_opt_base_learning_rate": 18}, [(42, 0.76)], 11)
    first = repository(tmp_path / "b" / "training_results_v2.0", {
        "A/results/one/resnet/result_0.txt": old, "A/results/one/resnet/result_1.txt": other,
    })  # fmt: skip
    second = repository(tmp_path / "a" / "training_results_v2.1", {
        "A/results/renamed/resnet/result_0.txt": old.replace("Clearing", "Emptying"),
        "A/results/one/resnet/result_0.txt": log(LARS, [(43, 0.76)], 12),
        "A/results/one/resnet/result_1.txt": log(LARS, [(43, 0.76)], 12),
    })  # fmt: skip
    # in the order of the versions, whatever the command's
    found = rows([second, first], tmp_path / "runs.csv", monkeypatch)
    assert [(r["version"], r["lr"], r["epochs_each"]) for r in found] == [
        ("2.0", "17", "41"), ("2.0", "18", "42"), ("2.1", "17", "43"),
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "2.1: 1 systems, without 1 that were there before" in said
    assert "2.1: A/results/one/resnet has a run that was there before" in said


def test_a_log_that_a_clone_lacks_is_named_and_a_folder_that_is_none_is_refused(tmp_path, monkeypatch, capsys):
    folder = repository(tmp_path / "training_results_v1.0", {"A/results/one/resnet/result_0.txt": log(LARS, [])})
    (found,) = mlperf_runs.logs_in(folder)
    (folder / ".git" / "objects" / found.blob[:2] / found.blob[2:]).unlink()
    assert rows([folder], tmp_path / "runs.csv", monkeypatch) == []
    assert "A/results/one/resnet left out: this clone lacks its logs" in capsys.readouterr().err
    with pytest.raises(UserError, match="does not say training_results_vX.Y"):
        mlperf_runs.version_of(tmp_path)
    with pytest.raises(UserError, match="give a clone of a results repository"):
        mlperf_runs.logs_in(tmp_path / "training_results_v9.9")


def test_the_committed_rows_end_where_curves_that_were_read_before_end():
    ends: dict[str, dict[str, tuple[int, float]]] = {}
    for point in published("mlperf-curves.csv"):
        ends.setdefault(point["submission"], {})[point["run"]] = (int(point["epoch"]), float(point["top1"]))
    committed = {f"training_results_v{r['version']}/{r['path']}": r for r in published("mlperf-runs.csv")}
    assert len(ends) == 5
    for submission, runs in ends.items():
        row = committed[submission]
        reached = [end for _, end in sorted(runs.items()) if end[1] >= 75.9]
        assert row["epochs_each"] == " ".join(str(epoch) for epoch, _ in reached)
        assert float(row["top1"]) == pytest.approx(statistics.mean(top1 for _, top1 in reached), abs=0.011)
