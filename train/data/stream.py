"""The loader of large data sets: worker processes read, decode and crop images, the device does the rest."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import ForkServerContext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from train.data import augment
from train.data.dataset import DataConfig
from train.data.decode import evaluation_image, training_image
from train.data.loader import Loader, MicroBatch, Normalise, Process, Request, SideStream
from train.data.sources import Source
from train.errors import UserError

Remark = tuple[str, str]  # one of the two below, and the file
NOT_PLAIN, SKIPPED = "not plain JPEG, decoded by Pillow", "skipped and replaced by their neighbours"
WAITED_TOO_LONG = 0.05  # of an epoch's time

# Images of a validation batch that one worker decodes: with all of a batch, most workers would wait for the last ones.
VALIDATION_PIECE = 16

Piece = tuple[int | None, NDArray[np.int64], bool]  # a part of a request, and whether it is the last one


class StreamLoader(Loader):
    """Images read, decoded and cropped by worker processes, and normalised and mirrored on the device.

    ``crop`` gives the crop of an epoch, or of an evaluation for None. With ``skip_bad_images`` the next image that
    decodes replaces one that does not, which otherwise raises UserError.
    """

    def __init__(
        self,
        train: Source,
        val: Source,
        config: DataConfig,
        crop: Callable[[int | None], augment.Crop],
        skip_bad_images: bool,
        process: Process,
        seed: int,
    ) -> None:
        super().__init__(len(val), process, seed)
        self._normalise, self._beside = Normalise(config.mean, config.std, process.device), SideStream(process.device)
        self._workers = decoders(process.cores) if config.workers is None else config.workers
        self._sampler = _Sampler()
        self._known_remarks: set[int] = set()  # their hashes, because a data set may have a million
        self._new_remarks: list[Remark] = []
        self._answers: Generator[MicroBatch, None, None] | None = None
        self._loader: DataLoader[Any] = DataLoader(
            _Samples(train, val, crop, skip_bad_images, seed),
            sampler=self._sampler,
            batch_size=None,
            num_workers=self._workers,
            pin_memory=process.device.type == "cuda",
            persistent_workers=self._workers > 0,
            worker_init_fn=_start_worker,
            multiprocessing_context=_fork_server() if self._workers > 0 else None,
        )

    def batches(self, requests: Iterator[Request]) -> Iterator[MicroBatch]:
        self._answers = self._answer(requests)
        return self._answers

    def _answer(self, requests: Iterator[Request]) -> Generator[MicroBatch, None, None]:
        self._sampler.pieces = (piece for request in requests for piece in pieces(*request))
        parts: list[MicroBatch] = []
        for sample in self._samples():
            if isinstance(sample, UserError):
                raise sample
            images, labels, flip, remarks, is_last = sample
            # DataLoader turns tuples into lists
            remarks = [tuple(remark) for remark in remarks]
            self._new_remarks += [remark for remark in remarks if hash(remark) not in self._known_remarks]
            self._known_remarks.update(map(hash, remarks))
            parts.append(self._beside(partial(self._normalise, images, labels, flip)))
            if is_last:
                yield parts[0] if len(parts) == 1 else concatenated(parts)
                parts = []

    def _samples(self) -> Iterator[Any]:
        """What the worker processes send; raises UserError when the system has ended one."""
        try:
            yield from self._loader
        except (RuntimeError, OSError, EOFError) as error:
            # a worker that raised an error is not one that was ended
            raised_there = str(error).startswith("Caught ")
            if raised_there or (isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error)):
                raise
            raise UserError(
                f"a process that decodes images was ended ({str(error).splitlines()[0][:120]}), perhaps for want of "
                f"memory: give fewer than data.workers={self._workers}, or a container a larger --shm-size"
            ) from error

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
            files = [file for its_kind, file in self._new_remarks if its_kind == kind]
            if files:
                more = f" and {len(files) - 20:,} more" if len(files) > 20 else ""
                lines.append(f"{kind}: {len(files):,} files: {', '.join(files[:20])}{more}")
        self._new_remarks = []
        return lines

    def close(self) -> None:
        # a run may end before its last request, and a suspended loop would keep the workers
        if self._answers:
            self._answers.close()
        del self._loader


def pieces(epoch: int | None, indices: NDArray[np.int64]) -> Iterator[Piece]:
    """What workers decode of a request, one worker each: a micro-batch whole, a validation batch in parts."""
    size = len(indices) if epoch is not None else VALIDATION_PIECE
    for start in range(0, max(len(indices), 1), max(size, 1)):
        yield epoch, indices[start : start + size], start + size >= len(indices)


def concatenated(parts: Sequence[MicroBatch]) -> MicroBatch:
    """One batch of several, its images channels last as theirs."""
    images, labels = zip(*parts, strict=True)
    return torch.cat([part.permute(0, 2, 3, 1) for part in images]).permute(0, 3, 1, 2), torch.cat(labels)


def decoders(cores: int) -> int:
    """Worker processes of a training process with so many ``cores``, of which it keeps one or two for itself."""
    return max(1, cores - (2 if cores >= 8 else 1))


class _Sampler:
    """Gives DataLoader the pieces of a sequence of requests, which is set before it is begun."""

    pieces: Iterator[Piece]

    def __iter__(self) -> Iterator[Piece]:
        return self.pieces


class _Samples(Dataset[Any]):
    """A worker's side: takes a piece and returns its images as uint8 N,H,W,C, or the error that a file caused.

    With them come remarks on its files: those that only Pillow could decode, and those that were skipped.
    """

    def __init__(
        self, train: Source, val: Source, crop: Callable[[int | None], augment.Crop], skip: bool, seed: int
    ) -> None:
        self._train, self._val, self._crop, self._skip, self._seed = train, val, crop, skip, seed

    def __getitem__(self, piece: Piece) -> tuple[Tensor, Tensor, Tensor | None, list[Remark], bool] | UserError:
        epoch, indices, is_last = piece
        source, crop = self._val if epoch is None else self._train, self._crop(epoch)
        images = _empty_batch(len(indices), crop.size)
        pixels, remarks, used = images.numpy(), [], indices.copy()
        numbers = None if epoch is None else augment.random_numbers(crop, self._seed, epoch, indices)
        for i in range(len(indices)):
            # Once, unless images are skipped: then the next one that decodes is taken, of the same class most often and
            # the same one in every run. Back at the first, none of the data set decodes.
            while True:
                index = int(used[i])
                try:
                    if numbers is None:
                        pixels[i] = evaluation_image(source, index, crop)
                    else:
                        pixels[i], is_plain = training_image(source, index, crop, numbers[i])
                        if not is_plain:
                            remarks.append((NOT_PLAIN, source.name(index)))
                    break
                except UserError as error:
                    used[i] = (index + 1) % len(source)
                    if not self._skip or used[i] == indices[i]:
                        return error
                    remarks.append((SKIPPED, str(error)))
        flip = None if epoch is None else torch.from_numpy(augment.flips(self._seed, epoch, indices))
        return images, torch.from_numpy(source.labels(used)), flip, remarks, is_last


def _empty_batch(count: int, size: int) -> Tensor:
    """uint8 count,size,size,3; a worker makes it in memory shared with its parent, so that nothing is copied."""
    shape = (count, size, size, 3)
    if get_worker_info() is None or count == 0:
        return torch.empty(shape, dtype=torch.uint8)
    # as torch's own collate does
    shared = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)  # type: ignore[call-overload]


def _fork_server() -> ForkServerContext:
    """The process that workers are forked from: it has imported torch, and has no GPU or threads.

    A worker that imported torch itself would take 1.5 s and 300 MB more. This project's own modules are left to the
    workers: the fork server does not have this process's sys.path, and may find those of another checkout.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch.utils.data", "simplejpeg", "PIL.Image", "tqdm"])
    return context


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes for other work on images; only the process that owns them stops them."""
    return ProcessPoolExecutor(workers, _fork_server(), initializer=_start_worker, initargs=(0,))


def _start_worker(_worker: int) -> None:
    """Leave signals to the training process, which a terminal or torchrun signals too, and end when it ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(1)
    # the training process must not wait for a core to launch the next kernels
    os.nice(5)


def _end_with_the_parent() -> None:
    # torch watches the parent's process number, which here is the fork server's, and that lives as long as we do
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
