"""One evaluation over a validation set, exact on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.data.loader import MicroBatch
from train.engine.precision import Precision
from train.processes.world import World

TOP = 5  # classes among which the true one counts for top-5


@dataclass(frozen=True)
class Scores:
    """An evaluation over ``images`` images: top-1 and top-5 in percent, loss in nats."""

    top1: float
    top5: float
    loss: float
    images: int


@dataclass(frozen=True)
class Evaluation:
    """Scores ``model``, the bare module: sums over all ranks first, and one division at the end."""

    model: nn.Module
    world: World
    precision: Precision

    @torch.no_grad()
    def __call__(
        self, batches: Iterable[MicroBatch], look: Callable[[Tensor, Tensor, Tensor], None] | None = None
    ) -> Scores:
        """The scores over all ranks' ``batches``.

        Each rank gives its own share of the images. Shares may differ in size and may be empty, but the number of
        batches is the same on every rank. ``look`` is called with images, labels and logits of every batch.
        The model sees batches of one size, that of this rank's first: a smaller one is padded, and what the padding
        gives is not scored.
        """
        self.model.eval()
        size = 0
        sums = torch.zeros(4, dtype=torch.float64, device=self.precision.device)  # correct, in top 5, loss, images
        for images, labels in batches:
            if len(labels) == 0:
                continue
            size = size or len(labels)
            with self.precision.autocast():
                logits = self.model(padded(images, size))
            logits = logits[: len(labels)].float()
            if look:
                look(images, labels, logits)
            is_hit = logits.topk(min(TOP, logits.shape[1]), dim=1).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
            sums += torch.stack([is_hit[:, 0].sum(), is_hit.sum(), loss, loss.new_full((), len(labels))])
        correct, in_top5, loss_sum, images_seen = self.world.total(sums).tolist()
        return Scores(
            100 * correct / images_seen, 100 * in_top5 / images_seen, loss_sum / images_seen, int(images_seen)
        )


def padded(images: Tensor, size: int) -> Tensor:
    """``images`` padded with images of zeros to ``size``, in the same memory format.

    Otherwise a compiled model would be compiled again for each size, or switch to dynamic shapes.
    """
    missing = size - len(images)
    return F.pad(images, (0, 0) * (images.dim() - 1) + (0, missing)) if missing > 0 else images
