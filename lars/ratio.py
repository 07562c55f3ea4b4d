"""The trust ratio: from norms to the factor of a step, for one tensor on the host or all on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """Which of the published ratios is meant; see ``LARS`` for the formulas and their sources."""

    form: str  # "paper" or "decayed"
    clip: bool  # LARC: never more than the plain optimizer's step
    cap: float | None  # the largest ratio

    def of_floats(
        self,
        w_norm: float,
        g_norm: float,
        d_norm: float,
        lr: float,
        decay: float,
        trust_coef: float,
        eps: float,
    ) -> float:
        """The factor for one tensor; ``d_norm`` is |g + decay w| and counts only for ``decayed``."""
        if w_norm == 0 or g_norm == 0:
            return 1.0
        below = (d_norm if self.form == "decayed" else g_norm + decay * w_norm) + eps
        ratio = trust_coef * w_norm / below if below else math.inf
        if self.cap is not None:
            ratio = min(ratio, self.cap) if ratio == ratio else ratio
        if self.clip:
            ratio = min(ratio / lr, 1.0) if lr and ratio == ratio else 1.0 if ratio == ratio else ratio
        return ratio

    def of_tensors(
        self,
        w_norms: Tensor,
        g_norms: Tensor,
        d_norms: Tensor | None,
        lr: float | Tensor,
        decay: float | Tensor,
        trust_coef: float | Tensor,
        eps: float | Tensor,
    ) -> Tensor:
        """The factors for all tensors at once; nothing is read on the host."""
        below = d_norms if self.form == "decayed" and d_norms is not None else g_norms + decay * w_norms
        ratios = trust_coef * w_norms / (below + eps)
        if self.cap is not None:
            ratios = ratios.clamp(max=self.cap)
        if self.clip:
            # 0 / 0 where lr is 0: any factor will do. A condition on lr would be copied to the device, and waited for
            ratios = torch.where(ratios == 0, ratios, (ratios / lr).clamp(max=1.0))
        return torch.where((w_norms == 0) | (g_norms == 0), torch.ones_like(ratios), ratios)
