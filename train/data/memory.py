"""The loader of small images: decoded once, kept in memory as uint8, shifted by a few pixels in every epoch."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.data import augment
from train.data.dataset import DataConfig
from train.data.loader import Loader, MicroBatch, Normalise, Place, Request, validation_shares
from train.data.randomness import SHIFT_X, SHIFT_Y, below

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images N,H,W,C and labels N


class MemoryLoader(Loader):
    """Batches of ``train`` and ``val``, whose images are of one square size; ``shift`` in pixels, both ways."""

    def __init__(self, train: Split, val: Split, config: DataConfig, shift: int, place: Place, seed: int) -> None:
        super().__init__(len(val[1]), place, seed)
        self._config, self._shift = config, shift
        self._normalise = Normalise(config.mean, config.std, place.device)
        padded = torch.from_numpy(np.pad(train[0], [(0, 0), (shift, shift), (shift, shift), (0, 0)], mode="edge"))
        # a view of every shifted copy: image, shift down, shift right, channel, height, width
        self._windows = padded.unfold(1, config.size, 1).unfold(2, config.size, 1)
        self._labels = torch.from_numpy(train[1])
        self._val_images, self._val_labels = (torch.from_numpy(array) for array in val)

    def batches(self, requests: Iterator[Request]) -> Iterator[MicroBatch]:
        for epoch, indices in requests:
            if epoch is None:
                yield self._normalise(self._val_images[indices], self._val_labels[indices])
            else:
                yield self._training_batch(epoch, indices)

    def _training_batch(self, epoch: int, indices: NDArray[np.int64]) -> MicroBatch:
        down, right = (
            torch.from_numpy(below(2 * self._shift + 1, axis, self._seed, epoch, indices))
            for axis in (SHIFT_Y, SHIFT_X)
        )
        flip = torch.from_numpy(augment.flips(self._seed, epoch, indices))
        index = torch.from_numpy(indices)
        images = self._windows[index, down, right].permute(0, 2, 3, 1)
        images, labels = self._normalise(images, self._labels[index], flip)
        size = self._config.progressive.size(self._config.size, epoch)
        if size != self._config.size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        return images, labels

    def pixels(self, images: Tensor) -> Tensor:
        return self._normalise.undo(images)


def in_order(split: Split, config: DataConfig, place: Place) -> Iterator[MicroBatch]:
    """The share of ``place`` in the images of ``split``, in batches."""
    normalise = Normalise(config.mean, config.std, place.device)
    images, labels = (torch.from_numpy(array) for array in split)
    for indices in validation_shares(len(labels), place.rank, place.size):
        yield normalise(images[indices], labels[indices])
