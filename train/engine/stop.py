"""How all ranks agree to stop: at the same point of the run, and without waiting for one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from train.data.loader import MicroBatch
from train.processes.world import World

VOTE_SECONDS = 5.0  # steps that take longer have votes within


class StopRequested(Exception):
    """A rank was asked to stop, and all ranks know it."""


class StopVotes:
    """Whether any rank was asked to stop, which all ranks learn at the same point.

    Each step's collective carries a ballot of every rank: whether it was asked, and how long its step before took. The
    sum is read one step later, when it has arrived. Where it says that a step takes longer than ``VOTE_SECONDS``, there
    are votes within a step too, by the same count of micro-batches on every rank; until it says so, on every
    micro-batch. A single process asks itself on every micro-batch.
    """

    def __init__(self, world: World, asked: Callable[[], bool]) -> None:
        """``asked``: whether this process was asked to stop."""
        self._world, self._asked = world, asked
        self._every = 1  # batches from one vote to the next
        self._seconds = 0.0  # of this rank's step before
        self._sum_before: Callable[[], list[float]] | None = None
        self._is_agreed = False

    def within(self, batches: Iterable[MicroBatch]) -> Iterator[MicroBatch]:
        """``batches`` of a step or of an evaluation; raises StopRequested on every rank at the same one."""
        for number, batch in enumerate(batches, 1):
            if number % self._every == 0 and self._world.vote(self._asked()):
                raise StopRequested
            yield batch

    def ballot(self, device: torch.device) -> Tensor:
        """What this rank adds to the step's collective: 1-D float32, made without waiting for ``device``."""
        values = (float(self._asked()), self._seconds)
        return torch.stack([torch.full((), value, device=device) for value in values])

    def count(self, ballots: Tensor, micro_batches: int) -> None:
        """Take the sum of all ranks' ballots of a step of ``micro_batches`` each, and read that of the step before."""
        before, self._sum_before = self._sum_before, _on_its_way(ballots)
        if before is None:
            return
        asked, seconds = before()
        self._is_agreed = asked > 0
        if seconds > 0:
            micro_batch = seconds / self._world.size / micro_batches
            self._every = max(1, int(VOTE_SECONDS / micro_batch))

    def after_step(self, seconds: float) -> None:
        """The step took ``seconds``; raises StopRequested on every rank after the same step."""
        self._seconds = seconds
        if self._is_agreed:
            raise StopRequested


def _on_its_way(values: Tensor) -> Callable[[], list[float]]:
    """Start to copy ``values`` to the host. The result reads them, and waits for nothing that was launched later."""
    if values.device.type != "cuda":
        return values.tolist
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def read() -> list[float]:
        copied.synchronize()
        return host.tolist()

    return read
