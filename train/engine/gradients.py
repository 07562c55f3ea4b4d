"""The gradients of single micro-batches, before they add up: what every statistic of a step's gradients begins with."""

from abc import ABC, abstractmethod
from functools import partial

from torch import Tensor, nn


class GradientStatistic(ABC):
    """Something that a step measures of its micro-batches' own gradients, without waiting for the device.

    A hook on each parameter of the bare ``model`` keeps the gradient that a backward pass brings: before it is added to
    those of the micro-batches before, and before DDP averages anything. Kept gradients are never changed, so a step
    has the same bits with and without hooks. They take the memory of one more gradient. The first of several
    micro-batches needs none: until the next backward pass its gradients are in ``grad``.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        self.micro_batches = 0  # of this step on this rank
        self._own: list[Tensor | None] = [None] * len(named)
        for i, p in enumerate(self.parameters):
            p.register_hook(partial(self._keep, i))

    def _keep(self, i: int, gradient: Tensor) -> None:
        # autograd would copy a kept gradient that it otherwise takes over as the first one
        if self.micro_batches == 1 or self.parameters[i].grad is not None:
            self._own[i] = gradient

    @property
    def averaged(self) -> list[Tensor]:
        """The gradients of the whole batch, on any rank, once the last backward pass has ended."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def begin(self, micro_batches: int) -> None:
        """A step of so many ``micro_batches`` begins; one that was dropped before its end is forgotten."""
        self.micro_batches = micro_batches

    def micro_batch(self) -> None:
        """A backward pass has ended."""
        own = [p.grad if g is None else g for p, g in zip(self.parameters, self._own, strict=True)]
        self._own[:] = [None] * len(self._own)
        self.add([g for g in own if g is not None])

    @abstractmethod
    def add(self, gradients: list[Tensor]) -> None:
        """Take the gradients of one micro-batch: of its mean loss, times the loss scale, over ``micro_batches``.

        They are valid until the next backward pass, and must not be changed.
        """

    @abstractmethod
    def end(self, loss_scale: Tensor) -> None:
        """All ranks' micro-batches are done, and ``averaged`` is unscaled; ``loss_scale`` is 0-d, on the device."""
