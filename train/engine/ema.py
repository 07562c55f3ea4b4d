"""The exponential moving average of a model's weights, which is evaluated and kept instead of the model."""

import copy

import torch
from torch import nn


class MovingAverage:
    """A copy ``model`` of the ``trained`` one that follows its weights: ``a = decay a + (1 - decay) w``.

    BatchNorm's running statistics are averaged too. The first update moves the copy, unlike that of torch's
    ``AveragedModel``, which replaces it.
    """

    def __init__(self, trained: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(trained).requires_grad_(False)
        self._decay = decay
        averaged, weights = self.model.state_dict().values(), trained.state_dict().values()
        # the integer tensors count batches, which no evaluation needs
        pairs = [(a, w) for a, w in zip(averaged, weights, strict=True) if w.is_floating_point()]
        self._averaged, self._weights = [a for a, _ in pairs], [w for _, w in pairs]

    @torch.no_grad()
    def update(self) -> None:
        """Follow one step of the trained model, without waiting for the device."""
        torch._foreach_lerp_(self._averaged, self._weights, 1 - self._decay)
