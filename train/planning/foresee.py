"""``plan.show=true``: what a run would be and take, put together from its configuration alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from train.banner import banner
from train.config import Config, FractalsConfig, ImageNetConfig
from train.data import foreseen
from train.model import make_model
from train.planning import forecast
from train.planning.footprint import Footprint, footprint
from train.schedule import schedule_of


def foresee(config: Config) -> str:
    """What ``config`` would run, and what that would take; nothing is started or written and no GPU is asked."""
    data = foreseen(config.data)
    plan = forecast.first_plan(config, data.train_images)
    memory = footprint_of(config, data.classes, plan.accumulation)
    found = forecast.costs(config, data.train_images, data.val_images, memory)
    sections = {
        "lr": forecast.schedule_lines(plan, config.schedule.warmup_epochs, schedule_of(config, plan)),
        "memory": [forecast.memory_line(memory, plan.micro)],
        "traffic": [forecast.traffic_line(memory)],
        "machine": [forecast.machine_line(config, memory)],
        "time": forecast.table(config, data.train_images, found),
    }
    said = banner(replace(config, precision=planned_precision(config)), plan, data, None)
    lines = [f"plan of {config.name}, nothing is started", said]
    for name, section in sections.items():
        lines += [f"  {name:<10}{section[0]}", *(f"{'':12}{line}" for line in section[1:])]
    return "\n".join(lines)


def planned_precision(config: Config) -> str:
    """``auto`` is bf16 on the GPUs that are planned for, whatever this machine has."""
    return "bf16" if config.precision == "auto" else config.precision


def footprint_of(config: Config, classes: int, accumulation: int) -> Footprint:
    """Memory of one process in a step, and operations for an image, with the numbers of ``config``."""
    assert isinstance(config.data, (FractalsConfig, ImageNetConfig))
    return footprint(
        partial(make_model, config.model, classes),
        config.data.size,
        config.optimizer,
        micro=config.batch.micro,
        accumulation=accumulation,
        dtype=torch.bfloat16 if planned_precision(config) == "bf16" else torch.float32,
    )
