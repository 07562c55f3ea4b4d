"""BatchNorm's running statistics, equal to those of one process that saw every micro-batch in global order."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.engine.frozen import frozen_modules
from train.processes.world import World


class RunningStatistics:
    """The running means and variances of ``model``, kept equal on every rank.

    A forward pass in training updates a statistic ``r`` by ``r = (1 - m) r + m s``. Rank ``p`` of ``P`` takes
    ``k`` consecutive micro-batches of a step's ``K = P k``, so after the step ``r`` is a sum over ranks::

        r = sum_p (1 - m)^(k (P - 1 - p)) r_p      where r_p starts from the old r on rank 0 and from 0 elsewhere

    A rank's term is its ``part``; the step sums them in its one all-reduce. ``m`` is each layer's own, and a frozen
    layer keeps its statistics. ``model`` is the bare module, not DDP's.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self._world = world
        frozen = set(frozen_modules(model))
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m not in frozen]
        pairs = [(b, m.momentum) for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        self._statistics: list[Tensor] = [statistic for statistic, _ in pairs]
        assert all(momentum is not None for _, momentum in pairs), "a cumulative average cannot be combined"
        self._kept = [1.0 - float(momentum or 0.0) for _, momentum in pairs]  # of a statistic, by one micro-batch
        self._counts: list[Tensor] = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """The forward passes of this rank's micro-batches of one step.

        On several ranks the statistics are this rank's own afterwards, until they are combined. If an exception leaves
        the context, the step is dropped and the statistics are what they were before.
        """
        if not self._statistics:
            yield
            return
        # in few launches: there are a hundred small tensors
        before, counts_before = torch._foreach_mul(self._statistics, 1.0), torch.stack(self._counts)
        if not self._world.is_chief:
            torch._foreach_zero_(self._statistics)
        try:
            yield
        except BaseException:
            torch._foreach_copy_(self._statistics, before)
            torch._foreach_copy_(self._counts, list(counts_before.unbind()))
            raise

    def part(self, micro_batches: int) -> list[Tensor]:
        """This rank's part of the statistics after a step of so many here; the sum of all goes to ``combine``."""
        later = micro_batches * (self._world.size - 1 - self._world.rank)
        return list(torch._foreach_mul(self._statistics, [k**later for k in self._kept])) if self._statistics else []

    def combine(self, sums: list[Tensor], micro_batches: int) -> None:
        """Take the sums of all ranks' parts, of ``micro_batches`` on each."""
        if self._statistics:
            torch._foreach_copy_(self._statistics, sums)
            torch._foreach_add_(self._counts, micro_batches * (self._world.size - 1))
