"""How the images of a run divide into steps, processes and micro-batches."""

from dataclasses import dataclass

from train.errors import UserError
from train.keys import key


@dataclass(kw_only=True)
class BatchConfig:
    preset: str
    published: int
    total: int = key(least=1)
    micro: int = key(least=1)
    reference_micro: int

    def check(self) -> None:
        if self.total % self.micro:
            most = min(self.micro, self.total)
            below = max(n for n in range(1, most + 1) if self.total % n == 0)
            raise UserError(
                f"batch.total={self.total} is not a multiple of batch.micro={self.micro}: "
                f"batch.micro={below} divides it"
            )


@dataclass(frozen=True)
class Plan:
    """Counts that follow from batch, data and processes."""

    total: int  # images of a step, on all processes
    micro: int  # images of a forward pass
    accumulation: int  # micro-batches that a process takes for one step
    processes: int
    train_images: int
    epochs: int
    evaluate_every: int = 1  # epochs

    @property
    def steps_per_epoch(self) -> int:
        return self.train_images // self.total

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

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
        """Images at the end of each epoch's order that do not fill a global batch."""
        return self.train_images % self.total


def make_plan(batch: BatchConfig, epochs: int, train_images: int, processes: int, evaluate_every: int = 1) -> Plan:
    """Divide ``batch`` over ``processes``; raises UserError when it does not divide, or is larger than the data."""
    check_size(batch.total, train_images)
    return Plan(
        batch.total, batch.micro, accumulation(batch, processes), processes, train_images, epochs, evaluate_every
    )


def accumulation(batch: BatchConfig, processes: int) -> int:
    """Micro-batches that each of ``processes`` takes for a step; raises UserError when they do not divide."""
    micro_batches = batch.total // batch.micro
    if micro_batches % processes:
        divisors = [n for n in range(1, micro_batches + 1) if micro_batches % n == 0]
        below = max(n for n in divisors if n < processes)
        above = min([n for n in divisors if n > processes] or divisors[-1:])
        fix = " or ".join(f"nproc={n}" for n in sorted({below, above}))
        raise UserError(
            f"batch.total={batch.total} is {micro_batches} micro-batches of batch.micro={batch.micro}, which "
            f"{processes} processes cannot share equally: give {fix}"
        )
    return micro_batches // processes


def check_size(total: int, train_images: int) -> None:
    """Raise UserError if there are fewer training images than one batch needs."""
    if train_images < total:
        raise UserError(f"batch.total={total} is more than the {train_images} training images: give a smaller one")
