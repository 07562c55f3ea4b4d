"""What runs, in the lines that a reader of the log needs to not mistake it for something else."""

from __future__ import annotations

import math
from typing import Any

from train.config import Config, Plan
from train.data import Data


def banner(config: Config, plan: Plan, data: Data, state: dict[str, Any] | None) -> str:
    """The lines; ``state`` is the checkpoint that the run goes on from."""
    batch, optimizer, schedule, warmup = config.batch, config.optimizer, config.schedule, config.schedule.warmup_epochs
    where = f"preset {batch.preset}"
    if batch.total != batch.published:
        where += f" of {batch.published:,}"
        scaled = batch.published == batch.total * config.data.batch_divisor
        where += f" / {config.data.batch_divisor}: scaled down with the data" if scaled else ", changed by hand"
    lr = f"lr {optimizer.lr:g}"
    if config.recipe.name == "torchlars" and optimizer.name == "lars" and batch.preset == "256":
        lr += " (not published)"
    if optimizer.name == "sgd" and batch.total != 256 and math.isclose(optimizer.lr, 0.2 * batch.total / 256):
        lr += " (0.2 at 256, linear in the batch)"
    decays = {
        "poly": f"poly({schedule.power:g})",
        "cosine": "cosine",
        "step": f"lr x {schedule.factor:g} after epochs {', '.join(map(str, schedule.milestones))}",
    }
    lines = {
        "recipe": config.recipe.name,
        "data": f"{config.data.name}: {data.remark}",
        "batch": f"{plan.total:,} = {plan.micro} micro x {plan.accumulation} accumulated x {plan.processes} "
        f"process{'es' if plan.processes > 1 else ''} ({where})",
        "optimizer": f"{optimizer.name}, {lr}, momentum {optimizer.momentum:g}, "
        f"weight decay {optimizer.weight_decay:g}",
        "schedule": f"{decays[schedule.decay]}, {warmup:g} of {config.epochs} epochs warm-up, "
        f"{plan.steps:,} steps of which {plan.steps_per_epoch:,} an epoch",
        "model": f"{config.model.name}, {config.precision}",
    }
    if warmup >= config.epochs and warmup > 0:
        lines["schedule"] += "; THE RUN ENDS INSIDE THE WARM-UP"
    if config.ema:
        lines["model"] += f", evaluated as the moving average of its weights with decay {config.ema:g}"
    if config.stop_at_top1 is not None:
        lines["ends"] = f"after the evaluation that reaches {config.stop_at_top1:g} % top-1"
    if plan.dropped:
        lines["dropped"] = f"the last {plan.dropped:,} images of each epoch's order, which fill no batch"
    if state:
        lines["resumed"] = f"after step {state['position']['step']:,}"
    return "\n".join(f"  {k:<10}{v}" for k, v in lines.items())
