"""A run that was stopped, killed or starved goes on as if nothing had been."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch

from tests.conftest import MAIN, SMALL, App
from train import checkpoint
from train.errors import UserError
from train.main import composed
from train.run import Run

TIMES = {"images_per_second", "seconds"}


def rows(run: Path) -> list[dict]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def assert_same_run(a: Path, b: Path) -> None:
    first, second = torch.load(a / "weights.pt"), torch.load(b / "weights.pt")
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    assert rows(a) == rows(b)
    results = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    for key in ("best_top1", "last_top1", "steps", "data_fingerprint", "parameters"):
        assert results[0][key] == results[1][key]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    command = [sys.executable, str(MAIN), *SMALL, "epochs=6", "name=run"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "runs" / "run"


@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_stopped_at_any_step_equals_uninterrupted_bit_for_bit(app: App, tmp_path, uninterrupted, stop_at):
    """Step 4 is the end of an epoch, steps 2 and 7 are in the middle of one."""
    stopped = app(*SMALL, "epochs=6", "name=run", f"max_steps={stop_at}")
    assert stopped.returncode == 0 and "unfinished" in stopped.stdout
    assert not (tmp_path / "runs" / "run" / "result.json").exists()
    resumed = app(*SMALL, "epochs=6", "name=run")
    assert resumed.returncode == 0 and f"after step {stop_at}" in resumed.stdout, resumed.stderr
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


def start_and_signal(folder: Path, number: int, *arguments: str) -> tuple[int, str]:
    """Start a run, send ``number`` once it has logged a row, and return its exit code and its stderr."""
    process = subprocess.Popen(
        [sys.executable, str(MAIN), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.time() + 120
    while not any(log.stat().st_size for log in folder.glob("runs/*/log.jsonl")):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits_75_and_the_same_command_goes_on(app: App, tmp_path, uninterrupted, number):
    code, said = start_and_signal(tmp_path, number, *SMALL, "epochs=6", "name=run")
    assert code == 75 and "everything is saved" in said and "Traceback" not in said
    assert (tmp_path / "runs" / "run" / "stopped").exists()
    assert app(*SMALL, "epochs=6", "name=run").returncode == 0
    assert not (tmp_path / "runs" / "run" / "stopped").exists()
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


def test_a_signal_to_the_launcher_stops_all_processes_with_75(app: App, tmp_path):
    arguments = [*SMALL, "epochs=40", "nproc=2", "name=run"]
    code, said = start_and_signal(tmp_path, signal.SIGTERM, *arguments)
    assert code == 75 and said.count("everything is saved") == 1 and "Traceback" not in said, said
    assert "after step" in app(*arguments, "max_steps=1").stdout


def test_killed_run_goes_on_from_its_checkpoint(app: App, tmp_path, uninterrupted):
    arguments = [*SMALL, "epochs=6", "name=run", "checkpoint.every_minutes=0"]
    code, _ = start_and_signal(tmp_path, signal.SIGKILL, *arguments)
    assert code == -signal.SIGKILL
    resumed = app(*arguments)
    assert resumed.returncode == 0 and "after step" in resumed.stdout
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut_short, one_bit])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(app: App, tmp_path, uninterrupted, harm):
    arguments = [*SMALL, "epochs=6", "name=run", "checkpoint.every_minutes=0"]
    app(*arguments, "max_steps=6")
    newest = checkpoint.newest_first(tmp_path / "runs" / "run" / "checkpoints")[0]
    harm(newest)
    resumed = app(*arguments)
    assert resumed.returncode == 0 and f"{newest} is damaged" in resumed.stderr
    assert "after step 5" in resumed.stdout
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


def test_a_finished_run_says_so_and_exits_0(app: App, tmp_path, uninterrupted):
    arguments = [*SMALL, "epochs=6", "name=run", f"runs_dir={uninterrupted.parent}"]
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file() and p.name != "lock"}
    again = app(*arguments)
    assert again.returncode == 0 and "is finished" in again.stdout
    assert before == {p: p.stat().st_mtime_ns for p in before}
    changed = app(*arguments, "seed=1", "optimizer.lr=3")
    assert changed.returncode == 2
    assert "optimizer.lr was 29.0, now 3.0; seed was 0, now 1" in changed.stderr


def test_a_folder_in_use_is_refused_naming_the_process(app: App, tmp_path):
    arguments = [*SMALL, "epochs=400", "name=run"]
    first = subprocess.Popen(
        [sys.executable, str(MAIN), *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "runs" / "run" / "log.jsonl").exists():
            time.sleep(0.05)
        second = app(*arguments)
        assert second.returncode == 2 and f"in use by process {first.pid}" in second.stderr
    finally:
        first.kill()
        first.wait()


@pytest.mark.parametrize(("name", "content"), [("config.yaml", "a: [1"), ("result.json", "{")])
def test_a_damaged_file_of_a_run_is_named_and_left_as_it_is(tmp_path, name, content):
    settings = composed(*SMALL, "name=run", f"runs_dir={tmp_path}")
    Run(settings)
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UserError, match=f"{name} is damaged: "):
        _ = Run(settings).result
    assert (tmp_path / "run" / name).read_text() == content


def test_a_file_system_without_locks_is_named(tmp_path):
    refused = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    with (
        mock.patch("fcntl.flock", side_effect=refused),
        pytest.raises(UserError, match=r"run is on a file system without locks .*: mount it with flock, or"),
    ):
        Run(composed(*SMALL, "name=run", f"runs_dir={tmp_path}"))


def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_is_intact(app: App, tmp_path, uninterrupted):
    """A limit on a file's size stands for a full disk: writes fail in the middle, as they do on one."""
    arguments = [*SMALL, "epochs=6", "name=run"]
    assert app(*arguments, "max_steps=3").returncode == 0

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    full = app(*arguments, "max_steps=5", preexec_fn=limit)
    assert full.returncode == 2, full.stderr
    assert full.stderr.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in full.stderr
    checkpoints = tmp_path / "runs" / "run" / "checkpoints"
    assert [p.name[:15] for p in checkpoints.iterdir()] == ["step-000000003-"]
    assert app(*arguments).returncode == 0
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


def test_a_checkpoint_executes_nothing(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"model": Payload()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="bad.pt is damaged or no checkpoint"):
        checkpoint.load(tmp_path / "bad.pt")
    assert not (tmp_path / "executed").exists()


def test_divergence_ends_with_exit_code_3_and_keeps_the_last_good_checkpoint(app: App, tmp_path):
    arguments = [*SMALL, "optimizer=sgd", "optimizer.lr=1e30", "epochs=3", "name=run"]
    assert app(*arguments, "max_steps=1").returncode == 0
    diverged = app(*arguments, "log.every_steps=1")
    assert diverged.returncode == 3 and "Traceback" not in diverged.stderr
    last = diverged.stderr.splitlines()[-1]
    assert "error: diverged at step 1 with lr 1" in last and "no finite gradient of conv1.weight" in last
    assert checkpoint.newest_first(tmp_path / "runs" / "run" / "checkpoints")[0].name.startswith("step-000000001-")


def test_other_images_under_the_same_name_are_refused(app: App, tmp_path):
    from PIL import Image

    for root, count in (("one", 4), ("other", 5)):
        for split in ("train", "val"):
            for label in "ab":
                (tmp_path / root / split / label).mkdir(parents=True)
                for i in range(count):
                    Image.new("RGB", (64, 48), "red").save(tmp_path / root / split / label / f"{i}.jpg")
    arguments = [
        "model=resnet8", "data.size=32", "data.resize=40", "batch.total=4", "batch.micro=4", "epochs=2", "name=run",
        "data.workers=0",
    ]  # fmt: skip
    assert app(f"data.root={tmp_path}/one", *arguments, "max_steps=1").returncode == 0
    refused = app(f"data.root={tmp_path}/other", *arguments)
    assert refused.returncode == 2 and "was begun on other images than data.root holds now" in refused.stderr
    (tmp_path / "one").rename(tmp_path / "moved")
    assert app(f"data.root={tmp_path}/moved", *arguments).returncode == 0


def test_a_run_resumed_before_a_due_evaluation_makes_it_and_goes_on(app: App, tmp_path):
    arguments = [*SMALL, "epochs=2", "name=run", "log.layers_every_epochs=1"]
    assert app(*arguments, "max_steps=4").returncode == 0
    run = tmp_path / "runs" / "run"
    folder = run / "checkpoints"
    # as a kill between the epoch's last step and its row leaves it
    state = checkpoint.load(checkpoint.newest_first(folder)[0])
    state["position"]["rows"] = 0
    for path in folder.iterdir():
        path.unlink()
    writer = checkpoint.Writer(folder, keep=2)
    writer.save(4, state)
    writer.wait()
    resumed = app(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert [row["epoch"] for row in rows(run)] == [1, 2]
