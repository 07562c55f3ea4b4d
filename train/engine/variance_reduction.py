"""VRGD: each element of the gradient is scaled by its signal-to-noise ratio before the optimizer takes it."""

import torch
from torch import Tensor, nn

from train.engine.gradients import GradientStatistic
from train.processes.world import World

LEAST = 0.1  # the paper's gamma, which it did not tune

# Ours, for a variance that is 0 or lost in the rounding of float32, which the paper does not speak of
ROUNDING, TINY = 1e-6, torch.finfo(torch.float32).tiny


class VarianceReduction(GradientStatistic):
    """VR-SGD and VR-LARS of Jiang et al. 2023 (arXiv 2309.13681): the scaling, of which the base takes the result.

    A step's micro-batches are k groups of consecutive ones, in their global order. With the mean gradients g_1 ... g_k
    of the groups and their mean g, every element of g is multiplied by::

        r = g^2 / (mean_d(g_d^2) - g^2)         the signal-to-noise ratio, of each element
        r = r / mean(r)                         over the elements of its tensor
        r = min(max(r, 0.1), 1)

    It needs a buffer of the gradients' size for the squares, one more for a group's sum where a group has several
    micro-batches, and one more all-reduce of the gradients' size in each step. Where a group is whole on one rank the
    result does not depend on the number of ranks.
    """

    def __init__(self, model: nn.Module, world: World, groups: int | None) -> None:
        """``groups``: k, of all ranks together; None makes each micro-batch one."""
        super().__init__(model)
        self._world, self._groups = world, groups
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]

    def begin(self, micro_batches: int) -> None:
        super().begin(micro_batches)
        count = micro_batches * self._world.size
        self._k = self._groups or count
        self._in_group = count // self._k
        self._group: list[Tensor] = []
        self._seen = 0
        torch._foreach_zero_(self._squares)

    @torch.no_grad()
    def add(self, gradients: list[Tensor]) -> None:
        if self._in_group == 1:
            torch._foreach_addcmul_(self._squares, gradients, gradients)
            return
        if self._seen % self._in_group == 0:
            self._group = [g.clone() for g in gradients]
        else:
            torch._foreach_add_(self._group, gradients)
        self._seen += 1
        if self._seen % self._in_group == 0:
            torch._foreach_addcmul_(self._squares, self._group, self._group)

    @torch.no_grad()
    def end(self, loss_scale: Tensor) -> None:
        if self._world.size > 1:
            torch._foreach_copy_(self._squares, self._world.totals(self._squares))
        # of the sum of a group's scaled parts of the mean loss, to the group's own mean
        torch._foreach_mul_(self._squares, (self.micro_batches / self._in_group / loss_scale).square() / self._k)
        gradients = self.averaged
        ratios = list(torch._foreach_mul(gradients, gradients))
        variances = list(torch._foreach_sub(self._squares, ratios))
        torch._foreach_mul_(self._squares, ROUNDING)
        torch._foreach_maximum_(variances, self._squares)
        torch._foreach_add_(variances, TINY)
        torch._foreach_div_(ratios, variances)
        within = torch.float64 if ratios[0].is_cpu else torch.float32
        for ratio, total in zip(ratios, torch._foreach_norm(ratios, 1, within), strict=True):
            ratio.div_((total / ratio.numel()).float() + TINY)
        torch._foreach_clamp_min_(ratios, LEAST)
        torch._foreach_clamp_max_(ratios, 1.0)
        torch._foreach_mul_(gradients, ratios)
