"""What loaders share: which images a rank takes for a step or a validation, and the way to the device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.config import DataConfig, Plan
from train.data.order import epoch_order
from train.step import MicroBatch
from train.world import World

# images of one forward pass in evaluation; no result depends on it. A worker decodes them one after the other, so that
# with many more the last workers would be waited for
EVAL_BATCH = 64


class Loader(Protocol):
    """What the loop takes its batches from; images are float32 on the device, normalised, channels last."""

    def train(self, epoch: int, first_step: int) -> Iterator[MicroBatch]:
        """This rank's micro-batches of ``epoch``, from its ``first_step`` on, to the epoch's end."""

    def validation(self) -> Iterator[MicroBatch]:
        """This rank's share of the validation images; every rank has as many batches, some empty."""

    def pixels(self, images: Tensor) -> Tensor:
        """``images`` of a batch as uint8 N,H,W,C, to be looked at."""

    def remarks(self, waited: float) -> list[str]:
        """Lines about an epoch's images that a reader of the log should know.

        ``waited`` is the share of its time that the host waited for batches.
        """

    def close(self) -> None:
        """Let go of worker processes."""


class Normalise:
    """uint8 N,H,W,C to float32 N,C,H,W, channels last, on the device; mirrored where ``flip`` says."""

    def __init__(self, config: DataConfig, device: torch.device) -> None:
        self._device = device
        self._mean = 255 * torch.tensor(config.mean, device=device)
        self._std = 255 * torch.tensor(config.std, device=device)

    def __call__(self, images: Tensor, labels: Tensor, flip: Tensor | None = None) -> MicroBatch:
        images = images.to(self._device, non_blocking=True)
        if flip is not None:
            flip = flip.to(self._device, non_blocking=True)
            images = torch.where(flip.view(-1, 1, 1, 1), images.flip(2), images)
        # whole rows at a time: over three channels as the last dimension a CPU would take six times as long
        rows, width = images.flatten(2).float(), images.shape[2]
        rows.sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        return rows.view(images.shape).permute(0, 3, 1, 2), labels.to(self._device, non_blocking=True)

    def undo(self, images: Tensor) -> Tensor:
        """Normalised N,C,H,W, on any device, as uint8 N,H,W,C again."""
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        return (images.permute(0, 2, 3, 1) * std + mean).round().clamp(0, 255).byte()


def micro_batches(plan: Plan, seed: int, epoch: int, first_step: int, rank: int) -> Iterator[NDArray[np.int64]]:
    """The images of each of this rank's micro-batches: every step's are dealt out in one global order."""
    order = epoch_order(seed, epoch, plan.train_images)
    mine = plan.accumulation * plan.micro
    for step in range(first_step, plan.steps_per_epoch):
        start = step * plan.total + rank * mine
        yield from order[start : start + mine].reshape(plan.accumulation, plan.micro)


def shares(images: int, world: World) -> Iterator[NDArray[np.int64]]:
    """This rank's validation indices in batches; the largest share sets the number of batches for all."""
    mine = np.array(world.share(images), dtype=np.int64)
    rounds = math.ceil(math.ceil(images / world.size) / EVAL_BATCH)
    for i in range(rounds):
        yield mine[i * EVAL_BATCH : (i + 1) * EVAL_BATCH]
