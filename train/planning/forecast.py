"""Lines of ``plan.show=true``: schedule, memory, traffic, and a row for each number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from train.config import Config, Plan, make_plan
from train.errors import UserError
from train.planning.cost import Cost, cost_of, speed_of
from train.planning.footprint import Footprint

EIGHTHS = " ▁▂▃▄▅▆▇█"


def process_counts(config: Config) -> list[int]:
    """``nproc`` where it is given, else ``plan.gpus``, in order."""
    return [config.nproc] if config.nproc is not None else sorted(set(config.plan.gpus))


def plan_on(config: Config, train_images: int, gpus: int) -> Plan | None:
    """The plan on ``gpus``, with a smaller micro-batch where the configured one is too large; None: they share nothing.

    A smaller micro-batch is another recipe, since BatchNorm sees fewer images: whoever shows it must say so.
    """
    share, rest = divmod(config.batch.total, gpus)
    if rest or not share:
        return None
    micro = max(n for n in range(1, min(config.batch.micro, share) + 1) if share % n == 0)
    return make_plan(replace(config, batch=replace(config.batch, micro=micro)), train_images, gpus)


def first_plan(config: Config, train_images: int) -> Plan:
    """The plan on the first count of processes that shares the batch as configured.

    Raises UserError, as a run would, when ``nproc`` does not; without it, one process is always possible.
    """
    for count in process_counts(config):
        try:
            return make_plan(config, train_images, count)
        except UserError:
            if config.nproc is not None:
                raise
    return make_plan(config, train_images, 1)


def costs(config: Config, train_images: int, val_images: int, net: Footprint) -> list[Cost | None]:
    """A cost for each of ``process_counts``; None where that many GPUs cannot share the batch."""
    speed = speed_of(config.plan, config.batch.micro, net.gmacs)
    found: list[Cost | None] = []
    for count in process_counts(config):
        plan = plan_on(config, train_images, count)
        cost = cost_of(plan, val_images, net.gradients, net.statistics, config.plan, speed) if plan else None
        found.append(cost)
    return found


def curve(values: list[float], height: int) -> list[str]:
    """``values``, none negative, as columns of blocks in ``height`` lines; the largest fills them."""
    top = max(values) or 1.0
    levels = [math.ceil(8 * height * value / top) for value in values]
    return ["".join(EIGHTHS[min(max(n - 8 * line, 0), 8)] for n in levels).rstrip() for line in reversed(range(height))]


def schedule_lines(plan: Plan, warmup_epochs: float, lr: Callable[[int], float]) -> list[str]:
    """The learning rate over the run in a small picture, and its figures where the warm-up and the run end."""
    width, height = min(60, plan.steps), 5
    # the middle of each column
    columns = curve([lr((2 * i + 1) * plan.steps // (2 * width)) for i in range(width)], height)
    warmup = min(math.ceil(warmup_epochs * plan.steps_per_epoch), plan.steps)
    peak = max(lr(step) for step in {0, max(warmup - 1, 0), min(warmup, plan.steps - 1)})
    labels = [f"{peak:.4g}", *[""] * (height - 2), "0"]
    lines = [f"{label:>7} ┤{line}" for label, line in zip(labels, columns, strict=True)]
    lines.append(f"{'':7} └{'─' * width}")
    lines.append(f"{'epoch':>7}  0{plan.epochs:>{width - 1}}")
    if warmup:
        after = f", {lr(warmup):.4g} in the next" if warmup < plan.steps else ""
        lines.append(f"{lr(warmup - 1):.4g} in the last step of the warm-up, {warmup:,}{after}; ")
    else:
        lines.append(f"{lr(0):.4g} in the first step, without warm-up; ")
    lines[-1] += f"{lr(plan.steps - 1):.4g} in the last step, {plan.steps:,}"
    return lines


def memory_line(footprint: Footprint, micro: int) -> str:
    parts = {
        "weights": footprint.weights,
        "gradients": footprint.gradients,
        "optimizer": footprint.optimizer,
        f"activations of {micro} images": footprint.activations,
    }
    listed = ", ".join(f"{name} {size_of(size)}" for name, size in parts.items())
    return f"{size_of(footprint.peak)} a GPU in tensors: {listed}; CUDA's context and workspaces come on top"


def traffic_line(footprint: Footprint) -> str:
    both = footprint.gradients + footprint.statistics
    return (
        f"{size_of(both)} all-reduced a step: gradients {size_of(footprint.gradients)}, "
        f"BatchNorm's statistics {size_of(footprint.statistics)}"
    )


def size_of(count: int) -> str:
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= u or u == 1e3)
    return f"{count / unit:.{2 if name == 'GB' else 1}f} {name}"


def table(config: Config, train_images: int, found: list[Cost | None]) -> list[str]:
    """Time and cost by the number of GPUs, in aligned columns, and remarks on what a row is not."""
    head = ["GPUs", "accumulated", "step ms", "waiting ms", "images/s", "efficiency", "time", "$"]
    rows, remarks = [head], []
    for count, cost in zip(process_counts(config), found, strict=True):
        plan = plan_on(config, train_images, count)
        if plan is None or cost is None:
            remarks.append(f"{count:,} GPUs: {config.batch.total:,} images are not to be shared by as many")
            continue
        mark = ""
        if plan.micro != config.batch.micro:
            mark = "*"
            remarks.append(
                f"{count:,}* GPUs: only with batch.micro={plan.micro}, a BatchNorm over fewer images than the recipe's"
            )
        figures = [f"{1e3 * cost.step_seconds:,.1f}", f"{1e3 * cost.exposed_seconds:,.2f}"]
        figures += [f"{cost.images_per_second:,.0f}", f"{100 * cost.efficiency:.0f} %"]
        rows.append([f"{count:,}{mark}", f"{plan.accumulation:,}", *figures, time_of(cost), dollars_of(cost)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [*lines, *remarks] if len(rows) > 1 else remarks


def time_of(cost: Cost) -> str:
    for hours, unit in ((1, "h"), (1 / 60, "min")):
        if cost.hours >= hours:
            return f"{cost.hours / hours:,.1f} {unit}"
    return f"{3600 * cost.hours:.1f} s"


def dollars_of(cost: Cost) -> str:
    if cost.dollars is None:
        return "-"
    return f"{cost.dollars:,.0f}" if cost.dollars >= 10 else f"{cost.dollars:.2f}"


def machine_line(config: Config, net: Footprint) -> str:
    """What time and cost are counted with."""
    machine = config.plan
    if machine.images_per_second is not None:
        rate = f"{machine.images_per_second:,.6g} images/s of one GPU with batch.micro={config.batch.micro}, as given"
    else:
        rate = f"{machine.published:,.6g} images/s of one GPU at {machine.published_at} a forward pass, as published"
        share = net.gmacs / machine.published_gmacs
        if not math.isclose(share, 1, rel_tol=0.01):
            rate += f" for ResNet-50 at 224 pixels; this is {share:.2g} of its operations, so ROUGH"
        rate += ": better plan.images_per_second=, your own"
    price = machine.dollars_per_hour
    cost = "no price (plan.dollars_per_hour=)" if price is None else f"${price:g} a GPU and hour"
    return f"{machine.machine}: {rate}; {cost}"
