"""One optimizer step over a global batch, and one evaluation over a validation set."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.profiler import record_function

from train.batchnorm import RunningStatistics
from train.world import World

MicroBatch = tuple[Tensor, Tensor]  # images N,3,H,W float32 normalised, labels N int64; both on the device


@dataclass(frozen=True)
class Arithmetic:
    """How a forward pass is computed: in ``dtype`` where autocast has it, on ``device``."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def autocast(self) -> torch.autocast | nullcontext[None]:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    micro_batches: Iterable[MicroBatch],
    count: int,
    statistics: RunningStatistics,
    world: World,
    arithmetic: Arithmetic,
    *,
    lr: float,
    smoothing: float,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Tensor], None] = lambda loss: None,
) -> Tensor | None:
    """Move the weights once, down the mean loss over every image of every rank's ``count`` micro-batches.

    All micro-batches, on all ranks, have one size. Returns the mean loss over all ranks before the step, in
    nats, 0-d float32 and still on the device: reading it waits. When any rank's ``stop()`` is true the step
    is dropped, weights and statistics are as before, and None is returned on every rank. ``watch`` is given that
    loss after the step, while gradients are still there.
    """
    model.train()
    loss_sum = torch.zeros((), device=arithmetic.device)
    statistics.begin()
    for i, (images, labels) in enumerate(micro_batches):
        if world.agree(stop()):
            statistics.undo()
            optimizer.zero_grad(set_to_none=True)
            return None
        # gradients add up on each rank; the last backward pass averages them over the ranks
        with nullcontext() if i == count - 1 else world.without_sync(model):
            with record_function("forward"):
                with arithmetic.autocast():
                    logits = model(images)
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing) / count
            with record_function("backward"):
                loss.backward()
        loss_sum += loss.detach()
    statistics.combine(count)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    loss = world.total(loss_sum) / world.size
    watch(loss)
    optimizer.zero_grad(set_to_none=True)
    return loss


@dataclass(frozen=True)
class Scores:
    """An evaluation over ``images`` images: top-1 and top-5 in percent, loss in nats."""

    top1: float
    top5: float
    loss: float
    images: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[MicroBatch],
    world: World,
    arithmetic: Arithmetic,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> Scores | None:
    """Score ``model``, the bare module, on all ranks' ``batches``: sums first, one division at the end.

    Each rank gives its own share of the images; shares may differ in size and may be empty, but the number of
    ``batches`` is the same on every rank. None when any rank's ``stop()`` is true. ``watch`` is given images, labels
    and logits of every batch.
    """
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=arithmetic.device)  # correct, in top 5, loss, images
    for images, labels in batches:
        if world.agree(stop()):
            return None
        if len(labels) == 0:
            continue
        with arithmetic.autocast():
            logits = model(images)
        logits = logits.float()
        if watch:
            watch(images, labels, logits)
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
        sums += torch.stack([ranked[:, 0].sum(), ranked.sum(), loss, loss.new_full((), len(labels))])
    correct, in_top5, loss_sum, images_seen = world.total(sums).tolist()
    return Scores(100 * correct / images_seen, 100 * in_top5 / images_seen, loss_sum / images_seen, int(images_seen))
