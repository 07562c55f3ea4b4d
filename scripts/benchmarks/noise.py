"""What the gradient noise scale costs: the time of its own calls, as a share of the rest of a step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from scripts.benchmarks.clock import now
from scripts.benchmarks.figures import spread, write
from scripts.benchmarks.training import settings
from train import app
from train.plan import make_plan
from train.processes.limits import keep_freed_memory
from train.processes.world import World

# as overrides; the classes and images that they imply are made up. ResNet-50 has the micro-batches of its 256 preset
NETWORKS = {
    "ResNet-50, 8 micro-batches of 32 at 224 pixels": ["data=imagenet", "data.root=/x", "batch=256"],
    "ResNet-8, 32 micro-batches of 32 at 16 pixels": ["data=fractals", "batch=8k"],
}


def measure(rounds: int) -> None:
    """Steps of each network with ``noise_scale=true`` on one batch already in memory, after one that is not counted."""
    shares = {name: share_of(overrides, rounds) for name, overrides in NETWORKS.items()}
    for name, values in shares.items():
        print(f"{name:50}" + "{median:.2f} % ({min:.2f}-{max:.2f})".format(**spread(values)))
    write(
        "noise",
        {
            "what": "time in the calls of NoiseScale as a percentage of the rest of the step",
            "percent_of_a_step": {name: spread(values) for name, values in shares.items()},
        },
    )


def share_of(overrides: list[str], rounds: int) -> list[float]:
    chosen, world = settings(*overrides, "noise_scale=true"), World()
    if world.device.type == "cpu":
        keep_freed_memory()
    plan, classes = make_plan(chosen.batch, 1, chosen.batch.total, 1), 1000
    step = app.connect_step(chosen, plan, world, app.build_model(chosen, classes, world))
    spent = [0.0]
    assert step.noise
    for name in ("begin", "micro_batch", "end"):
        setattr(step.noise, name, partial(timed, getattr(step.noise, name), spent))
    size = chosen.data.size
    images = torch.randn(plan.micro, 3, size, size).to(memory_format=torch.channels_last).to(world.device)
    labels = torch.randint(classes, (plan.micro,)).to(world.device)
    shares = []
    for _ in tqdm(range(rounds + 1), desc=chosen.model.network):
        spent[0], began = 0.0, now()
        step([(images, labels)] * plan.accumulation, 0.0)
        took = now() - began
        shares.append(100 * spent[0] / (took - spent[0]))
    return shares[1:]


def timed(call: Callable[..., Any], spent: list[float], *arguments: Any) -> None:
    began = now()
    call(*arguments)
    spent[0] += now() - began
