"""What loaders share: which images a rank takes for a step or a validation, and the way to the device."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data.randomness import epoch_order
from train.plan import Plan

MicroBatch = tuple[Tensor, Tensor]  # images N,3,H,W float32 normalised, labels N int64; both on the device

Request = tuple[int | None, NDArray[np.int64]]  # epoch from 0, or None for validation; image indices

EVAL_BATCH = 64  # images of one forward pass in evaluation; no result depends on it


class Process(Protocol):
    """Which of several processes a loader serves."""

    rank: int  # among all ``size`` processes
    size: int
    cores: int  # for this process
    device: torch.device


class Loader(ABC):
    """The batches of one process; images are float32 on the device, normalised, channels last.

    Which images these are, is a function of the position in the run: a sequence of requests. A kind of loader answers
    requests, and may read ahead as far as they go.
    """

    def __init__(self, val_count: int, process: Process, seed: int, eval_batch: int = EVAL_BATCH) -> None:
        self._val_count, self._process, self._seed, self._eval_batch = val_count, process, seed, eval_batch

    @abstractmethod
    def batches(self, requests: Iterator[Request]) -> Iterator[MicroBatch]:
        """A batch for each of ``requests``, in their order."""

    def run_batches(self, plan: Plan, step: int, evaluate_first: bool = False) -> Iterator[MicroBatch]:
        """This rank's batches from ``step`` to the end of the run: of training, of each validation, of training again.

        ``evaluate_first``: the validation before ``step`` is still to be made.
        """
        rank = self._process.rank
        return self.batches(run_requests(plan, self._seed, step, rank, self._validation, evaluate_first))

    def training_batches(self, plan: Plan, epoch: int, first_step: int) -> Iterator[MicroBatch]:
        """This rank's micro-batches of ``epoch`` from its ``first_step`` to its end."""
        order = epoch_order(self._seed, epoch, plan.train_images)
        mine = micro_batches(plan, epoch, order, first_step, self._process.rank)
        return self.batches((epoch, indices) for indices in mine)

    def validation_batches(self) -> Iterator[MicroBatch]:
        """This rank's share of the validation images; every rank has equally many batches, some of them empty."""
        return self.batches(iter(self._validation))

    @property
    def validation_rounds(self) -> int:
        """The number of batches of a validation."""
        return len(self._validation)

    @cached_property
    def _validation(self) -> list[Request]:
        shares = validation_shares(self._val_count, self._process.rank, self._process.size, self._eval_batch)
        return [(None, indices) for indices in shares]

    @abstractmethod
    def pixels(self, images: Tensor) -> Tensor:
        """The ``images`` of a batch as uint8 N,H,W,C, to be looked at."""

    def remarks(self, waited: float) -> list[str]:
        """Lines about the images since the last evaluation for the reader of the log.

        ``waited`` is the share of the time that steps waited for batches.
        """
        return []

    def close(self) -> None:  # noqa: B027
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
    """Runs work on a side stream of a device, such as copying and normalising the next batch, while it computes.

    The host runs ahead of the device, so the copy of a batch begins while the one before is computed. On a CPU the work
    is done at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, make: Callable[[], MicroBatch]) -> MicroBatch:
        """What ``make`` returns, for use in the stream that is current now."""
        if self._side is None:
            return make()
        current = torch.cuda.current_stream()
        with torch.cuda.stream(self._side):
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


def run_requests(
    plan: Plan, seed: int, step: int, rank: int, validation: Sequence[Request], evaluate_first: bool
) -> Iterator[Request]:
    """A rank's requests from ``step`` to the end of the run; ``validation`` has those of one evaluation.

    The next epoch's order is sorted while this one's is dealt out: a million images take a tenth of a second.
    """
    first_epoch, first_step = plan.locate(step)
    if evaluate_first:
        yield from validation
    with ThreadPoolExecutor(1, "order") as pool:
        order = pool.submit(epoch_order, seed, first_epoch, plan.train_images)
        for epoch in range(first_epoch, plan.epochs):
            now, order = order, pool.submit(epoch_order, seed, epoch + 1, plan.train_images)
            yield from ((epoch, indices) for indices in micro_batches(plan, epoch, now.result(), first_step, rank))
            if plan.is_evaluated(epoch + 1):
                yield from validation
            first_step = 0


def micro_batches(
    plan: Plan, epoch: int, order: NDArray[np.int64], first_step: int, rank: int
) -> Iterator[NDArray[np.int64]]:
    """The images of each of this rank's micro-batches; all ranks' together are the epoch's order, step by step."""
    total, accumulation = plan.total_in(epoch), plan.accumulation_in(epoch)
    mine = accumulation * plan.micro
    for step in range(first_step, plan.train_images // total):
        start = step * total + rank * mine
        yield from order[start : start + mine].reshape(accumulation, plan.micro)


def validation_shares(images: int, rank: int, size: int, batch: int = EVAL_BATCH) -> Iterator[NDArray[np.int64]]:
    """This rank's validation indices, ``batch`` at a time; the largest share sets the number of batches for all."""
    mine = np.arange(images * rank // size, images * (rank + 1) // size)
    rounds = math.ceil(math.ceil(images / size) / batch)
    for i in range(rounds):
        yield mine[i * batch : (i + 1) * batch]
