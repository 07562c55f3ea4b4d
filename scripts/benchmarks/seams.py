"""Idle time where training passes into an evaluation and back, with a pipeline that drains there and with ours."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import torch
from tqdm import tqdm

from scripts.benchmarks.data import MetaProcess, make_files
from scripts.benchmarks.figures import spread, write
from scripts.benchmarks.training import settings
from train.data.dataset import ILSVRC_2012
from train.data.kinds import open_data
from train.data.loader import Loader, MicroBatch, run_requests
from train.data.randomness import epoch_order
from train.plan import Plan

IMAGES, BATCH, WORKERS = 512, 32, 2
SLOWER = 1.25  # a batch takes the device so many times as long as it takes the workers, which are ahead therefore


def measure(rounds: int) -> None:
    """Seconds for which a device would wait at each seam, in turn."""
    torch.set_num_threads(1)
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), IMAGES, IMAGES // 2)
        chosen = settings(f"data.root={folder}", "data.train_crop=scale_and_aspect", f"data.workers={WORKERS}")
        data = open_data(chosen.data)
        plan = Plan(BATCH, BATCH, 1, 1, data.train_images, epochs=2)
        loader = data.make_loader(MetaProcess(), 0)
        began = time.perf_counter()
        count = sum(1 for _ in loader.run_batches(plan, 0))
        seconds = SLOWER * (time.perf_counter() - began) / count
        for _ in tqdm(range(rounds), desc="rounds"):
            for name, batches in (("drained", apart(loader, plan)), ("one sequence", loader.run_batches(plan, 0))):
                into, out = waits(batches, loader, plan, seconds)
                figures.setdefault(f"{name}, into the evaluation", []).append(into)
                figures.setdefault(f"{name}, out of it", []).append(out)
            figures.setdefault("drained, order of 1,281,167 images", []).append(sort_at_once())
            figures.setdefault("one sequence, order of 1,281,167 images", []).append(sort_ahead())
        loader.close()
    print(f"\n{'seconds waited':48}median (min-max)")
    for name, values in figures.items():
        print(f"{name:48}{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})")
    write(
        "seams",
        {
            "what": "seconds for which training waits at the ends of an epoch and of its evaluation; "
            f"{WORKERS} workers, batches of {BATCH} JPEG images, a device {SLOWER} times as slow as the workers",
            "seconds": {name: spread(values) for name, values in figures.items()},
        },
    )


def apart(loader: Loader, plan: Plan) -> Iterator[MicroBatch]:
    """The batches of a run by an iterator for each epoch and each evaluation, which begin with no batch ready."""
    for epoch in range(plan.epochs):
        yield from chain(loader.training_batches(plan, epoch, 0), loader.validation_batches())


def waits(batches: Iterator[MicroBatch], loader: Loader, plan: Plan, seconds: float) -> tuple[float, float]:
    """How long the first validation batch, and the first training batch after it, were waited for."""
    for _ in islice(batches, plan.steps_per_epoch):
        time.sleep(seconds)
    into = first(batches)
    for _ in islice(batches, loader.validation_rounds - 1):
        time.sleep(seconds)
    out = first(batches)
    for _ in batches:
        pass
    return into, out


def first(batches: Iterator[MicroBatch]) -> float:
    began = time.perf_counter()
    next(batches)
    return time.perf_counter() - began


def sort_at_once() -> float:
    began = time.perf_counter()
    epoch_order(0, 1, ILSVRC_2012[0])
    return time.perf_counter() - began


def sort_ahead() -> float:
    """The same order within a run's requests, after an epoch that took longer than the sort."""
    plan = Plan(32_768, 64, 512, 1, ILSVRC_2012[0], epochs=2)
    requests = run_requests(plan, 0, 0, 0, [], evaluate_first=False)
    for _ in islice(requests, plan.steps_per_epoch * plan.accumulation):
        pass
    time.sleep(1)
    began = time.perf_counter()
    next(requests)
    return time.perf_counter() - began
