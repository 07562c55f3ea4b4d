"""One optimizer step over a global batch."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.profiler import record_function

from train.data.loader import MicroBatch
from train.engine.batchnorm import RunningStatistics
from train.engine.frozen import frozen_modules
from train.engine.gradients import GradientStatistic
from train.engine.noise import NoiseScale
from train.engine.precision import Precision
from train.engine.stop import StopVotes
from train.engine.variance_reduction import VarianceReduction
from train.processes.world import World


@dataclass
class Step:
    """One optimizer step, the same on every rank: connected once, called with micro-batches and a learning rate."""

    model: nn.Module  # as it is called: in DDP, or bare on a single process
    optimizer: Optimizer
    statistics: RunningStatistics
    votes: StopVotes
    world: World
    precision: Precision
    label_smoothing: float
    micro_batches: int  # of a step on this rank; the loop sets it where the batch grows
    scaler: GradScaler  # of the loss, for fp16
    noise: NoiseScale | None = None
    variance_reduction: VarianceReduction | None = None

    def __call__(self, batches: Iterable[MicroBatch], lr: float) -> Tensor:
        """Move the weights once, down the mean loss over every image of every rank's micro-batches.

        All micro-batches, on all ranks, have one size. Returns the mean loss over all ranks before the step, in nats,
        0-d float32 and still on the device: reading it waits. The gradients remain until the next call. If ``batches``
        raises, the step is dropped: weights and statistics are as before. A step whose fp16 gradients overflow leaves
        the weights as they are; an optimizer other than LARS makes the host wait for the device to learn of it.
        """
        self.model.train()
        for module in self._frozen:
            module.training = False
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self.precision.device)
        for statistic in self._of_gradients:
            statistic.begin(self.micro_batches)
        with self.statistics.one_step():
            for i, (images, labels) in enumerate(batches):
                is_last = i == self.micro_batches - 1
                # gradients add up on each rank; the last backward pass averages them over the ranks
                with nullcontext() if is_last else self.world.without_sync(self.model):
                    loss_sum += self._forward_backward(images, labels)
                for statistic in self._of_gradients:
                    statistic.micro_batch()
        loss = self._combined(loss_sum)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.unscale_(self.optimizer)
        for statistic in self._of_gradients:
            statistic.end(self.loss_scale)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    @property
    def _of_gradients(self) -> list[GradientStatistic]:
        # in this order: noise is that of gradients which nothing has scaled
        return [statistic for statistic in (self.noise, self.variance_reduction) if statistic]

    @cached_property
    def _frozen(self) -> list[nn.Module]:
        return frozen_modules(self.model)

    @property
    def loss_scale(self) -> Tensor:
        """What the next step's loss is multiplied by, 0-d, on the device; 1 without fp16."""
        return self.scaler.scale(torch.ones((), device=self.precision.device))

    def _forward_backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Add the gradients of one micro-batch, and return its part of the mean loss."""
        with record_function("forward"):
            with self.precision.autocast():
                logits = self.model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing) / self.micro_batches
        with record_function("backward"):
            self.scaler.scale(loss).backward()
        return loss.detach()

    def _combined(self, loss_sum: Tensor) -> Tensor:
        """The mean loss over all ranks; all statistics and ballots are combined with it, in one collective."""
        if self.world.size == 1:
            return loss_sum
        # zeros where no noise is measured: another length would have the collective add in another order
        squares = (
            self.noise.squares
            if self.noise
            else loss_sum.new_zeros(sum(p.requires_grad for p in self.model.parameters()))
        )
        mine = [loss_sum, self.votes.ballot(loss_sum.device), squares, *self.statistics.part(self.micro_batches)]
        loss, ballots, squares, *statistics = self.world.totals(mine)
        self.votes.count(ballots, self.micro_batches)
        self.statistics.combine(statistics, self.micro_batches)
        if self.noise:
            self.noise.squares = squares
        return loss / self.world.size
