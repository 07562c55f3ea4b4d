"""The gradient noise scale: how many images a step can take before more of them stop saving steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from train.engine.gradients import GradientStatistic
from train.processes.world import World


@dataclass(frozen=True)
class Noise:
    """The mean over steps, for each layer, of estimates of |G|^2 and of tr(Sigma).

    G is the gradient of the expected loss, Sigma the covariance of a single image's gradient around it. Both estimates
    are unbiased, so that of |G|^2 may come out negative; then there is no ratio.
    """

    names: list[str]
    gradient_squared: list[float]  # |G|^2
    variance: list[float]  # tr(Sigma), for one image

    @property
    def scale(self) -> float | None:
        """tr(Sigma) / |G|^2 of the whole network, in images: the "simple" noise scale of arXiv 1812.06162, eq. 2.9."""
        return _ratio(sum(self.variance), sum(self.gradient_squared))

    @property
    def scales(self) -> dict[str, float | None]:
        """The same for each layer by itself."""
        return dict(zip(self.names, map(_ratio, self.variance, self.gradient_squared), strict=True))

    def lars_scale(self, weight_norms: dict[str, float]) -> float | None:
        """The batch, in images, at which a step of LARS over these layers makes half the progress of a noiseless one.

        It is the B at which ``sum_l a_l / sqrt(1 + B_l / B) = sqrt(1/2)``, where ``B_l`` is a layer's noise scale and
        ``a_l = |w_l| |G_l|`` over the sum of all (derived in docs/noise_scale_lars.md); with one layer it is ``B_l``.
        Layers without a positive |G|^2 count for nothing.
        """
        known = zip(self.names, self.gradient_squared, self.variance, strict=True)
        layers = [(weight_norms[n] * g2**0.5, max(v, 0.0) / g2) for n, g2, v in known if n in weight_norms and g2 > 0]
        whole = sum(weight for weight, _ in layers)
        # the ends of the search: all layers' scales lie between
        low, high = (end(s for _, s in layers) for end in (min, max)) if whole > 0 else (0.0, 0.0)
        if low == high:
            return high or None
        for _ in range(60):
            middle = (low * high) ** 0.5 if low > 0 else high / 2
            progress = sum(weight / (1 + scale / middle) ** 0.5 for weight, scale in layers) / whole
            low, high = (middle, high) if progress < 0.5**0.5 else (low, middle)
        return high

    def row(self, weight_norms: dict[str, float]) -> dict[str, Any]:
        """What a row of ``log.jsonl`` says of it; ``weight_norms`` of the layers that LARS adapts, if any."""
        return {
            "noise_scale": self.scale,
            **({"noise_scale_lars": self.lars_scale(weight_norms)} if weight_norms else {}),
            "gradient_squared": sum(self.gradient_squared),
            "gradient_variance": sum(self.variance),
            "noise_scale_layers": {name: s and float(f"{s:.4g}") for name, s in self.scales.items()},
        }


class NoiseScale(GradientStatistic):
    """Measures the noise of each step's gradients, and averages it over steps until it is read.

    A step has K micro-batches of b images, on all ranks together. With s the mean of their squared gradient norms and t
    the squared norm of the whole batch's gradient (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1)::

        |G|^2 = (K t - s) / (K - 1)        tr(Sigma) = b K / (K - 1) (s - t)

    The unit of sampling is the micro-batch: with BatchNorm a single image has no gradient of its own, and tr(Sigma) is
    b times the variance of a micro-batch's. A step whose fp16 gradients overflow does not count.
    """

    def __init__(self, model: nn.Module, world: World, micro: int) -> None:
        """``micro``: images of a micro-batch."""
        super().__init__(model)
        self._world, self._micro = world, micro
        device = world.device if not self.parameters else self.parameters[0].device
        # of this step, over this rank's micro-batches; the step replaces them by the sums over all ranks before ``end``
        self.squares = torch.zeros(len(self.parameters), device=device)
        self._sums = torch.zeros(2, len(self.parameters), dtype=torch.float64, device=device)
        self._steps = torch.zeros((), dtype=torch.int64, device=device)

    def begin(self, micro_batches: int) -> None:
        super().begin(micro_batches)
        self.squares = torch.zeros_like(self.squares)

    def add(self, gradients: list[Tensor]) -> None:
        self.squares += _squared_norms(gradients)

    @torch.no_grad()
    def end(self, loss_scale: Tensor) -> None:
        count, whole = self.micro_batches * self._world.size, _squared_norms(self.averaged).double()
        each = self.squares.double() * (self.micro_batches / loss_scale.double()).square() / count
        of_step = torch.stack(
            [(count * whole - each) / (count - 1), self._micro * count / (count - 1) * (each - whole)]
        )
        counts = of_step.isfinite().all()
        self._sums += torch.where(counts, of_step, 0.0)
        self._steps += counts

    def read(self) -> Noise | None:
        """The means since the last call; None without a step. It waits for the device."""
        steps = int(self._steps.item())
        gradient_squared, variance = (self._sums / max(steps, 1)).tolist()
        self.load_state(None)
        return Noise(self.names, gradient_squared, variance) if steps else None

    def state(self) -> dict[str, Tensor]:
        """What has been summed since the last reading, for a checkpoint."""
        return {"sums": self._sums, "steps": self._steps}

    def load_state(self, state: dict[str, Tensor] | None) -> None:
        """Go on from ``state``; from nothing where a checkpoint has none."""
        for mine, name in ((self._sums, "sums"), (self._steps, "steps")):
            mine.copy_(state[name]) if state else mine.zero_()


def _squared_norms(tensors: list[Tensor]) -> Tensor:
    """|x|^2 of each, 1-D float32."""
    if not tensors[0].is_cpu:
        return torch.stack(torch._foreach_norm(tensors, 2, torch.float32)).square()
    # On a CPU torch's norms add fp32 squares in a few lanes, 0.5 % off over 8 million elements, and take five times as
    # long in float64. A dot product is neither.
    flat = [x.as_strided((x.numel(),), (1,)) if _is_gapless(x) else x.flatten() for x in tensors]
    return torch.stack([torch.dot(x, x) for x in flat]).float()


def _is_gapless(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _ratio(variance: float, gradient_squared: float) -> float | None:
    return variance / gradient_squared if gradient_squared > 0 else None
