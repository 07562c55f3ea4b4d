"""Watches a run for what is no number: noted on the device after every step, read when there is time to wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from lars import LARS

NEVER = -1


class Watch:
    """The first step whose loss or gradients were not finite, and the layers where the gradients were not.

    ``note`` launches a few small kernels and never waits; ``read`` waits for the device.
    """

    def __init__(self, parameters: Sequence[Tensor], device: torch.device) -> None:
        self._parameters = list(parameters)
        self._step = torch.full((), NEVER, dtype=torch.int64, device=device)
        self._layers = torch.zeros(len(self._parameters), dtype=torch.bool, device=device)

    @torch.no_grad()
    def note(self, step: int, optimizer: Optimizer, loss: Tensor) -> None:
        """Look at the gradients with which ``optimizer`` took this step, and at its ``loss``, 0-d."""
        bad = ~torch.isfinite(self._gradient_norms(optimizer))
        first = (self._step == NEVER) & (bad.any() | ~torch.isfinite(loss))
        self._step.copy_(torch.where(first, step, self._step))
        self._layers.copy_(torch.where(first, bad, self._layers))

    def _gradient_norms(self, optimizer: Optimizer) -> Tensor:
        if isinstance(optimizer, LARS) and len(optimizer.adapted_parameters) == len(self._parameters):
            return optimizer.gradient_norms.to(self._step.device)
        return torch.stack(torch._foreach_norm([p.grad for p in self._parameters if p.grad is not None]))

    def read(self) -> tuple[int, list[int]] | None:
        """The step, counted from 0, and the indices of its parameters; None as long as all is finite."""
        step = int(self._step.item())
        return None if step == NEVER else (step, self._layers.nonzero().flatten().tolist())
