"""How the images of a run divide into steps, processes and micro-batches."""

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from train.errors import UserError
from train.keys import key


@dataclass(kw_only=True)
class BatchConfig:
    preset: str
    published: int
    total: int = key(least=1)
    micro: int = key(least=1)
    reference_micro: int
    grow: list[list[int]] | None = key(range="pairs of an epoch, from 0 and ascending, and images")

    @property
    def totals(self) -> list[int]:
        """Images of a step, in the order in which a run has them."""
        return [total for _, total in self.grow] if self.grow else [self.total]

    @property
    def micro_batches(self) -> int:
        """What processes share equally: the largest number that divides the micro-batches of every step."""
        return math.gcd(*(total // self.micro for total in self.totals))

    def check(self, epochs: int) -> None:
        """Raise UserError for a batch that a run of so many ``epochs`` cannot have."""
        if self.grow is not None:
            self._check_growth(epochs)
        for total in self.totals:
            if total % self.micro:
                most = min(self.micro, total)
                below = max(n for n in range(1, most + 1) if all(t % n == 0 for t in self.totals))
                name = "a batch of batch.grow" if self.grow else "batch.total"
                raise UserError(
                    f"{name}={total} is not a multiple of batch.micro={self.micro}: batch.micro={below} divides it"
                )

    def _check_growth(self, epochs: int) -> None:
        grow = self.grow or []
        begins = [part[0] for part in grow if len(part) == 2 and part[1] > 0]
        ascending = all(a < b for a, b in itertools.pairwise(begins))
        if len(begins) != len(grow) or begins[:1] != [0] or not ascending:
            raise UserError(
                f"batch.grow={grow} must be pairs of an epoch, counted from 0 and ascending, and the images "
                "of a step from there on, such as [[0,1024],[15,4096]]"
            )
        first = self.totals[0]
        if first != self.total:
            raise UserError(
                f"batch.grow={grow} begins with {first} images and batch.total={self.total}: give "
                f"batch.total={first}, or begin the growth with [0,{self.total}]"
            )
        if begins[-1] >= epochs:
            raise UserError(
                f"batch.grow={grow}: epoch {begins[-1]} never comes, since epochs={epochs} are 0 to {epochs - 1}: give "
                f"epochs={begins[-1] + 1} or more, or leave that batch out"
            )


@dataclass(frozen=True)
class Plan:
    """Counts that follow from batch, data and processes.

    Where the batch grows, ``total``, ``accumulation`` and ``steps_per_epoch`` are those of the first epoch; epochs and
    steps count from 0.
    """

    total: int  # images of a step, on all processes
    micro: int  # images of a forward pass
    accumulation: int  # micro-batches that a process takes for one step
    processes: int
    train_images: int
    epochs: int
    evaluate_every: int = 1  # epochs
    grow: tuple[tuple[int, int], ...] = ()  # the epochs after which the batch is another, and its images

    @cached_property
    def _first_steps(self) -> list[int]:
        """The first step of each epoch, and the steps of the run."""
        steps = (self.train_images // self.total_in(epoch) for epoch in range(self.epochs))
        return list(itertools.accumulate(steps, initial=0))

    @cached_property
    def _first_images(self) -> list[int]:
        """The images trained on before each epoch, and in the run."""
        whole = (self.train_images - self.train_images % self.total_in(epoch) for epoch in range(self.epochs))
        return list(itertools.accumulate(whole, initial=0))

    def total_in(self, epoch: int) -> int:
        """Images of a step in ``epoch``."""
        return next((total for first, total in reversed(self.grow) if first <= epoch), self.total)

    def accumulation_in(self, epoch: int) -> int:
        return self.total_in(epoch) // self.micro // self.processes

    def first_step(self, epoch: int) -> int:
        """Steps before ``epoch``."""
        return self._first_steps[epoch]

    def locate(self, step: int) -> tuple[int, int]:
        """The epoch of ``step``, and the steps before it in that epoch."""
        epoch = bisect_right(self._first_steps, step) - 1
        return epoch, step - self._first_steps[epoch]

    def images(self, steps: int) -> int:
        """Images trained on after so many ``steps``."""
        epoch, since = self.locate(steps)
        return self._first_images[epoch] + since * self.total_in(epoch)

    def as_first(self, step: int) -> float:
        """The step of the first batch that is as many epochs into the run as ``step``: itself if nothing grows."""
        if not self.grow:
            return step
        epoch, since = self.locate(step)
        return (epoch + since / (self.train_images // self.total_in(epoch))) * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return self.train_images // self.total

    @property
    def steps(self) -> int:
        return self._first_steps[-1]

    def is_evaluated(self, epoch: int) -> bool:
        """Whether there is an evaluation after ``epoch``, counted from 1; always after the last."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    def evaluations(self, epochs: int) -> int:
        """The number of evaluations in the first ``epochs`` epochs."""
        return epochs // self.evaluate_every + (epochs == self.epochs and epochs % self.evaluate_every > 0)

    def evaluated_epoch(self, evaluations: int) -> int:
        """The epoch, counted from 1, after which the last of so many ``evaluations`` is made; 0 for none."""
        return min(evaluations * self.evaluate_every, self.epochs)

    @property
    def dropped(self) -> int:
        """Images at the end of each epoch's order that do not fill a global batch, in any epoch at the most."""
        return max(self.train_images % self.total_in(epoch) for epoch in range(self.epochs))


def make_plan(batch: BatchConfig, epochs: int, train_images: int, processes: int, evaluate_every: int = 1) -> Plan:
    """Divide ``batch`` over ``processes``; raises UserError when it does not divide, or is larger than the data."""
    for total in batch.totals:
        check_size(total, train_images)
    grow = tuple((epoch, total) for epoch, total in (batch.grow or [])[1:])
    accumulated = accumulation(batch, processes)
    return Plan(batch.totals[0], batch.micro, accumulated, processes, train_images, epochs, evaluate_every, grow)


def accumulation(batch: BatchConfig, processes: int) -> int:
    """Micro-batches that each of ``processes`` takes for a first step; raises UserError when they do not divide."""
    micro_batches = batch.micro_batches
    if micro_batches % processes:
        divisors = [n for n in range(1, micro_batches + 1) if micro_batches % n == 0]
        below = max(n for n in divisors if n < processes)
        above = min([n for n in divisors if n > processes] or divisors[-1:])
        fix = " or ".join(f"nproc={n}" for n in sorted({below, above}))
        what = f"batch.grow={batch.grow} is always multiples of" if batch.grow else f"batch.total={batch.total} is"
        raise UserError(
            f"{what} {micro_batches} micro-batches of batch.micro={batch.micro}, which "
            f"{processes} processes cannot share equally: give {fix}"
        )
    return batch.totals[0] // batch.micro // processes


def check_size(total: int, train_images: int) -> None:
    """Raise UserError if there are fewer training images than one batch needs."""
    if train_images < total:
        raise UserError(f"batch.total={total} is more than the {train_images} training images: give a smaller one")
