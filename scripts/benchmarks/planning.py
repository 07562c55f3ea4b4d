"""The model of scripts/plan.py against this machine: one and two gloo processes of one core each."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from scripts.benchmarks.figures import spread, write
from scripts.estimate.cost import BUCKET, cost_of, speed_of
from scripts.estimate.machine import compose_machine
from scripts.estimate.one_run import footprint_of
from train.config.compose import compose
from train.plan import make_plan

MAIN = Path(__file__).parents[2] / "train" / "main.py"
# ResNet-8 sums 0.3 MB for a long micro-batch, ResNet-50 on 32 pixels 94 MB for a short one
CASES = {
    "ResNet-8, 512 images": ["model=resnet8", "batch.micro=512"],
    "ResNet-50, 32 images": ["model=resnet50", "batch.micro=32"],
}
SMALL, CALLS = 1024, 20  # bytes of an all-reduce that is all latency; and how many are timed
DATA = ["data.classes=64", "data.train_per_class=32", "data.val_per_class=4"]


def measure(rounds: int) -> None:
    """``rounds`` counted epochs of 2,048 images on one process and on two, after one that is not."""
    latency, bandwidth = network()
    print(f"gloo: {1e6 * latency:.0f} us a hop, {bandwidth / 1e9:.2f} GB/s")
    figures: dict[str, object] = {}
    print(f"{'':24}one process, two, predicted for two: images/s")
    for name, case in CASES.items():
        speeds = {processes: images_per_second(case, processes, rounds) for processes in (1, 2)}
        one, two = (statistics.median(speeds[n]) for n in (1, 2))
        predicted = prediction(case, one, latency, bandwidth)
        print(f"{name:24}{one:.1f}, {two:.1f}, {predicted:.1f} ({100 * (predicted / two - 1):+.0f} %)")
        figures[name] = {
            "images_per_second": {f"{n} process{'es' if n > 1 else ''}": spread(v) for n, v in speeds.items()},
            "predicted_for_2": predicted,
            "predicted_over_measured": predicted / two,
        }
    write(
        "plan",
        {
            "what": "images/s of training on 1 and 2 gloo processes of one thread each, and a prediction for "
            "2 from 1 and from the network measured alone",
            "network": {"hop_seconds": latency, "bytes_per_second": bandwidth},
            "cases": figures,
        },
    )


def settings(case: list[str], processes: int) -> list[str]:
    micro = int(case[-1].partition("=")[2])
    return ["batch=32k", "precision=fp32", *DATA, *case, f"batch.total={processes * micro}", f"nproc={processes}"]


def images_per_second(case: list[str], processes: int, rounds: int) -> list[float]:
    """Of every epoch but the first, as the app logs it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(MAIN), *settings(case, processes), f"epochs={rounds + 1}", "name=run"]
        command += [f"runs_dir={folder}", "log.layers_every_epochs=0", "optimizer.lr=0.01"]
        # processes of a core each, whatever else the machine has
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        rows = (Path(folder) / "run" / "log.jsonl").read_text().splitlines()
    return [json.loads(row)["images_per_second"] for row in rows[1:]]


def prediction(case: list[str], one: float, latency: float, bandwidth: float) -> float:
    config = compose(*settings(case, 2))
    machine = replace(
        compose_machine(),
        images_per_second=one,
        fixed_ms=0.0,
        machine_efficiency=1.0,
        inside_gbs=bandwidth / 1e9,
        inside_us=1e6 * latency,
    )
    net = footprint_of(config, 64, 1)
    speed = speed_of(machine, config.batch.micro, net.gmacs)
    plan = make_plan(config.batch, config.epochs, 2048, 2)
    return cost_of(plan, 0, net.gradients, net.statistics, machine, speed).images_per_second


def network() -> tuple[float, float]:
    """Seconds of a hop, and bytes a second of the bus, between two processes that do nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        multiprocessing.spawn(_all_reduce, (path,), nprocs=2)
        small, large = json.loads((path / "seconds.json").read_text())
    # two processes: 2 (n - 1) = 2 hops, and 2 (n - 1) / n = 1 time the bytes
    return small / 2, BUCKET / max(large - small, 1e-9)


def _all_reduce(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    seconds = []
    for size in (SMALL, BUCKET):
        tensor, times = torch.zeros(size // 4), []
        for _ in range(CALLS):
            began = time.perf_counter()
            dist.all_reduce(tensor)
            times.append(time.perf_counter() - began)
        seconds.append(statistics.median(times))
    if rank == 0:
        (folder / "seconds.json").write_text(json.dumps(seconds))
    dist.destroy_process_group()
