"""The validation images on which the network is most confidently wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    images: Tensor  # N,3,H,W, normalised, while they are collected; at the end uint8 N,H,W,3

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
        if self._kept is not None:
            batch = _largest(Worst(*map(torch.cat, zip(self._kept, batch, strict=True))))
        self._kept = batch

    def worst(self, world: World, pixels: Callable[[Tensor], Tensor]) -> Worst | None:
        """The images on the chief, their ``pixels`` as uint8 N,H,W,3; None elsewhere, and where nothing was wrong.

        Every rank must call it. From a few numbers of each, all ranks learn whose images these are, and only those send
        images, to the chief: with many processes everything else would be gigabytes.
        """
        kept = self._kept
        mine = torch.empty(0, 3) if kept is None else torch.stack([values.cpu().double() for values in kept[:3]], dim=1)
        ranks = world.gather(mine)
        numbers = torch.cat(ranks)
        owners = torch.cat([torch.full((len(share),), rank) for rank, share in enumerate(ranks)])
        order = numbers[:, 0].argsort(descending=True, stable=True)[:COUNT]
        order = order[numbers[order, 0] >= 0]
        numbers, owners = numbers[order], owners[order]
        # a rank keeps the most confident first, so that those chosen are its first ones
        images = None if kept is None else pixels(kept.images[: int((owners == world.rank).sum())]).cpu()
        sent = world.send_to_chief(images, owners.unique().tolist())
        if not sent:
            return None
        by_rank = torch.cat([of_rank for of_rank in sent if of_rank is not None])
        images = torch.empty_like(by_rank)
        images[owners.argsort(stable=True)] = by_rank
        return Worst(numbers[:, 0], numbers[:, 1].long(), numbers[:, 2].long(), images)


def _largest(worst: Worst) -> Worst:
    order = worst.probabilities.topk(min(COUNT, len(worst.probabilities))).indices
    return Worst(*(values[order] for values in worst))
