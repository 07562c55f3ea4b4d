"""What a run is, in words: the lines printed before it begins, and the facts that MLPerf's log asks for."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from train.config.schema import Config
from train.data.dataset import ILSVRC_2012, Data
from train.output import environment
from train.plan import Plan


def description(config: Config, plan: Plan, data: Data, resumed_step: int | None = None, device: str = "") -> str:
    """The lines from which a reader of the log learns what ran, and that it is not something else."""
    warmup_epochs = config.schedule.warmup_epochs
    growing = ", ".join(f"{total:,} from epoch {epoch} on" for epoch, total in plan.grow)
    lines = {
        "recipe": config.recipe.name,
        "data": f"{config.data.name}: {data.remark}",
        "batch": f"{plan.total:,} = {plan.micro} micro x {plan.accumulation} accumulated x {plan.processes} "
        f"process{'es' if plan.processes > 1 else ''} ({_preset(config)})" + (f"; {growing}" if growing else ""),
        "optimizer": _optimizer(config),
        "schedule": f"{_decay(config)}, {warmup_epochs:g} of {config.epochs} epochs warm-up, "
        f"{plan.steps:,} steps of which {plan.steps_per_epoch:,} an epoch" + (" at first" if growing else ""),
        "model": f"{config.model.network}, {config.precision}",
    }
    if config.init:
        lines["begins"] = f"from {config.init}"
    if config.train_only:
        lines["model"] += f", only {config.train_only} is trained"
    if not data.is_ilsvrc and not growing:
        images, _, _ = ILSVRC_2012
        lines["updates"] = (
            f"{plan.steps:,}, each of {100 * plan.total / data.train_images:.2g} % of the training images: "
            f"ImageNet has as many at batch {plan.total * images / data.train_images:,.0f}"
        )
    if config.epochs <= warmup_epochs:
        lines["schedule"] += "; THE RUN ENDS INSIDE THE WARM-UP"
    if config.ema:
        lines["model"] += f", evaluated as the moving average of its weights with decay {config.ema:g}"
    if config.stop_at_top1 is not None:
        lines["ends"] = f"after the evaluation that reaches {config.stop_at_top1:g} % top-1"
    if plan.dropped:
        lines["dropped"] = f"the last {plan.dropped:,} images of each epoch's order, which do not fill a batch"
    if device:
        lines["device"] = device
    if resumed_step is not None:
        lines["resumed"] = f"after step {resumed_step:,}"
    return "\n".join(f"  {name:<10}{line}" for name, line in lines.items())


def _preset(config: Config) -> str:
    batch, divisor = config.batch, config.data.batch_divisor
    if batch.total == batch.published:
        return f"preset {batch.preset}"
    of_published = f"preset {batch.preset} of {batch.published:,}"
    if batch.published == batch.total * divisor:
        return f"{of_published} / {divisor}: scaled down with the data"
    return f"{of_published}, changed by hand"


def _optimizer(config: Config) -> str:
    optimizer, batch = config.optimizer, config.batch
    lr = f"lr {optimizer.lr:g}"
    if config.recipe.name == "torchlars" and optimizer.name == "lars" and batch.preset == "256":
        lr += " (not published)"
    elif batch.total != batch.published and config.data.batch_divisor == 1:
        lr += " (not published for this batch)"
    if optimizer.name == "sgd" and batch.total != 256 and math.isclose(optimizer.lr, 0.2 * batch.total / 256):
        lr += " (0.2 at 256, linear in the batch)"
    values = asdict(optimizer)
    others = [f"{key.replace('_', ' ')} {values[key]:g}" for key in ("momentum", "weight_decay") if key in values]
    if optimizer.variance_reduction:
        groups = f"{optimizer.variance_groups} groups of" if optimizer.variance_groups else "all"
        others.append(f"variance reduced over {groups} micro-batches")
    return ", ".join([optimizer.name, lr, *others])


def _decay(config: Config) -> str:
    schedule = config.schedule
    if schedule.decay == "step":
        return f"lr x {schedule.factor:g} after epochs {', '.join(map(str, schedule.milestones))}"
    return f"poly({schedule.power:g})" if schedule.decay == "poly" else schedule.decay


def mlperf_facts(config: Config, plan: Plan, data: Data) -> dict[str, Any]:
    """What MLPerf asks of a run of ResNet, by its keys; ``model`` and ``data`` are what it assumes."""
    optimizer, schedule = asdict(config.optimizer), config.schedule
    name = config.optimizer.name
    hardware = environment.hardware(plan.processes)
    warmup_steps = round(schedule.warmup_epochs * plan.steps_per_epoch)
    of_optimizer: dict[str, float] = {
        "base_learning_rate": config.optimizer.lr,
        "end_learning_rate": schedule.end_lr,
        **({"learning_rate_decay_poly_power": schedule.power} if schedule.decay == "poly" else {}),
        # the steps over which lr falls
        "learning_rate_decay_steps": plan.steps - (warmup_steps if schedule.origin == "warmup" else 0),
        "learning_rate_warmup_epochs": schedule.warmup_epochs,
        **{key: optimizer[key] for key in ("momentum", "weight_decay") if key in optimizer},
    }
    return {
        "submission_benchmark": "resnet",
        "submission_division": "closed",
        "submission_org": "lars-imagenet",
        "submission_platform": f"{plan.processes} x {(hardware['gpus'] or [hardware['cpu']])[0]}",
        "submission_status": "research",
        "model": config.model.network,
        "data": data.remark,
        "seed": config.seed,
        "global_batch_size": plan.total,
        "gradient_accumulation_steps": plan.accumulation,
        "model_bn_span": plan.micro,
        "train_samples": data.train_images,
        "eval_samples": data.val_images,
        "opt_name": name,
        **{f"{name}_opt_{key}": value for key, value in of_optimizer.items()},
        "opt_learning_rate_warmup_epochs": schedule.warmup_epochs,
        **({"lars_epsilon": optimizer["eps"]} if name == "lars" else {}),
    }
