"""The loader of small images: decoded once, kept on the device as uint8, shifted by a few pixels in every epoch."""

import hashlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.data import augment
from train.data.dataset import DataConfig
from train.data.loader import (
    EVAL_BATCH,
    Loader,
    MicroBatch,
    Normalise,
    Process,
    Request,
    on_device,
    validation_shares,
)
from train.data.randomness import SHIFT_X, SHIFT_Y, below

# Images of a forward pass in evaluation on a GPU, where one of a small network with few images is all launches.
GPU_EVAL_BATCH = 1024

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images N,H,W,C and labels N


class MemoryLoader(Loader):
    """Batches of ``train`` and ``val``, whose images are of one square size; ``shift`` in pixels, both ways.

    ``border``: what a shift brings in, as ``numpy.pad`` names it: "edge", or black for "constant".
    """

    def __init__(
        self,
        train: Split,
        val: Split,
        config: DataConfig,
        shift: int,
        process: Process,
        seed: int,
        border: Literal["edge", "constant"] = "edge",
    ) -> None:
        super().__init__(len(val[1]), process, seed, eval_batch(process.device))
        self._config, self._shift = config, shift
        self._normalise = Normalise(config.mean, config.std, process.device)
        padded = torch.from_numpy(np.pad(train[0], [(0, 0), (shift, shift), (shift, shift), (0, 0)], mode=border))
        padded, self._labels, self._val_images, self._val_labels = (
            tensor.to(process.device) for tensor in (padded, *map(torch.from_numpy, (train[1], *val)))
        )
        # a view of every shifted copy: image, shift down, shift right, channel, height, width
        self._windows = padded.unfold(1, config.size, 1).unfold(2, config.size, 1)

    def batches(self, requests: Iterator[Request]) -> Iterator[MicroBatch]:
        for epoch, indices in requests:
            if epoch is None:
                index = on_device(indices, self._process.device)
                yield self._normalise(self._val_images[index], self._val_labels[index])
            else:
                yield self._training_batch(epoch, indices)

    def _training_batch(self, epoch: int, indices: NDArray[np.int64]) -> MicroBatch:
        shifts = (below(2 * self._shift + 1, axis, self._seed, epoch, indices) for axis in (SHIFT_Y, SHIFT_X))
        drawn = np.stack([indices, *shifts, augment.flips(self._seed, epoch, indices)])
        index, down, right, flip = on_device(drawn, self._process.device)
        images = self._windows[index, down, right].permute(0, 2, 3, 1)
        images, labels = self._normalise(images, self._labels[index], flip.bool())
        size = self._config.progressive.size(self._config.size, epoch)
        if size != self._config.size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        return images, labels

    def pixels(self, images: Tensor) -> Tensor:
        return self._normalise.undo(images)


def fingerprint(*splits: Split) -> str:
    """sha256 of the pixels of all ``splits``."""
    digest = hashlib.sha256()
    for pixels, _ in splits:
        digest.update(pixels.tobytes())
    return digest.hexdigest()


def in_order(split: Split, config: DataConfig, process: Process) -> Iterator[MicroBatch]:
    """The share of ``process`` in the images of ``split``, in batches."""
    normalise = Normalise(config.mean, config.std, process.device)
    images, labels = (torch.from_numpy(array) for array in split)
    for indices in validation_shares(len(labels), process.rank, process.size, eval_batch(process.device)):
        yield normalise(images[indices], labels[indices])


def eval_batch(device: torch.device) -> int:
    return EVAL_BATCH if device.type == "cpu" else GPU_EVAL_BATCH
