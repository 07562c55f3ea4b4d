"""The loader of small images: decoded once, kept on the device as uint8, shifted by a few pixels in every epoch."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.data import augment
from train.data.dataset import DataConfig
from train.data.loader import EVAL_BATCH, MicroBatch, Normalise, Place, micro_batches, on_device, validation_shares
from train.data.randomness import SHIFT_X, SHIFT_Y, below
from train.plan import Plan

# Images of a forward pass in evaluation on a GPU, where one of a small network with few images is all launches.
GPU_EVAL_BATCH = 1024

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images N,H,W,C and labels N


class MemoryLoader:
    """Batches of ``train`` and ``val``, whose images are of one square size; ``shift`` in pixels, both ways."""

    def __init__(self, train: Split, val: Split, config: DataConfig, shift: int, place: Place, seed: int) -> None:
        self._config, self._shift, self._place, self._seed = config, shift, place, seed
        self._normalise = Normalise(config.mean, config.std, place.device)
        padded = torch.from_numpy(np.pad(train[0], [(0, 0), (shift, shift), (shift, shift), (0, 0)], mode="edge"))
        padded, self._labels, self._val_images, self._val_labels = (
            tensor.to(place.device) for tensor in (padded, *map(torch.from_numpy, (train[1], *val)))
        )
        # a view of every shifted copy: image, shift down, shift right, channel, height, width
        self._windows = padded.unfold(1, config.size, 1).unfold(2, config.size, 1)
        self._eval_batch = EVAL_BATCH if place.device.type == "cpu" else GPU_EVAL_BATCH

    def training_batches(self, plan: Plan, epoch: int, first_step: int) -> Iterator[MicroBatch]:
        size = self._config.progressive.size(self._config.size, epoch)
        for indices in micro_batches(plan, self._seed, epoch, first_step, self._place.rank):
            shifts = (below(2 * self._shift + 1, axis, self._seed, epoch, indices) for axis in (SHIFT_Y, SHIFT_X))
            drawn = np.stack([indices, *shifts, augment.flips(self._seed, epoch, indices)])
            index, down, right, flip = on_device(drawn, self._place.device)
            images = self._windows[index, down, right].permute(0, 2, 3, 1)
            images, labels = self._normalise(images, self._labels[index], flip.bool())
            if size != self._config.size:
                images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            yield images, labels

    def validation_batches(self) -> Iterator[MicroBatch]:
        for indices in validation_shares(len(self._val_labels), self._place.rank, self._place.size, self._eval_batch):
            index = on_device(indices, self._place.device)
            yield self._normalise(self._val_images[index], self._val_labels[index])

    def pixels(self, images: Tensor) -> Tensor:
        return self._normalise.undo(images)

    def remarks(self, waited: float) -> list[str]:
        return []

    def close(self) -> None:
        pass
