"""Detects a loss or gradient that is not finite: recorded on the device in every step, read when the host may wait."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEVER = -1


class FiniteCheck:
    """The first step of ``model`` whose loss or gradients were not finite, and the layers whose gradients were not.

    ``record`` launches a few small kernels and never waits; ``first_failure`` waits for the device.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._names, self._parameters = list(trained), list(trained.values())
        self._step = torch.full((), NEVER, dtype=torch.int64, device=device)
        self._layers = torch.zeros(len(self._parameters), dtype=torch.bool, device=device)

    @torch.no_grad()
    def record(self, step: int, loss: Tensor, loss_scale: Tensor) -> None:
        """Look at the gradients with which ``step`` was taken, and at its ``loss`` and the next one's scale, both 0-d.

        fp16 gradients that overflow are no failure while the scale, which each such step halves, is above 1.
        """
        # a gradient's norm is not finite if one of its elements is not
        norms = torch.stack(torch._foreach_norm([p.grad for p in self._parameters if p.grad is not None]))
        failed = ~torch.isfinite(norms)
        is_first = (self._step == NEVER) & (failed.any() & (loss_scale <= 1) | ~torch.isfinite(loss))
        self._step.copy_(torch.where(is_first, step, self._step))
        self._layers.copy_(torch.where(is_first, failed, self._layers))

    def first_failure(self) -> tuple[int, list[str]] | None:
        """The step, counted from 0, and its layers by name; None as long as everything is finite."""
        step = int(self._step.item())
        if step == NEVER:
            return None
        return step, [self._names[i] for i in self._layers.nonzero().flatten().tolist()]
