"""How many processes a run takes on a machine, and how they start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from tests.helpers import MAIN, SMALL, App, free_port
from train.config.compose import compose
from train.config.overrides import parse
from train.errors import UserError
from train.processes.launch import launch, process_count
from train.processes.signals import STOP_SIGNALS, StopRequest


@pytest.mark.parametrize(
    ("gpus", "overrides", "count", "remark"),
    [
        (0, [], 1, ""),
        (1, [], 1, ""),
        (8, ["data=imagenet"], 8, ""),
        (6, ["data=imagenet"], 4, "GPU 4, 5 idle"),
        (8, ["batch=32k"], 8, ""),
        (3, ["batch=32k"], 2, "using 2 of 3 GPUs"),
        (8, ["batch=256"], 1, "using 1 of 8 GPUs"),
        (0, ["nproc=4"], 4, ""),
        (8, ["data=imagenet", "nproc=2"], 2, ""),
    ],
)
def test_every_gpu_is_used_that_divides_the_batch(gpus, overrides, count, remark):
    config = compose(*overrides)
    processes, said = process_count(config.nproc, config.batch, gpus)
    assert processes == count and remark in said and bool(said) == bool(remark)


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(UserError, match="nproc=9 is more than the 8 GPUs of this machine: use nproc=8"):
        process_count(9, compose("data=imagenet").batch, 8)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """``launch`` leaves the signals that stop a run ignored."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("is_finished", "code"), [(True, 0), (False, 75)])
def test_a_signal_that_meets_a_worker_in_its_last_moment_leaves_a_finished_run_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_finished: bool, code: int
):
    """While Python ends, its handlers are gone and a signal ends the process at once."""

    def run(_settings: object) -> None:
        raise ChildFailedError("main.py", {1: ProcessFailure(1, 1, -signal.SIGTERM, "none")})

    monkeypatch.setattr("torch.distributed.run.run", run)
    if is_finished:
        (tmp_path / "result.json").touch()
    assert launch(2, [], tmp_path, StopRequest()) == code


@pytest.mark.parametrize("ranks", [(0, 1), (1, 0)])
def test_a_worker_that_a_signal_stopped_is_the_cause_whoever_lost_it(tmp_path: Path, monkeypatch, ranks):
    """The other one may end within the second by which torchrun orders failures."""

    def run(_settings: object) -> None:
        lost, stopped = ranks
        raise ChildFailedError(
            "main.py", {lost: ProcessFailure(lost, 1, 2, "none"), stopped: ProcessFailure(stopped, 2, 75, "none")}
        )

    monkeypatch.setattr("torch.distributed.run.run", run)
    assert launch(2, [], tmp_path, StopRequest()) == 75


def test_each_job_of_a_sweep_over_nproc_has_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    threads = []
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("train.processes.launch.cores", lambda shared_by: 16 // shared_by)
    monkeypatch.setattr("torch.distributed.run.run", lambda _settings: threads.append(os.environ["OMP_NUM_THREADS"]))
    assert [launch(processes, [], tmp_path, StopRequest()) for processes in (2, 4)] == [0, 0]
    assert threads == ["8", "4"] and "OMP_NUM_THREADS" not in os.environ


def test_two_torchrun_agents_train_as_one_job(tmp_path: Path):
    port = free_port()
    agent = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "test",
        str(MAIN), *SMALL, "epochs=1", "name=two-nodes",
    ]  # fmt: skip
    agents = [
        subprocess.Popen(agent, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [a.communicate(timeout=240)[0] for a in agents]
    assert [a.returncode for a in agents] == [0, 0], said
    assert "".join(said).count("x 2 processes") == 1
    run = tmp_path / "runs" / "two-nodes"
    assert len((run / "log.jsonl").read_text().splitlines()) == 1 and (run / "result.json").exists()


def test_torchrun_with_two_processes_shares_one_run_folder(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(MAIN),
    ]
    done = subprocess.run([*command, *SMALL, "epochs=1"], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    assert len(list((tmp_path / "runs").iterdir())) == 1
    refused = subprocess.run([*command, "-m", "batch=256,8k"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.count("error: -m under torchrun") == 1
    with pytest.raises(UserError, match="^-m under torchrun"):
        parse(["hydra.mode=MULTIRUN", "seed=0,1"], under_torchrun=True)


def test_nproc_starts_the_processes_by_itself_and_a_sweep_follows_job_after_job(app: App, tmp_path: Path):
    done = app("-m", *SMALL, "epochs=1", "nproc=2", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("x 2 processes") == done.stdout.count("finished: ") == 2
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2
