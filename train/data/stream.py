"""The loader of large data sets: worker processes read, decode and cut images, the device does the rest."""

import math
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from train.config import ImageNetConfig, Plan
from train.data import augment
from train.data.decode import draw, evaluation_image, training_image
from train.data.loader import Normalise, micro_batches, shares
from train.data.sources import Source
from train.errors import UserError
from train.step import MicroBatch
from train.world import World

WAITED_TOO_LONG = 0.05  # of an epoch's time

Request = tuple[int | None, NDArray[np.int64]]  # epoch, or None for validation; image indices


class StreamLoader:
    """Images read, decoded and cut by worker processes, and normalised and mirrored on the device."""

    def __init__(self, train: Source, val: Source, config: ImageNetConfig, plan: Plan, seed: int, world: World) -> None:
        self._val_images, self._plan, self._seed, self._world = len(val), plan, seed, world
        self._normalise = Normalise(config, world.device)
        workers = config.workers
        if workers is None:
            workers = max(1, (os.cpu_count() or 1) // world.local_size)
        self._workers = workers
        self._sampler = _Sampler()
        self._not_plain: set[str] = set()
        self._to_say: list[str] = []
        self._loader: DataLoader[Any] = DataLoader(
            _Samples(train, val, config, seed),
            sampler=self._sampler,
            batch_size=None,
            num_workers=workers,
            pin_memory=world.device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_the_parent,
            multiprocessing_context="forkserver" if workers > 0 else None,
        )

    def train(self, epoch: int, first_step: int) -> Iterator[MicroBatch]:
        mine = micro_batches(self._plan, self._seed, epoch, first_step, self._world.rank)
        return self._stream((epoch, indices) for indices in mine)

    def validation(self) -> Iterator[MicroBatch]:
        return self._stream((None, indices) for indices in shares(self._val_images, self._world))

    def _stream(self, requests: Iterator[Request]) -> Iterator[MicroBatch]:
        self._sampler.requests = requests
        for sample in self._loader:
            if isinstance(sample, UserError):
                raise sample
            images, labels, flip, not_plain = sample
            self._to_say += [name for name in not_plain if name not in self._not_plain]
            self._not_plain.update(not_plain)
            yield self._normalise(images, labels, flip)

    def remarks(self, waited: float) -> list[str]:
        lines = []
        if waited > WAITED_TOO_LONG:
            lines.append(
                f"waited for data {waited:.0%} of the epoch: more than data.workers={self._workers}, or images packed "
                "by scripts/pack.py, would help (docs/data.md)"
            )
        if self._to_say:
            more = f" and {len(self._to_say) - 20:,} more" if len(self._to_say) > 20 else ""
            names = ", ".join(self._to_say[:20])
            lines.append(f"not plain JPEG, decoded by Pillow: {len(self._to_say):,} files: {names}{more}")
            self._to_say = []
        return lines

    def close(self) -> None:
        del self._loader


class _Sampler:
    """Hands the loader the requests of one epoch or one validation, as they are set."""

    requests: Iterator[Request]

    def __iter__(self) -> Iterator[Request]:
        return self.requests


class _Samples(Dataset[Any]):
    """A worker's side: a request in, a batch of uint8 N,H,W,C out, or the error that a file caused.

    With a batch go the names of the files that only Pillow could decode.
    """

    def __init__(self, train: Source, val: Source, config: ImageNetConfig, seed: int) -> None:
        self._train, self._val, self._config, self._seed = train, val, config, seed

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor, Tensor | None, list[str]] | UserError:
        epoch, indices = request
        source, config = (self._val if epoch is None else self._train), self._config
        images = _empty_batch(len(indices), config.size)
        pixels, not_plain = images.numpy(), []
        drawn = None if epoch is None else draw(config, self._seed, epoch, indices)
        try:
            for i, index in enumerate(indices.tolist()):
                if drawn is None:
                    pixels[i] = evaluation_image(source, index, config)
                else:
                    pixels[i], is_plain = training_image(source, index, config, drawn[i])
                    if not is_plain:
                        not_plain.append(source.name(index))
        except UserError as error:
            return error
        flip = None if epoch is None else torch.from_numpy(augment.flips(self._seed, epoch, indices))
        return images, torch.from_numpy(source.labels(indices)), flip, not_plain


def _empty_batch(count: int, size: int) -> Tensor:
    """uint8 count,size,size,3; in a worker in the memory it shares with its parent, so that nothing is copied."""
    shape = (count, size, size, 3)
    if get_worker_info() is None or count == 0:
        return torch.empty(shape, dtype=torch.uint8)
    # as torch's own collate does
    shared = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)  # type: ignore[call-overload]


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes for other work on images; what stops them is the process that has them."""
    return ProcessPoolExecutor(
        workers, get_context("forkserver"), initializer=_leave_signals_to_the_parent, initargs=(0,)
    )


def _leave_signals_to_the_parent(_worker: int) -> None:
    """A terminal and torchrun signal the whole group; the training process decides when workers end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
