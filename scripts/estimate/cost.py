"""How long a run takes and what it costs on a given machine: a few lines of arithmetic.

A process takes the micro-batches of a step one after the other. Gradients are summed over the processes in buckets, and
all but the last bucket overlap with the last backward pass. ``results/published/scaling.csv`` has what others measured,
and docs/plan.md says how far the model is from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scripts.estimate.machine import MachineConfig
from train.plan import Plan

BUCKET = 25 * 2**20  # bytes; DistributedDataParallel's bucket_cap_mb
BACKWARD = 2 / 3  # of a micro-batch: gradients of weights and of activations, beside the forward pass
EVALUATION = 1 / 3  # of the time of a training image: the forward pass


@dataclass(frozen=True)
class Cost:
    """A run on ``gpus`` GPUs."""

    gpus: int
    micro: int  # images of a micro-batch
    computing_seconds: float  # of a step
    exposed_seconds: float  # of a step, in which a GPU only waits for gradients and statistics
    images_per_second: float  # in training, all GPUs together
    efficiency: float  # of images_per_second, against as many single GPUs
    hours: float  # to the end, evaluations included
    dollars: float | None

    @property
    def step_seconds(self) -> float:
        return self.computing_seconds + self.exposed_seconds


def all_reduce_seconds(size: float, gpus: int, machine: MachineConfig) -> float:
    """Seconds to sum ``size`` bytes over ``gpus``, by the faster of a ring and a tree.

    A ring moves ``2 (n - 1) / n`` of the bytes through each GPU in ``2 (n - 1)`` hops, a tree twice the bytes in twice
    its height (NVIDIA/nccl, src/graph/tuning.cc). Bandwidths are of the bus, as nccl-tests define it.
    """
    if gpus == 1:
        return 0.0
    machines = math.ceil(gpus / machine.gpus_per_machine)
    bandwidth = 1e9 * (machine.inside_gbs if machines == 1 else min(machine.inside_gbs, machine.between_gbs))
    inside, between = 1e-6 * machine.inside_us, 1e-6 * machine.between_us
    ring = 2 * (gpus - 1) / gpus * size / bandwidth + 2 * (gpus - machines) * inside + 2 * (machines - 1) * between
    height = (min(gpus, machine.gpus_per_machine) - 1) * inside + math.log2(machines) * between
    tree = 2 * size / bandwidth + 2 * height
    return min(ring, tree)


@dataclass(frozen=True)
class Speed:
    """Of one GPU: seconds that a micro-batch takes at any size, and seconds for each image in it."""

    fixed: float
    image: float

    def micro_batch(self, images: int) -> float:
        return self.fixed + images * self.image


def speed_of(machine: MachineConfig, micro: int, gmacs: float) -> Speed:
    """From ``machine.images_per_second``, measured with ``micro``, or from the machine's published figure.

    The published figure is for one network and image size. For others the time of an image is scaled by ``gmacs``
    (10^9 multiply-additions of its forward pass), which is rough.
    """
    images, rate, scale = micro, machine.images_per_second, 1.0
    if rate is None:
        images, rate, scale = machine.published_at, machine.published, gmacs / machine.published_gmacs
    fixed = min(1e-3 * machine.fixed_ms, images / rate)
    return Speed(fixed, scale * (1 / rate - fixed / images))


def cost_of(plan: Plan, val_images: int, gradients: int, statistics: int, machine: MachineConfig, speed: Speed) -> Cost:
    """What ``plan`` takes on as many GPUs as it has processes; ``gradients`` and ``statistics`` in bytes."""
    gpus = plan.processes
    micro = speed.micro_batch(plan.micro)
    # what a full machine loses to its host rather than to the network; a single GPU loses nothing
    full = (min(gpus, machine.gpus_per_machine) - 1) / max(machine.gpus_per_machine - 1, 1)
    slower = 1 / (1 - (1 - machine.machine_efficiency) * full)
    computing = slower * micro
    buckets = max(math.ceil(gradients / BUCKET), 1)
    bucket = all_reduce_seconds(gradients / buckets, gpus, machine)
    exposed = bucket + max((buckets - 1) * bucket - BACKWARD * computing, 0.0)
    exposed += all_reduce_seconds(statistics, gpus, machine)
    step = plan.accumulation * computing + exposed
    evaluating = slower * EVALUATION * speed.image * val_images / gpus
    hours = (plan.epochs * plan.steps_per_epoch * step + plan.evaluations(plan.epochs) * evaluating) / 3600
    price = machine.dollars_per_hour
    return Cost(
        gpus=gpus,
        micro=plan.micro,
        computing_seconds=plan.accumulation * computing,
        exposed_seconds=exposed,
        images_per_second=plan.total / step,
        efficiency=plan.accumulation * micro / step,
        hours=hours,
        dollars=None if price is None else price * gpus * hours,
    )
