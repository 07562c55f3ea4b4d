"""One process, two processes, two machines: the same weights, the same statistics, the same scores."""

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.conftest import MAIN, ROOT, SMALL, App
from train import config
from train.batchnorm import RunningStatistics
from train.data import loader, open_data
from train.main import composed
from train.schedule import schedule_of
from train.step import Arithmetic, evaluate, train_step
from train.world import World

STEPS = 5


def build(rank: int, size: int, port: int, *overrides: str) -> tuple:
    """The app's own parts on one of ``size`` processes: world, data, plan, model and settings."""
    from train import app

    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="localhost", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    settings = composed(*SMALL, *overrides)
    world = World.join() if size > 1 else World()
    data = open_data(settings.data)
    plan = config.make_plan(settings, data.train_images, size)
    return world, data, plan, app.build_model(settings, data.classes, world), settings


def train_five_steps(rank: int, size: int, port: int, out: Path, fault: str) -> None:
    """What each process runs: the app's own parts, five LARS steps; ``fault`` breaks one of them."""
    from train.optimizer import make_optimizer

    # at the preset's 29, what rounds differently grows to 1e-4 in five steps
    world, data, plan, model, settings = build(rank, size, port, "optimizer.lr=3")
    forward = world.data_parallel(model)
    if fault == "gradients summed" and isinstance(forward, DistributedDataParallel):
        forward.register_comm_hook(None, _sum)
    if fault == "no sync on the last micro-batch" and isinstance(forward, DistributedDataParallel):
        forward.require_backward_grad_sync = False
    optimizer = make_optimizer(model, settings.optimizer)
    lr = schedule_of(settings, plan)
    statistics = RunningStatistics(model, world)
    batches = data.make_loader(plan, settings.seed, world)
    seen_by = (lambda *a: loader.micro_batches(*a[:-1], 0)) if fault == "ranks see one rank's images" else None
    with mock.patch("train.data.memory.micro_batches", seen_by or loader.micro_batches):
        for step in range(STEPS):
            epoch, first = divmod(step, plan.steps_per_epoch)
            stream = batches.train(epoch, first)
            taken = [next(stream) for _ in range(plan.accumulation)]
            train_step(
                forward, optimizer, taken, plan.accumulation, statistics, world, Arithmetic(world.device),
                lr=lr(step), smoothing=0.0,
            )  # fmt: skip
    torch.save(model.state_dict(), out / f"{fault}-{size}-{rank}.pt")
    world.leave()


def _sum(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0])


def spawn(function: Callable[..., None], size: int, *arguments: object) -> None:
    context = torch.multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=function, args=(rank, size, free_port_of(function, size), *arguments))
        for rank in range(size)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0


@functools.cache
def free_port_of(_function: object, _size: int) -> int:
    return free_port()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


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


def score(rank: int, size: int, port: int, out: Path) -> None:
    """One evaluation of an untrained network over 160 images, which three processes do not divide."""
    world, data, plan, model, settings = build(rank, size, port, "batch.total=96", "data.val_per_class=20")
    loader_ = data.make_loader(plan, settings.seed, world)
    scores = evaluate(model, loader_.validation(), world, Arithmetic(world.device))
    assert scores is not None
    torch.save(vars(scores), out / f"{size}-{rank}.pt")
    world.leave()


def test_evaluation_counts_every_image_once_when_processes_do_not_divide_them(tmp_path):
    for size in (1, 3):
        spawn(score, size, tmp_path)
    one, three = (torch.load(tmp_path / f"{size}-0.pt") for size in (1, 3))
    assert one["images"] == three["images"] == 160
    assert one == pytest.approx(three, rel=1e-5)


def test_running_statistics_follow_the_micro_batches_in_global_order():
    """Against BatchNorm itself on one process, with unequal micro-batches so that order matters."""
    torch.manual_seed(0)
    micro_batches = [torch.randn(4, 3, 2, 2) * (i + 1) + i for i in range(6)]
    expected = torch.nn.BatchNorm2d(3)
    models = [torch.nn.BatchNorm2d(3) for _ in range(3)]
    for step in range(2):
        for x in micro_batches:
            expected(x + step)
        flats: list[torch.Tensor] = []
        worlds = [World(rank, 3) for rank in range(3)]
        statistics = [RunningStatistics(m, w) for m, w in zip(models, worlds, strict=True)]
        for rank, (model, stats) in enumerate(zip(models, statistics, strict=True)):
            stats.begin()
            for x in micro_batches[2 * rank : 2 * rank + 2]:
                model(x + step)
        with mock.patch.object(World, "total", lambda _, x, to=flats: to.append(x.clone())):
            for stats in statistics:
                stats.combine(2)
        total = torch.stack(flats).sum(0)
        for model in models:
            model.running_mean.copy_(total[:3])
            model.running_var.copy_(total[3:])
    for model in models:
        torch.testing.assert_close(model.running_mean, expected.running_mean)
        torch.testing.assert_close(model.running_var, expected.running_var)
        assert model.num_batches_tracked == expected.num_batches_tracked == 12


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


def test_nproc_starts_the_processes_by_itself_and_a_sweep_follows_job_after_job(app: App, tmp_path: Path):
    done = app("-m", *SMALL, "epochs=1", "nproc=2", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("x 2 processes") == done.stdout.count("finished: ") == 2
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2


AFTER_LEAVING = """
import os, torch
from torch.nn.parallel import DistributedDataParallel
from train.world import World

def threads():
    return [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]

world = World.join()
world.size = 2  # of which this is one: the votes of `agree` are reduced
model = DistributedDataParallel(torch.nn.Linear(2, 2))
model(torch.ones(1, 2)).sum().backward()
world.agree(False)
assert any("gloo" in name for name in threads())
del model
world.leave()
assert not any("gloo" in name for name in threads()), threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are read from /proc")
def test_no_thread_of_the_process_group_outlives_it():
    environment = {
        **os.environ, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    command = [sys.executable, "-c", AFTER_LEAVING]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
