"""The trust ratio: the factor by which LARS scales a tensor's step, and the published variants of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """Which of the published updates LARS computes; ``LARS`` has the formulas and their sources."""

    ratio: str = "paper"  # or "decayed"
    momentum_form: str = "torch"  # or "caffe", "nus"
    clip: bool = False  # LARC: never more than the plain optimizer's step
    max_ratio: float | None = None
    clamp: float | None = None  # bound on each element of the decayed gradient
    skip_without_decay: bool = False  # groups with weight decay 0 get the plain optimizer's step

    def trust_ratio(
        self, w_norm: float, g_norm: float, d_norm: float, lr: float, decay: float, trust_coef: float, eps: float
    ) -> float:
        """The ratio of one tensor, on the host; ``d_norm`` is |g + decay w| and is used only by ``decayed``."""
        if w_norm == 0 or g_norm == 0 or (self.ratio == "decayed" and d_norm == 0):
            return 1.0
        denominator = (d_norm if self.ratio == "decayed" else g_norm + decay * w_norm) + eps
        ratio = trust_coef * w_norm / denominator if denominator else math.inf
        if math.isnan(ratio):
            # min() would hide it
            return ratio
        if self.max_ratio is not None:
            ratio = min(ratio, self.max_ratio)
        if self.clip:
            return min(ratio / lr, 1.0) if lr else 1.0
        return ratio

    def trust_ratios(
        self,
        w_norms: Tensor,
        g_norms: Tensor,
        d_norms: Tensor | None,
        lr: float | Tensor,
        decay: float | Tensor,
        trust_coef: float | Tensor,
        eps: float | Tensor,
    ) -> Tensor:
        """``trust_ratio`` of all tensors at once; nothing is read on the host."""
        below = d_norms if d_norms is not None else g_norms + decay * w_norms
        ratios = trust_coef * w_norms / (below + eps)
        if self.max_ratio is not None:
            ratios = ratios.clamp(max=self.max_ratio)
        if self.clip:
            # Where lr is 0 this is 0 / 0, and any factor will do. A Python condition on lr would wait for the device.
            ratios = torch.where(ratios == 0, ratios, (ratios / lr).clamp(max=1.0))
        is_plain = (w_norms == 0) | (g_norms == 0)
        if d_norms is not None:
            is_plain |= d_norms == 0
        return torch.where(is_plain, torch.ones_like(ratios), ratios)

    def __setstate__(self, state: dict[str, Any]) -> None:
        rule = state.pop("rule", None)
        if rule is not None:
            # pickled by lars 0.1
            state["momentum_form"] = state.pop("momentum")
            state.update(ratio=rule.form, clip=rule.clip, max_ratio=rule.cap)
        vars(self).update(state)


class Rule:
    """Half of ``Variant`` in lars 0.1, whose pickles name it; for one release."""

    form: str
    clip: bool
    cap: float | None
