"""An exponential moving average of a model, which is evaluated and kept in its place."""

import copy

import torch
from torch import nn


class Average:
    """A copy ``model`` of the ``trained`` one, from now on following its weights: ``a = decay a + (1 - decay) w``.

    BatchNorm's running statistics are averaged as weights are.
    """

    def __init__(self, trained: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(trained).requires_grad_(False)
        self._decay = decay
        averaged, weights = self.model.state_dict().values(), trained.state_dict().values()
        # the rest counts batches, which no evaluation looks at
        pairs = [(a, w) for a, w in zip(averaged, weights, strict=True) if w.is_floating_point()]
        self._averaged, self._weights = [a for a, _ in pairs], [w for _, w in pairs]

    @torch.no_grad()
    def update(self) -> None:
        """Follow one step of the trained model; does not wait for the device."""
        torch._foreach_lerp_(self._averaged, self._weights, 1 - self._decay)
