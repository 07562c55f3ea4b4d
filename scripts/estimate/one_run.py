"""The plan of one run, in lines: what it would be, its schedule, memory, traffic, time and cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn

import torch
from torch import nn

from scripts.estimate.cost import Cost, cost_of, speed_of
from scripts.estimate.machine import MachineConfig, ends
from scripts.estimate.memory import Footprint, footprint
from scripts.estimate.text import aligned, duration
from train.config.schema import Config
from train.data import fractals
from train.data.dataset import ILSVRC_2012, Data
from train.data.kinds import open_data
from train.description import description
from train.engine.precision import DTYPES
from train.errors import UserError
from train.model import make_model
from train.plan import Plan, make_plan
from train.schedule import make_schedule
from train.weights import train_only

EIGHTHS = " ▁▂▃▄▅▆▇█"


def describe(config: Config, machine: MachineConfig) -> str:
    """What ``config`` would run on ``machine``; nothing is started or written, and no GPU is used."""
    data = expected_data(config)
    plan = first_plan(config, machine, data.train_images)
    net = footprint_of(config, data.classes, plan.accumulation)
    lr = make_schedule(config.schedule, config.optimizer.lr, plan)
    sections = {
        "lr": schedule_lines(plan, config.schedule.warmup_epochs, lr),
        "memory": [memory_line(net, plan.micro)],
        "traffic": [traffic_line(net)],
        "machine": [machine_line(config, end, net) for end in ends(machine)],
        "time": time_lines(config, machine, data, net),
    }
    if config.train_only or config.data.progressive.start:
        sections["time"].append("at most: a whole backward pass and the last size of images are counted throughout")
    lines = [description(replace(config, precision=planned_precision(config)), plan, data)]
    for name, section in sections.items():
        lines += [f"  {name:<10}{section[0]}", *(f"{'':12}{line}" for line in section[1:])]
    return "\n".join(lines)


def expected_data(config: Config) -> Data:
    """What opening the data would find, without making fractals; ILSVRC-2012 where ``data.root`` is not given yet."""
    data = config.data
    if isinstance(data, fractals.Config):
        counts = (data.expected_train_images(), data.classes * data.val_per_class, data.classes)
        return Data([""] * counts[2], counts[0], counts[1], "", data.remark, _no_loader)
    if data.name == "imagenet" and not data.root:
        remark = "{:,} training and {:,} validation images of {:,} classes".format(*ILSVRC_2012)
        remark += ": ILSVRC-2012's counts, as there is no data.root yet"
        return Data([""] * ILSVRC_2012[2], ILSVRC_2012[0], ILSVRC_2012[1], "", remark, _no_loader)
    return open_data(data)


def _no_loader(*_: object) -> NoReturn:
    raise AssertionError("the data of a plan are not loaded")


def planned_precision(config: Config) -> str:
    """``auto`` is bf16 on the GPUs of the plan, whatever this machine has."""
    return "bf16" if config.precision == "auto" else config.precision


def footprint_of(config: Config, classes: int, accumulation: int) -> Footprint:
    """Memory of one process in a step, and the operations for an image."""
    return footprint(
        partial(_network, config, classes),
        config.data.size,
        config.optimizer,
        micro=config.batch.micro,
        accumulation=accumulation,
        dtype=DTYPES.get(planned_precision(config), torch.float32),
    )


def _network(config: Config, classes: int) -> nn.Module:
    model = make_model(config.model, classes, config.data.sizes(config.epochs))
    if config.train_only:
        train_only(model, config.train_only)
    return model


def process_counts(config: Config, machine: MachineConfig) -> list[int]:
    """``nproc`` where it is given, else ``machine.gpus``, in order."""
    return [config.nproc] if config.nproc is not None else sorted(set(machine.gpus))


def plan_on(config: Config, train_images: int, gpus: int) -> Plan | None:
    """The plan on ``gpus``, with a smaller micro-batch where the configured one is too large.

    None if so many GPUs cannot share the batch equally. A smaller micro-batch is another recipe, since BatchNorm sees
    fewer images: whoever shows it must say so.
    """
    share, rest = divmod(config.batch.total, gpus)
    if rest or not share:
        return None
    micro = max(n for n in range(1, min(config.batch.micro, share) + 1) if share % n == 0)
    return make_plan(replace(config.batch, micro=micro), config.epochs, train_images, gpus, config.evaluate_every)


def first_plan(config: Config, machine: MachineConfig, train_images: int) -> Plan:
    """The plan on the first count of processes that can share the batch as configured.

    Raises UserError, as a run would, when ``nproc`` cannot; without it, one process always can.
    """
    for count in process_counts(config, machine):
        try:
            return make_plan(config.batch, config.epochs, train_images, count)
        except UserError:
            if config.nproc is not None:
                raise
    return make_plan(config.batch, config.epochs, train_images, 1)


def costs_of(
    config: Config, machine: MachineConfig, train_images: int, val_images: int, net: Footprint
) -> list[Cost | None]:
    """A cost for each of ``process_counts``; None where that many GPUs cannot share the batch."""
    if config.batch.grow:
        raise UserError(f"batch.grow={config.batch.grow} is not planned: plan each batch by itself, with batch.total=")
    speed = speed_of(machine, config.batch.micro, net.gmacs)
    plans = [plan_on(config, train_images, count) for count in process_counts(config, machine)]
    # nothing hides the squares: they are complete when the last backward pass is
    waited_for = net.statistics + net.squares
    return [cost_of(plan, val_images, net.gradients, waited_for, machine, speed) if plan else None for plan in plans]


def curve(values: list[float], height: int) -> list[str]:
    """``values``, none negative, as columns of blocks in ``height`` lines; the largest fills them."""
    top = max(values) or 1.0
    levels = [math.ceil(8 * height * value / top) for value in values]
    return ["".join(EIGHTHS[min(max(n - 8 * line, 0), 8)] for n in levels).rstrip() for line in reversed(range(height))]


def schedule_lines(plan: Plan, warmup_epochs: float, lr: Callable[[int], float]) -> list[str]:
    """The learning rate over the run as a small picture, and its values where the warm-up and the run end."""
    width, height = min(60, plan.steps), 5
    # at the middle of each column
    columns = curve([lr((2 * i + 1) * plan.steps // (2 * width)) for i in range(width)], height)
    warmup = min(math.ceil(warmup_epochs * plan.steps_per_epoch), plan.steps)
    peak = max(lr(step) for step in {0, max(warmup - 1, 0), min(warmup, plan.steps - 1)})
    labels = [f"{peak:.4g}", *[""] * (height - 2), "0"]
    lines = [f"{label:>7} ┤{line}" for label, line in zip(labels, columns, strict=True)]
    lines.append(f"{'':7} └{'─' * width}")
    lines.append(f"{'epoch':>7}  0{plan.epochs:>{width - 1}}")
    if warmup:
        after = f", {lr(warmup):.4g} in the next" if warmup < plan.steps else ""
        begin = f"{lr(warmup - 1):.4g} in the last step of the warm-up, {warmup:,}{after}; "
    else:
        begin = f"{lr(0):.4g} in the first step, without warm-up; "
    lines.append(f"{begin}{lr(plan.steps - 1):.4g} in the last step, {plan.steps:,}")
    return lines


def memory_line(net: Footprint, micro: int) -> str:
    parts = {
        "weights": net.weights,
        "gradients": net.gradients,
        "optimizer": net.optimizer,
        f"activations of {micro} images": net.activations,
    }
    listed = ", ".join(f"{name} {size_of(size)}" for name, size in parts.items())
    return f"{size_of(net.peak)} a GPU in tensors: {listed}; CUDA's context and workspaces come on top"


def traffic_line(net: Footprint) -> str:
    squares = f", their elements' squares {size_of(net.squares)}" if net.squares else ""
    return (
        f"{size_of(net.gradients + net.squares + net.statistics)} all-reduced a step: gradients "
        f"{size_of(net.gradients)}{squares}, BatchNorm's statistics {size_of(net.statistics)}"
    )


def size_of(count: int) -> str:
    for unit, name, digits in ((1e9, "GB", 2), (1e6, "MB", 1)):
        if count >= unit:
            return f"{count / unit:.{digits}f} {name}"
    return f"{count / 1e3:.1f} kB"


def machine_line(config: Config, machine: MachineConfig, net: Footprint) -> str:
    """What time and cost are computed from."""
    if machine.images_per_second is not None:
        rate = f"{machine.images_per_second:,.6g} images/s of one GPU with batch.micro={config.batch.micro}, as given"
    else:
        rate = f"{machine.published:,.6g} images/s of one GPU at {machine.published_at} a forward pass, "
        rate += "as published" if machine.published_most is None else "ESTIMATED (docs/plan.md)"
        share = net.gmacs / machine.published_gmacs
        if not math.isclose(share, 1, rel_tol=0.01):
            rate += f" for ResNet-50 at 224 pixels; this is {share:.2g} of its operations, so ROUGH"
        rate += ": better machine.images_per_second=, your own"
    price = machine.dollars_per_hour
    cost = "no price (machine.dollars_per_hour=)" if price is None else f"${price:g} a GPU and hour"
    return f"{machine.name}: {rate}; {cost}"


def time_lines(config: Config, machine: MachineConfig, data: Data, net: Footprint) -> list[str]:
    """A ``time_table`` of the machine, or one of each end of its range under a line that names it."""
    lines = []
    for end in ends(machine):
        costs = costs_of(config, end, data.train_images, data.val_images, net)
        lines += [f"{end.name}:"] if end.name != machine.name else []
        lines += time_table(config, end, data.train_images, costs)
    return lines


def time_table(config: Config, machine: MachineConfig, train_images: int, costs: list[Cost | None]) -> list[str]:
    """Time and cost by the number of GPUs, in aligned columns, and remarks on rows that are not the recipe's."""
    rows = [["GPUs", "accumulated", "step ms", "waiting ms", "images/s", "efficiency", "time", "$"]]
    remarks = []
    for count, cost in zip(process_counts(config, machine), costs, strict=True):
        plan = plan_on(config, train_images, count)
        if plan is None or cost is None:
            remarks.append(f"{count:,} GPUs: they cannot share {config.batch.total:,} images equally")
            continue
        mark = ""
        if plan.micro != config.batch.micro:
            mark = "*"
            remarks.append(
                f"{count:,}* GPUs: only with batch.micro={plan.micro}, a BatchNorm over fewer images than the recipe's"
            )
        figures = [f"{1e3 * cost.step_seconds:,.1f}", f"{1e3 * cost.exposed_seconds:,.2f}"]
        figures += [f"{cost.images_per_second:,.0f}", f"{100 * cost.efficiency:.0f} %"]
        rows.append([f"{count:,}{mark}", f"{plan.accumulation:,}", *figures, duration(cost.hours), dollars_of(cost)])
    return [*aligned(rows), *remarks] if len(rows) > 1 else remarks


def dollars_of(cost: Cost) -> str:
    if cost.dollars is None:
        return "-"
    return f"{cost.dollars:,.0f}" if cost.dollars >= 10 else f"{cost.dollars:.2f}"
