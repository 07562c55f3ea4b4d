"""BatchNorm's running statistics, as of one process that saw every micro-batch in global order."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.world import World


class RunningStatistics:
    """The running means and variances of ``model``, kept equal on every rank.

    A forward pass in training moves a statistic ``r`` by ``r = (1 - m) r + m s``. Rank ``p`` of ``P`` takes
    ``k`` consecutive micro-batches of a step's ``K = P k``, so after the step ``r`` is a sum over ranks::

        r = sum_p (1 - m)^(k (P - 1 - p)) r_p      with r_p begun from the old r on rank 0, from 0 elsewhere

    which is one all-reduce of one flat tensor. ``model`` is the bare module, not DDP's.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self._world = world
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        momenta = {m.momentum for m in norms}
        assert None not in momenta and len(momenta) <= 1, f"one BatchNorm momentum expected, found {momenta}"
        self._keep = 1.0 - float(momenta.pop() or 0.0) if momenta else 1.0
        self._statistics: list[Tensor] = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        self._counts: list[Tensor] = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        self._before: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def begin(self) -> None:
        """Before the first micro-batch of a step."""
        if not self._statistics:
            return
        self._before = _flat(self._statistics), _flat(self._counts)
        if not self._world.is_chief:
            torch._foreach_zero_(self._statistics)

    @torch.no_grad()
    def undo(self) -> None:
        """Back to where ``begin`` was called: the step is dropped."""
        if self._before:
            _spread(self._before[0], self._statistics)
            _spread(self._before[1], self._counts)

    @torch.no_grad()
    def combine(self, micro_batches: int) -> None:
        """After the last of this rank's ``micro_batches``."""
        world = self._world
        if world.size == 1 or not self._statistics:
            return
        flat = _flat(self._statistics)
        flat *= self._keep ** (micro_batches * (world.size - 1 - world.rank))
        world.total(flat)
        _spread(flat, self._statistics)
        torch._foreach_add_(self._counts, micro_batches * (world.size - 1))


def _flat(tensors: list[Tensor]) -> Tensor:
    """All in one: a hundred small tensors at every step would cost a GPU more to launch than to move."""
    return torch.cat([t.flatten() for t in tensors])


def _spread(flat: Tensor, tensors: list[Tensor]) -> None:
    parts = flat.split([t.numel() for t in tensors])
    torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])
