"""How all ranks agree to stop, and what that costs a step."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from scripts import soak
from tests.helpers import MAIN, SMALL, build, join, plan_for, spawn
from train import app
from train.config.compose import compose
from train.engine.stop import VOTE_SECONDS, StopRequested, StopVotes
from train.output import checkpoint
from train.processes.world import World

SETTLED = 4  # steps after which DDP has its buckets and the time of a step has come round


def count_collectives(rank: int, size: int, port: int, out: Path) -> None:
    """The collectives of three short steps at each accumulation, by gloo's own count, and DDP's buckets."""
    world, data, _, model, _ = build(rank, size, port)
    said = {}
    for accumulation in (1, 8):
        config = compose(*SMALL, "batch.micro=4", f"batch.total={4 * size * accumulation}")
        plan = plan_for(config, data.train_images, size)
        step, counts = app.connect_step(config, plan, world, model), []
        taken = list(islice(data.make_loader(world, 0).training_batches(plan, 0, 0), plan.accumulation))
        for _ in range(SETTLED + 3):
            before = dist.group.WORLD._get_sequence_number_for_group()
            step(step.votes.within(taken), lr=0.0)
            step.votes.after_step(seconds=0.2)
            counts.append(dist.group.WORLD._get_sequence_number_for_group() - before)
        assert isinstance(step.model, DistributedDataParallel)
        buckets = step.model._get_ddp_logging_data()["bucket_sizes"].split(",")
        said[len(taken)] = counts[SETTLED:], len(buckets)
    (out / f"{rank}.json").write_text(json.dumps(said))
    world.leave()


def test_a_short_step_has_one_collective_beside_the_gradients_whatever_its_accumulation(tmp_path: Path):
    spawn(count_collectives, 2, tmp_path)
    for rank in range(2):
        said = json.loads((tmp_path / f"{rank}.json").read_text())
        assert said.keys() == {"1", "8"}
        assert all(counts == [buckets + 1] * 3 for counts, buckets in said.values()), said


SECONDS = [0.2, 4.0, 6.0, 267.0]
ASKED_STEP, ASKED_AT, MICRO_BATCHES = 5, 100, 267


def vote(rank: int, size: int, port: int, out: Path) -> None:
    """Where this rank stops, for steps of so many ``SECONDS``, by a clock that is only told."""
    world = join(rank, size, port)
    (out / f"{rank}.json").write_text(json.dumps([stopped_at(rank, world, seconds) for seconds in SECONDS]))
    world.leave()


def stopped_at(rank: int, world: World, seconds: float) -> tuple[int, int]:
    """Step and micro-batch at which a rank stops when rank 1 alone is asked to, in the middle of a step."""
    now = (0, 0)
    votes = StopVotes(world, lambda: rank == 1 and now >= (ASKED_STEP, ASKED_AT))
    try:
        for step in range(ASKED_STEP + 4):
            for number, _ in enumerate(votes.within([()] * MICRO_BATCHES)):  # type: ignore[list-item]
                now = (step, number)
            votes.count(world.total(votes.ballot(torch.device("cpu"))), MICRO_BATCHES)
            now = (step + 1, 0)
            votes.after_step(seconds)
    except StopRequested:
        # the next run of steps begins without a vote in flight
        world.vote(False)
    return now


def test_all_ranks_stop_at_the_same_point_within_15_seconds_of_the_signal(tmp_path: Path):
    spawn(vote, 2, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for seconds, (step, micro_batch) in zip(SECONDS, first, strict=True):
        passed = (step - ASKED_STEP) + (micro_batch - ASKED_AT) / MICRO_BATCHES
        assert 0 < passed * seconds <= 15
        # after a whole step where they are short
        assert (micro_batch == 0) == (seconds < VOTE_SECONDS)


@pytest.mark.slow
def test_sigterm_ends_two_processes_within_30_seconds_though_a_step_takes_longer(tmp_path: Path):
    """Steps of 400 micro-batches of a ResNet-50. The unfinished one is dropped."""
    command = [
        sys.executable, str(MAIN), *SMALL, "data.train_per_class=800", "model=resnet50", "data.size=64",
        "batch.total=6400", "batch.micro=8", "epochs=3", "nproc=2", "name=run", "checkpoint.every_minutes=0",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    while not checkpoint.newest_first(tmp_path / "runs/run/checkpoints"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    assert time.monotonic() - began > 30
    # in the middle of the next
    time.sleep(15)
    for worker in soak.children(process.pid)[1:]:
        os.kill(worker, signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 75 and "stopped after step" in said, said


def test_a_single_process_asks_itself_on_every_micro_batch():
    votes = StopVotes(World(), lambda: True)
    with pytest.raises(StopRequested):
        next(votes.within([()] * 4))  # type: ignore[list-item]
