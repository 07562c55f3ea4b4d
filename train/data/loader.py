"""What loaders share: which images a rank takes for a step or a validation, and the way to the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data.randomness import epoch_order
from train.plan import Plan

MicroBatch = tuple[Tensor, Tensor]  # images N,3,H,W float32 normalised, labels N int64; both on the device

# Images of one forward pass in evaluation; no result depends on it. A worker decodes them one after the other, so with
# many more an evaluation would wait for its last workers.
EVAL_BATCH = 64


class Place(Protocol):
    """Which of several processes a loader serves."""

    rank: int  # among all ``size`` processes
    size: int
    local_size: int  # processes on this machine
    device: torch.device


class Loader(Protocol):
    """The batches of one process; images are float32 on the device, normalised, channels last."""

    def training_batches(self, plan: Plan, epoch: int, first_step: int) -> Iterator[MicroBatch]:
        """This rank's micro-batches of ``epoch`` from its ``first_step`` to its end."""

    def validation_batches(self) -> Iterator[MicroBatch]:
        """This rank's share of the validation images; every rank has equally many batches, some of them empty."""

    def pixels(self, images: Tensor) -> Tensor:
        """The ``images`` of a batch as uint8 N,H,W,C, to be looked at."""

    def remarks(self, waited: float) -> list[str]:
        """Lines about the images of an epoch for the reader of the log.

        ``waited`` is the share of the epoch's time that the host waited for batches.
        """

    def close(self) -> None:
        """End the worker processes."""


class Normalise:
    """uint8 N,H,W,C to float32 N,C,H,W, channels last, on the device; mirrored where ``flip`` is true."""

    def __init__(self, mean: list[float], std: list[float], device: torch.device) -> None:
        self._device = device
        # multiplied on the CPU: a copy from there is complete, for every stream, when the host goes on
        self._mean, self._std = ((255 * torch.tensor(values)).to(device) for values in (mean, std))

    def __call__(self, images: Tensor, labels: Tensor, flip: Tensor | None = None) -> MicroBatch:
        images = images.to(self._device, non_blocking=True)
        if flip is not None:
            flip = flip.to(self._device, non_blocking=True)
            images = torch.where(flip.view(-1, 1, 1, 1), images.flip(2), images)
        # Whole rows at a time: with three channels as the last dimension a CPU takes six times as long.
        rows, width = images.flatten(2).float(), images.shape[2]
        rows.sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        return rows.view(images.shape).permute(0, 3, 1, 2), labels.to(self._device, non_blocking=True)

    def undo(self, images: Tensor) -> Tensor:
        """Normalised N,C,H,W, on any device, as uint8 N,H,W,C again."""
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        return (images.permute(0, 2, 3, 1) * std + mean).round().clamp(0, 255).byte()


class SideStream:
    """Work of a device beside what it is computing, such as the next batch, which is copied and normalised meanwhile.

    The host runs ahead of the device, so the copy of a batch begins while the one before is computed. On a device
    without streams it is as if the class were not there.
    """

    def __init__(self, device: torch.device) -> None:
        self._streams = torch.get_device_module(device) if device.type in ("cuda", "xpu") else None
        self._side = self._streams.Stream(device) if self._streams else None

    def __call__(self, make: Callable[[], MicroBatch]) -> MicroBatch:
        """What ``make`` returns, for use in the stream that is current now."""
        if self._streams is None:
            return make()
        current = self._streams.current_stream()
        with self._streams.stream(self._side):
            batch = make()
        current.wait_stream(self._side)
        for tensor in batch:
            # their memory was allocated in the other stream, which must not reuse it before this one is done with them
            tensor.record_stream(current)
        return batch


def on_device(indices: NDArray[np.int64], device: torch.device) -> Tensor:
    """``indices`` on ``device``, without waiting for it: from pinned memory."""
    tensor = torch.from_numpy(indices)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def micro_batches(plan: Plan, seed: int, epoch: int, first_step: int, rank: int) -> Iterator[NDArray[np.int64]]:
    """The images of each of this rank's micro-batches; all ranks' together are the epoch's order, step by step."""
    order = epoch_order(seed, epoch, plan.train_images)
    mine = plan.accumulation * plan.micro
    for step in range(first_step, plan.steps_per_epoch):
        start = step * plan.total + rank * mine
        yield from order[start : start + mine].reshape(plan.accumulation, plan.micro)


def share(n: int, rank: int, size: int) -> range:
    """The contiguous part of ``range(n)`` that ``rank`` takes; ``size`` ranks together take each number once."""
    return range(n * rank // size, n * (rank + 1) // size)


def validation_shares(images: int, rank: int, size: int, batch: int = EVAL_BATCH) -> Iterator[NDArray[np.int64]]:
    """This rank's validation indices, ``batch`` at a time; the largest share sets the number of batches for all."""
    mine = np.array(share(images, rank, size), dtype=np.int64)
    rounds = math.ceil(math.ceil(images / size) / batch)
    for i in range(rounds):
        yield mine[i * batch : (i + 1) * batch]
