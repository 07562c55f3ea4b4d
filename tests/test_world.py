"""One process and two take the same steps; a lost process is noticed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from itertools import islice
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from scripts import soak
from tests.helpers import MAIN, SMALL, App, build, image_folder, join, rows, spawn
from train import app
from train.config.compose import compose
from train.data import loader
from train.errors import UserError
from train.processes.signals import StopRequest
from train.processes.world import World
from train.processes.world import _set_timeout as set_timeout
from train.schedule import make_schedule

STEPS = 5


def train_five_steps(rank: int, size: int, port: int, out: Path, fault: str) -> None:
    """What each process runs: the app's own parts, five LARS steps; ``fault`` breaks one of them."""
    # at the preset's 29, what rounds differently grows to 1e-4 in five steps
    world, data, plan, model, settings = build(rank, size, port, "optimizer.lr=3")
    step = app.connect_step(settings, plan, world, model)
    forward = step.model
    if fault == "gradients summed" and isinstance(forward, DistributedDataParallel):
        forward.register_comm_hook(None, _sum)
    if fault == "no sync on the last micro-batch" and isinstance(forward, DistributedDataParallel):
        forward.require_backward_grad_sync = False
    lr = make_schedule(settings.schedule, settings.optimizer.lr, plan)
    batches = data.make_loader(world, settings.seed)
    deal = loader.micro_batches
    seen_by = (lambda *a: deal(*a[:-1], 0)) if fault == "ranks see one rank's images" else deal
    with mock.patch("train.data.loader.micro_batches", seen_by):
        for number in range(STEPS):
            epoch, first = divmod(number, plan.steps_per_epoch)
            stream = batches.training_batches(plan, epoch, first)
            step(islice(stream, plan.accumulation), lr(number))
    torch.save(model.state_dict(), out / f"{fault}-{size}-{rank}.pt")
    world.leave()


def _sum(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0])


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest relative distance of any tensor in ``a`` and ``b``."""
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).norm() / a[k].double().norm().clamp_min(1e-12)) for k in a)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("alone")
    spawn(train_five_steps, 1, out, "none")
    return torch.load(out / "none-1-0.pt")


def test_two_processes_take_the_same_five_lars_steps_as_one(alone, tmp_path):
    spawn(train_five_steps, 2, tmp_path, "none")
    first, second = (torch.load(tmp_path / f"none-2-{rank}.pt") for rank in (0, 1))
    assert difference(alone, first) < 1e-4
    assert difference(first, second) == 0
    assert alone["bn1.num_batches_tracked"] == first["bn1.num_batches_tracked"] == 4 * STEPS


@pytest.mark.parametrize(
    "fault", ["gradients summed", "ranks see one rank's images", "no sync on the last micro-batch"]
)
def test_the_comparison_with_one_process_finds(fault, alone, tmp_path):
    spawn(train_five_steps, 2, tmp_path, fault)
    assert difference(alone, torch.load(tmp_path / f"{fault}-2-0.pt")) > 1e-3


def open_own(rank: int, size: int, port: int, out: Path) -> None:
    """Each rank opens a folder of its own, as with copies on the disks of two machines."""
    world = join(rank, size, port)
    config = compose(
        "batch=8k", "batch.total=12", "batch.micro=6", "epochs=1", f"data.root={out}/{rank}", f"runs_dir={out}/runs",
        "name=run", "data.workers=0", "model=resnet8", "data.size=32",
    )  # fmt: skip
    said = ""
    try:
        app.train(config, world, StopRequest(), "test")
    except UserError as error:
        said = f"{error.is_said_elsewhere} {error}"
    (out / f"said{rank}").write_text(said)
    world.leave()


def test_processes_that_open_other_images_end_before_training(tmp_path: Path):
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        image_folder(tmp_path / str(rank))
    lost = next((tmp_path / "1" / "train").glob("*/*"))
    lost.rename(lost.with_name("another.JPEG"))
    spawn(open_own, 2, tmp_path)
    said = [(tmp_path / f"said{rank}").read_text() for rank in range(2)]
    assert said[0].startswith("True data.root holds other images for process 1") and said[1].startswith("False data")
    assert not (tmp_path / "runs").exists()


def run_with(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, MAIN, *SMALL, "epochs=1", *arguments],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_launcher_that_starts_one_process_on_a_machine_may_leave_the_local_rank_out(tmp_path: Path):
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29611"}
    done = run_with({"RANK": "0", "WORLD_SIZE": "1", **address}, tmp_path, "max_steps=1")
    assert done.returncode == 0, done.stderr
    assert run_with({"RANK": ""}, tmp_path, "no_such_key=1").returncode == 2


def test_a_process_whose_peers_never_come_ends_in_one_line(tmp_path: Path):
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29612"}
    done = run_with({"RANK": "0", "WORLD_SIZE": "2", **address}, tmp_path, "timeout_minutes=0.05")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "process 0 of 2 cannot join the others at localhost:29612" in done.stderr


def wait_alone(rank: int, size: int, port: int, out: Path) -> None:
    """Rank 0 waits on a device for rank 1, which comes late; gloo stands for NCCL, which has the same interface."""
    world = join(rank, size, port)
    set_timeout(world.device, timedelta(seconds=1))
    said = ""
    if rank == 0:
        with contextlib.suppress(RuntimeError):
            world.total(torch.ones(1))
            said = "waited"
        (out / "said").write_text(said)
    else:
        while not (out / "said").exists():
            time.sleep(0.1)
    # the group is broken: its own timeout is 30 minutes
    os._exit(0)


def test_collectives_of_one_device_can_have_a_shorter_timeout_than_the_group(tmp_path: Path):
    spawn(wait_alone, 2, tmp_path)
    assert (tmp_path / "said").read_text() == ""


@pytest.mark.parametrize(("visible", "index"), [(8, 3), (1, 0)])
def test_a_process_takes_the_gpu_of_its_local_rank_or_the_only_one_that_it_sees(visible: int, index: int):
    with (
        mock.patch("torch.cuda.is_available", lambda: True),
        mock.patch("torch.cuda.device_count", lambda: visible),
    ):
        assert World(rank=11, size=16, local_rank=3, local_size=8).device == torch.device("cuda", index)


THREADS_AT_EXIT = """
import atexit, os

def note():
    names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    open(f"threads-{os.environ['RANK']}", "w").writelines(names)

if "RANK" in os.environ and not os.path.exists(f"threads-{os.environ['RANK']}"):
    open(f"threads-{os.environ['RANK']}", "w").close()
    atexit.register(note)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are read from /proc")
@pytest.mark.parametrize(("end", "code"), [
    ("max_steps=6", 0), pytest.param("optimizer.lr=1e30", 3, marks=pytest.mark.slow),
])  # fmt: skip
def test_no_thread_of_the_process_group_outlives_it(app: App, tmp_path: Path, monkeypatch, end: str, code: int):
    # Python would abort on a thread that frees a tensor while it exits.
    (tmp_path / "sitecustomize.py").write_text(THREADS_AT_EXIT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = app(*SMALL, "epochs=2", "nproc=2", "optimizer=sgd", end)
    assert done.returncode == code, done.stderr
    for rank in range(2):
        names = (tmp_path / f"threads-{rank}").read_text().split()
        assert names and not any("gloo" in name for name in names), names


@pytest.mark.slow
def test_torchrun_brings_back_a_killed_worker(tmp_path: Path):
    tally = soak.Soak(tmp_path)
    assert tally.max_restarts() == 1
    assert not tally.leavings()


def test_a_process_that_waits_in_vain_says_for_what(tmp_path: Path):
    command = [sys.executable, str(MAIN), *SMALL, "epochs=400", "nproc=2", "timeout_minutes=0.1", "name=run"]
    said = tmp_path / "said"
    with said.open("w") as stderr:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=stderr)
    while not (tmp_path / "runs/run/log.jsonl").exists() or not rows(tmp_path / "runs/run"):
        assert process.poll() is None
        time.sleep(0.05)
    stopped = soak.children(process.pid)[1]
    os.kill(stopped, signal.SIGSTOP)
    while "error: " not in said.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(stopped, signal.SIGKILL)  # else the launcher, whose SIGTERM it cannot hear, does so after 30 s
    assert process.wait(timeout=60) == 2
    (line,) = [line for line in said.read_text().splitlines() if line.startswith("error: ")]
    assert "of 2 lost the others while" in line and "start the same command again" in line
    assert "Traceback" not in said.read_text()
