"""The whole app against a bare loop on ready tensors."""

import itertools
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from scripts.benchmarks.clock import now
from scripts.benchmarks.figures import spread, write
from train import app
from train.config.compose import compose
from train.config.schema import Config
from train.data.kinds import open_data
from train.engine.precision import native_precision
from train.output.run_folder import RunFolder
from train.plan import Plan, make_plan
from train.processes.signals import StopRequest
from train.processes.world import World


def settings(*overrides: str) -> Config:
    return replace(compose(*overrides), precision=native_precision(World().device))


def measure(rounds: int) -> None:
    """One epoch of the default run by the app, one of a bare loop on the same tensors, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings("batch=32k", f"runs_dir={folder}", "name=bench", f"epochs={rounds + 1}")
        world, data = World(), open_data(chosen.data)
        plan = make_plan(chosen.batch, chosen.epochs, data.train_images, 1)
        run = RunFolder(chosen)
        log = app.open_log(chosen, plan, data, run, None)
        training = app.connect(
            chosen, app.build_model(chosen, data.classes, world), plan, data, world, StopRequest(), run, log
        )
        batches = list(itertools.islice(training.loader.training_batches(plan, 0, 0), 8))
        bare = bare_epoch(chosen, plan, data.classes, batches)
        figures: dict[str, list[float]] = {"app": [], "bare loop": []}
        for epoch in range(1, rounds + 2):
            training.fit(max_steps=epoch * plan.steps_per_epoch)
            row = json.loads((run.path / "log.jsonl").read_text().splitlines()[-1])
            speed = bare()
            if epoch > 1:  # the first is for warming up
                figures["app"].append(row["images_per_second"])
                figures["bare loop"].append(speed)
        log.close(is_over=True)
    ratios = [a / b for a, b in zip(figures["app"], figures["bare loop"], strict=True)]
    print(f"\n{'':12}images/s median (min-max)")
    for name, values in figures.items():
        print(f"{name:12}{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})")
    print(f"{'ratio':12}{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
    write(
        "train",
        {
            "what": "images/s of training, batch=32k on fractals: the app with all its logging, and a bare loop "
            "of forward, backward and step on ready tensors",
            "images_per_second": {name: spread(values) for name, values in figures.items()},
            "ratio": spread(ratios),
        },
    )


def bare_epoch(
    chosen: Config, plan: Plan, classes: int, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> Callable[[], float]:
    world = World()
    model = app.build_model(chosen, classes, world).train()
    step = app.connect_step(chosen, plan, world, model)
    optimizer, precision = step.optimizer, step.precision

    def epoch() -> float:
        began = now()
        for _ in range(plan.steps_per_epoch):
            for images, labels in batches:
                with precision.autocast():
                    logits = model(images)
                (F.cross_entropy(logits.float(), labels) / len(batches)).backward()
            optimizer.step()
            optimizer.zero_grad()
        return plan.steps_per_epoch * plan.total / (now() - began)

    return epoch
