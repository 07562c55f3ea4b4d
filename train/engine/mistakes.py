"""The validation images on which the network is most confidently wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from train.processes.world import World

COUNT = 32


class Worst(NamedTuple):
    """Wrongly classified images, the most confident first: each field has one entry for each image."""

    probabilities: Tensor  # of the predicted class; -1 where the prediction is right
    labels: Tensor
    predictions: Tensor
    images: Tensor  # N,3,H,W, normalised

    def captions(self, class_names: Sequence[str]) -> list[str]:
        """Two lines for each image: the true class, and the predicted one with its probability."""
        return [
            f"true: {class_names[label][:12]}\npredicted: {class_names[prediction][:12]}, {probability:.0%}"
            for probability, label, prediction in zip(*(values.tolist() for values in self[:3]), strict=True)
        ]


class Mistakes:
    """The ``COUNT`` images, of all that ``add`` is given on any rank, whose wrong class had the highest probability."""

    def __init__(self) -> None:
        self._kept: Worst | None = None

    def add(self, images: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Take a batch: images N,3,H,W, labels N, float logits N,K. Nothing waits for the device."""
        probabilities, predictions = logits.softmax(1).max(1)
        wrong = torch.where(predictions == labels, -1.0, probabilities)
        # the largest of the batch first, so that few images are copied
        batch = _largest(Worst(wrong, labels, predictions, images))
        self._kept = batch if self._kept is None else _largest(_joined([self._kept, batch]))

    def worst(self, world: World) -> Worst:
        """The images on the CPU; every rank must call it, and all get the same."""
        kept = None if self._kept is None else Worst(*(values.cpu() for values in self._kept))
        worst = _largest(_joined([share for share in world.gather(kept) if share is not None]))
        return Worst(*(values[worst.probabilities >= 0] for values in worst))


def _joined(parts: Sequence[Worst]) -> Worst:
    return Worst(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _largest(worst: Worst) -> Worst:
    order = worst.probabilities.topk(min(COUNT, len(worst.probabilities))).indices
    return Worst(*(values[order] for values in worst))
