"""The loader of small images: decoded once, kept in memory as uint8, moved by a few pixels every epoch."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.config import FractalsConfig, Plan, train_size
from train.data import augment
from train.data.loader import Normalise, micro_batches, shares
from train.data.order import SHIFT_X, SHIFT_Y, below
from train.step import MicroBatch
from train.world import World

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images N,H,W,C and labels N


class MemoryLoader:
    """Batches of ``train`` and ``val``, all images of one square size."""

    def __init__(self, train: Split, val: Split, config: FractalsConfig, plan: Plan, seed: int, world: World) -> None:
        self._plan, self._seed, self._world = plan, seed, world
        self._normalise = Normalise(config, world.device)
        self._config, self._shift = config, config.shift
        edges = [(0, 0), (config.shift, config.shift), (config.shift, config.shift), (0, 0)]
        padded = torch.from_numpy(np.pad(train[0], edges, mode="edge"))
        # a view of every shifted copy: n, up-down, left-right, channel, height, width
        self._windows = padded.unfold(1, config.size, 1).unfold(2, config.size, 1)
        self._labels = torch.from_numpy(train[1])
        self._val_images, self._val_labels = (torch.from_numpy(array) for array in val)

    def train(self, epoch: int, first_step: int) -> Iterator[MicroBatch]:
        size = train_size(self._config, epoch)
        for indices in micro_batches(self._plan, self._seed, epoch, first_step, self._world.rank):
            down, right = (
                torch.from_numpy(below(2 * self._shift + 1, axis, self._seed, epoch, indices))
                for axis in (SHIFT_Y, SHIFT_X)
            )
            flip = torch.from_numpy(augment.flips(self._seed, epoch, indices))
            index = torch.from_numpy(indices)
            images = self._windows[index, down, right].permute(0, 2, 3, 1)
            images, labels = self._normalise(images, self._labels[index], flip)
            if size != self._config.size:
                images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            yield images, labels

    def validation(self) -> Iterator[MicroBatch]:
        for indices in shares(len(self._val_labels), self._world):
            yield self._normalise(self._val_images[indices], self._val_labels[indices])

    def pixels(self, images: Tensor) -> Tensor:
        return self._normalise.undo(images)

    def remarks(self, waited: float) -> list[str]:
        return []

    def close(self) -> None:
        pass
