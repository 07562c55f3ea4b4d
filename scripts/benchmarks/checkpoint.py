"""What checkpoints cost: how long a step is held, processor time of writing, images/s with one a minute and none."""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch

from scripts.benchmarks.clock import now
from scripts.benchmarks.figures import spread, write
from scripts.benchmarks.training import settings
from train import app
from train.data.kinds import open_data
from train.output.checkpoint import CheckpointWriter
from train.plan import make_plan
from train.processes.world import World

SECONDS = 60  # of a segment, with one checkpoint or none


class Counted(CheckpointWriter):
    """Notes the processor seconds that each checkpoint takes to write."""

    def __init__(self, folder: Path, keep: int) -> None:
        super().__init__(folder, keep)
        self.busy: list[float] = []

    def _write(self, kind: str) -> None:
        began = time.thread_time()
        super()._write(kind)
        self.busy.append(time.thread_time() - began)


def measure(rounds: int) -> None:
    """ResNet-50 with LARS, whose weights and momentum make a checkpoint of 205 MB, on images of 32 pixels."""
    chosen = settings("batch=32k", "model=resnet50", "batch.total=64", "batch.micro=64")
    world, data = World(), open_data(chosen.data)
    plan = make_plan(chosen.batch, chosen.epochs, data.train_images, 1)
    model = app.build_model(chosen, data.classes, world)
    step = app.connect_step(chosen, plan, world, model)
    batches = itertools.cycle(itertools.islice(data.make_loader(world, 0).training_batches(plan, 0, 0), 8))

    def segment(writer: CheckpointWriter | None) -> float:
        began, images = now(), 0
        if writer:
            held = now()
            writer.save(1, {"model": model.state_dict(), "optimizer": step.optimizer.state_dict()})
            stalls.append(time.perf_counter() - held)
        while time.perf_counter() - began < SECONDS:
            step([next(batches)], lr=1e-3)
            images += plan.total
        if writer:
            writer.wait()
        return images / (now() - began)

    stalls: list[float] = []
    speeds: dict[str, list[float]] = {"with a checkpoint": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        writer = Counted(Path(folder), keep=2)
        segment(writer)
        stalls.clear()
        writer.busy.clear()
        for number in range(rounds):
            kinds = {"with a checkpoint": writer, "without": None}
            # neither is always the first
            for name in sorted(kinds, reverse=bool(number % 2)):
                speeds[name].append(segment(kinds[name]))
        size = next(Path(folder).glob("*.pt")).stat().st_size
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    # even if training stood still while the other thread computes
    most = (statistics.median(stalls) + statistics.median(writer.busy)) / SECONDS
    print(f"{size / 1e6:.0f} MB; a step is held for {1000 * statistics.median(stalls):.0f} ms")
    print(f"writing takes {statistics.median(writer.busy):.2f} s of a core")
    print(f"one in {SECONDS} s costs {100 * most:.2f} % at most")
    print(f"images/s with one in {SECONDS} s / without: {[round(r, 3) for r in ratios]}")
    write(
        "checkpoint",
        {
            "what": f"ResNet-50 on {torch.get_num_threads()} threads, one checkpoint in {SECONDS} s against none",
            "checkpoint_bytes": size,
            "step_is_held_seconds": spread(stalls),
            "writing_takes_core_seconds": spread(writer.busy),
            "share_of_time_at_most": most,
            "images_per_second": {name: spread(values) for name, values in speeds.items()},
            "ratio": spread(ratios),
        },
    )
