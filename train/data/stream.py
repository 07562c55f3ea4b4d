"""The loader of large data sets: worker processes read, decode and cut images, the device does the rest."""

import math
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import ForkServerContext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from train.config import ImageNetConfig, Plan, train_size
from train.cores import cores
from train.data import augment
from train.data.decode import draw, evaluation_image, training_image
from train.data.loader import Normalise, micro_batches, shares
from train.data.sources import Source
from train.errors import UserError
from train.step import MicroBatch
from train.world import World

Remark = tuple[str, str]  # one of these two, and what it says of which file
NOT_PLAIN, SKIPPED = "not plain JPEG, decoded by Pillow", "skipped, their neighbours stand in"
WAITED_TOO_LONG = 0.05  # of an epoch's time

Request = tuple[int | None, NDArray[np.int64]]  # epoch, or None for validation; image indices


class StreamLoader:
    """Images read, decoded and cut by worker processes, and normalised and mirrored on the device."""

    def __init__(self, train: Source, val: Source, config: ImageNetConfig, plan: Plan, seed: int, world: World) -> None:
        self._val_images, self._plan, self._seed, self._world = len(val), plan, seed, world
        self._normalise = Normalise(config, world.device)
        workers = cores(shared_by=world.local_size) if config.workers is None else config.workers
        self._workers = workers
        self._sampler = _Sampler()
        self._said: set[Remark] = set()
        self._to_say: list[Remark] = []
        self._loader: DataLoader[Any] = DataLoader(
            _Samples(train, val, config, seed),
            sampler=self._sampler,
            batch_size=None,
            num_workers=workers,
            pin_memory=world.device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=_serve,
            multiprocessing_context=_fork_server() if workers > 0 else None,
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
            images, labels, flip, remarks = sample
            # DataLoader makes lists of them
            remarks = [tuple(remark) for remark in remarks]
            self._to_say += [remark for remark in remarks if remark not in self._said]
            self._said.update(remarks)
            yield self._normalise(images, labels, flip)

    def pixels(self, images: Tensor) -> Tensor:
        return self._normalise.undo(images)

    def remarks(self, waited: float) -> list[str]:
        lines = []
        if waited > WAITED_TOO_LONG:
            lines.append(
                f"waited for data {waited:.0%} of the epoch: more than data.workers={self._workers}, or images packed "
                "by scripts/pack.py, would help (docs/data.md)"
            )
        for kind in (NOT_PLAIN, SKIPPED):
            if of_kind := [what for its_kind, what in self._to_say if its_kind == kind]:
                more = f" and {len(of_kind) - 20:,} more" if len(of_kind) > 20 else ""
                lines.append(f"{kind}: {len(of_kind):,} files: {', '.join(of_kind[:20])}{more}")
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

    With a batch go remarks on files: those that only Pillow could decode, those that could not be.
    """

    def __init__(self, train: Source, val: Source, config: ImageNetConfig, seed: int) -> None:
        self._train, self._val, self._config, self._seed = train, val, config, seed

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor, Tensor | None, list[Remark]] | UserError:
        epoch, indices = request
        source, config = (self._val, self._config) if epoch is None else (self._train, in_epoch(self._config, epoch))
        images = _empty_batch(len(indices), config.size)
        pixels, remarks, used = images.numpy(), [], indices.copy()
        drawn = None if epoch is None else draw(config, self._seed, epoch, indices)
        for i in range(len(indices)):
            while True:
                index = int(used[i])
                try:
                    if drawn is None:
                        pixels[i] = evaluation_image(source, index, config)
                    else:
                        pixels[i], is_plain = training_image(source, index, config, drawn[i])
                        if not is_plain:
                            remarks.append((NOT_PLAIN, source.name(index)))
                    break
                except UserError as error:
                    # the neighbour stands in: of the same class most often, and the same one every time
                    used[i] = (index + 1) % len(source)
                    if config.on_bad_image == "stop" or used[i] == indices[i]:
                        return error
                    remarks.append((SKIPPED, str(error)))
        flip = None if epoch is None else torch.from_numpy(augment.flips(self._seed, epoch, indices))
        return images, torch.from_numpy(source.labels(used)), flip, remarks


def in_epoch(config: ImageNetConfig, epoch: int) -> ImageNetConfig:
    """``config`` with the sizes of training images in ``epoch``."""
    size = train_size(config, epoch)
    return replace(config, size=size, resize=config.resize * size // config.size)


def _empty_batch(count: int, size: int) -> Tensor:
    """uint8 count,size,size,3; in a worker in the memory it shares with its parent, so that nothing is copied."""
    shape = (count, size, size, 3)
    if get_worker_info() is None or count == 0:
        return torch.empty(shape, dtype=torch.uint8)
    # as torch's own collate does
    shared = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)  # type: ignore[call-overload]


def _fork_server() -> ForkServerContext:
    """Where workers come from: a process without GPU or threads that has this module, and torch, already.

    Each by itself would import torch for 1.5 s and keep 300 MB of its own.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    return context


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes for other work on images; what stops them is the process that has them."""
    return ProcessPoolExecutor(workers, _fork_server(), initializer=_serve, initargs=(0,))


def _serve(_worker: int) -> None:
    """End with the training process and at its word: a terminal and torchrun signal the whole group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_the_parent() -> None:
    # torch looks at the parent's process number, which for us is the fork server's, which lives as long as we do
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
