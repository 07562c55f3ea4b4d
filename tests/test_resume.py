"""A run that was stopped, killed or moved continues as if nothing had happened."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from select import select

import pytest
import torch

from scripts import soak
from tests.helpers import MAIN, SMALL, App, assert_same_run, image_folder, rows, start_and_signal
from train.errors import Stopped
from train.output import checkpoint
from train.output.files import mark_stopped

SIGNAL_AT_THE_END = """
import os, signal
from train.engine.logger import Logger

class Ending(Logger):
    def __init__(self, run):
        pass

    def close(self, is_over):
        os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_stopped_at_any_step_equals_uninterrupted_bit_for_bit(app: App, tmp_path, uninterrupted, stop_at):
    """Step 4 is the end of an epoch, steps 2 and 7 are in the middle of one."""
    stopped = app(*SMALL, "epochs=6", "name=run", f"max_steps={stop_at}")
    assert stopped.returncode == 0 and "unfinished" in stopped.stdout
    assert not (tmp_path / "runs" / "run" / "result.json").exists()
    resumed = app(*SMALL, "epochs=6", "name=run")
    assert resumed.returncode == 0 and f"after step {stop_at}" in resumed.stdout, resumed.stderr
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


@pytest.mark.slow
def test_three_processes_that_were_stopped_equal_uninterrupted_ones_bit_for_bit(app: App, tmp_path: Path):
    """Two add up to the same in either order, and three do not."""
    arguments = [*SMALL, "batch.total=96", "epochs=2", "nproc=3"]
    assert app(*arguments, "name=whole").returncode == 0
    assert app(*arguments, "name=cut", "max_steps=3").returncode == 0
    assert app(*arguments, "name=cut").returncode == 0
    assert_same_run(tmp_path / "runs" / "whole", tmp_path / "runs" / "cut")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_saves_and_exits_75_and_the_same_command_goes_on(app: App, tmp_path, uninterrupted, number):
    code, said = start_and_signal(tmp_path, number, *SMALL, "epochs=6", "name=run")
    assert code == 75 and "everything is saved" in said and "Traceback" not in said
    assert (tmp_path / "runs" / "run" / "stopped").exists()
    assert app(*SMALL, "epochs=6", "name=run").returncode == 0
    assert not (tmp_path / "runs" / "run" / "stopped").exists()
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


@pytest.mark.parametrize("nproc", [1, 2])
def test_a_closed_terminal_is_a_signal_that_saves(tmp_path: Path, nproc: int):
    arguments = [str(MAIN), *SMALL, "epochs=400", f"nproc={nproc}", "name=run"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, *arguments])
    said = b""
    while not (log := tmp_path / "runs/run/log.jsonl").exists() or not log.stat().st_size:
        if select([terminal], [], [], 0.05)[0]:
            said += os.read(terminal, 1 << 16)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75, said.decode()
    assert "everything is saved" in (tmp_path / "runs/run/stopped").read_text()


def test_a_signal_saves_when_it_has_ended_the_reader_of_the_output_too(tmp_path: Path):
    """As Ctrl-C does with ``| tee FILE``; before it, the run goes on."""
    arguments = [str(MAIN), *SMALL, "epochs=400", "name=run"]
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout and b"run" in process.stdout.readline()
    process.stdout.close()
    while not (log := tmp_path / "runs/run/log.jsonl").exists() or log.read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 75
    assert "everything is saved" in (tmp_path / "runs/run/stopped").read_text()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">/dev/full", "2>/dev/full"])
def test_a_run_needs_no_output(tmp_path: Path, closed: str):
    command = f"exec {sys.executable} {MAIN} {' '.join(SMALL)} epochs=1 name=run {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "runs/run/result.json").exists()


def test_a_signal_to_the_launcher_stops_all_processes_with_75(app: App, tmp_path):
    arguments = [*SMALL, "epochs=40", "nproc=2", "name=run"]
    code, said = start_and_signal(tmp_path, signal.SIGTERM, *arguments)
    assert code == 75 and said.count("everything is saved") == 1 and "Traceback" not in said, said
    assert "after step" in app(*arguments, "max_steps=1").stdout


@pytest.mark.slow
def test_a_signal_while_two_processes_start_to_resume_exits_75(app: App, tmp_path: Path):
    arguments = [*SMALL, "epochs=40", "nproc=2", "name=run"]
    assert app(*arguments, "max_steps=2").returncode == 0
    process = subprocess.Popen([sys.executable, str(MAIN), *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not soak.children(process.pid):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in said, said


def test_a_signal_after_the_last_step_of_a_job_ends_the_sweep(app: App, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "ending.py").write_text(SIGNAL_AT_THE_END)
    arguments = [*SMALL, "epochs=1", "seed=0,1", "logger=[ending:Ending]"]
    done = app("-m", *arguments)
    assert done.returncode == 75 and "the run is finished" in done.stderr, done.stderr
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1


def test_a_signal_before_the_imports_are_done_exits_75_in_one_line():
    code = "import os; from train.processes.signals import leave_at_once; leave_at_once(); os.kill(os.getpid(), 2)"
    done = subprocess.run([sys.executable, "-c", code], cwd=MAIN.parents[1], capture_output=True, text=True)
    assert done.returncode == 75 and done.stderr.splitlines() == [
        "stopped by SIGINT before training began: start the same command again"
    ]


def test_a_signal_before_the_folder_is_claimed_marks_an_unfinished_run_unless_it_is_in_use(tmp_path: Path):
    mark_stopped(tmp_path, Stopped("stopped"))
    assert not (tmp_path / "stopped").exists()
    (tmp_path / "log.jsonl").touch()
    with open(tmp_path / "lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark_stopped(tmp_path, Stopped("stopped"))
        assert not (tmp_path / "stopped").exists()
    mark_stopped(tmp_path, Stopped("stopped"))
    assert (tmp_path / "stopped").exists()


def test_killed_run_goes_on_from_its_checkpoint(app: App, tmp_path, uninterrupted):
    arguments = [*SMALL, "epochs=6", "name=run", "checkpoint.every_minutes=0"]
    code, _ = start_and_signal(tmp_path, signal.SIGKILL, *arguments)
    assert code == -signal.SIGKILL
    resumed = app(*arguments)
    assert resumed.returncode == 0 and "after step" in resumed.stdout
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


@pytest.mark.slow
def test_two_one_and_two_processes_end_as_one(app: App, tmp_path: Path):
    # at larger learning rates rounding alone grows to more in 20 steps
    arguments = [*SMALL, "epochs=5", "optimizer.lr=0.1", "name=run"]
    for name, stops in (("moved", ((2, 7), (1, 14), (2, 20))), ("still", ((1, 20),))):
        for processes, stop in stops:
            done = app(*arguments, f"runs_dir={name}", f"nproc={processes}", f"max_steps={stop}")
            assert done.returncode == 0, done.stderr
    ends = [torch.load(tmp_path / name / "run/weights.pt") for name in ("moved", "still")]
    for key, a in ends[0].items():
        b = ends[1][key]
        assert (a.double() - b.double()).norm() <= 1e-4 * b.double().norm(), key
    assert [row["step"] for row in rows(tmp_path / "moved/run")] == [4, 8, 12, 16, 20]


def test_a_second_interrupt_leaves_at_once_and_the_last_checkpoint_is_intact(tmp_path: Path):
    # a micro-batch of some seconds
    arguments = [*SMALL, "model=resnet50", "data.size=96", "batch.micro=128", "epochs=3", "name=run"]
    process = subprocess.Popen([sys.executable, str(MAIN), *arguments, "checkpoint.every_minutes=0"], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    while not checkpoint.newest_first(tmp_path / "runs/run/checkpoints"):
        assert process.poll() is None
        time.sleep(0.05)
    # While torch computes, Python's handler waits, and signals that arrive meanwhile count as one.
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 75 and "leaving at once; the last checkpoint is intact" in said
    assert checkpoint.load_newest(tmp_path / "runs/run/checkpoints")[1] == []


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def family(pid: int) -> list[int]:
    found = [pid]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += family(int(child))
    return found


def test_memory_is_flat_and_nothing_is_left_behind(tmp_path: Path):
    image_folder(tmp_path / "root")
    command = [
        sys.executable, str(MAIN), f"data.root={tmp_path}/root", "model=resnet8", "data.size=32", "data.resize=40",
        "batch.total=12", "batch.micro=6", "epochs=400", "name=run", "precision=fp32", "data.workers=2",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, sizes = tmp_path / "runs/run/log.jsonl", {}
    while len(sizes) < 6:
        assert process.poll() is None
        epochs = len(log.read_text().splitlines()) if log.exists() else 0
        if epochs >= 15 + 8 * len(sizes):
            sizes[epochs] = {pid: resident(pid) for pid in family(process.pid)}
        time.sleep(0.02)
    members = family(process.pid)
    first, *later = sizes.values()
    for size in later:
        assert size.keys() == first.keys()
        assert all(size[pid] <= 1.02 * first[pid] + 256 for pid in size), (first, size)
    shared = set().union(*(shared_memory(pid) for pid in members))
    assert shared
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/statm").exists() and resident(pid) for pid in members[1:]):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)
    assert not shared & set(os.listdir("/dev/shm"))


def shared_memory(pid: int) -> set[str]:
    """Names in /dev/shm that the process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split("/dev/shm/")[1] for line in lines if "/dev/shm/" in line and "(deleted)" not in line}


def test_same_run_helper_sees_a_difference(tmp_path: Path, app: App):
    for seed in (0, 1):
        app(*SMALL, "epochs=1", f"seed={seed}", f"name=run{seed}")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "runs/run0", tmp_path / "runs/run1")
