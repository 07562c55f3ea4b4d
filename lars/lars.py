"""The LARS optimizer: each tensor's step in proportion to the tensor's own size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer


class LARS(Optimizer):
    """Scale each tensor's gradient before ``optimizer`` uses it, so that its step is relative to its weights.

    For every weight tensor ``w`` with gradient ``g`` (same shape, any rank, floating or complex), with the
    group's weight decay ``wd``, the wrapped optimizer sees, in the place of ``g``::

        d = ratio * (g + wd * w)        ratio = trust_coef * |w| / (|g| + wd * |w| + eps)

    and weight decay 0. The norms are L2 over the whole tensor, in fp32 or wider. ``ratio`` is 1 where ``|w|``
    or ``|g|`` is 0. Around ``torch.optim.SGD`` this is ``v = momentum * v + d; w = w - lr * v``: ``lr`` stays
    outside the momentum buffer, as torchlars has it. Algorithm 1 of the paper has it inside; the two part
    ways when lr changes.

    Source: You, Gitman, Ginsburg 2017 (arXiv 1708.03888), equation 6; kakaobrain/torchlars for the
    arrangement.

    Args:
        optimizer: the optimizer to wrap. ``param_groups``, ``state`` and ``defaults`` are its own.
        eps: added to the denominator, at least 0.
        trust_coef: the paper's eta, at least 0.

    Each parameter group carries ``lars`` (False: the group is left to ``optimizer`` as it is), ``trust_coef``
    and ``lars_eps``; a group that lacks one gets the constructor's. ``p.grad`` is after ``step`` what it was
    before.

    Raises ValueError for a negative ``eps`` or ``trust_coef``, TypeError when ``optimizer`` is none, and
    RuntimeError in ``step`` for sparse gradients.

    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = LARS(torch.optim.SGD([w], lr=1.0), trust_coef=0.1)
    >>> w.grad = torch.tensor([0.0, 2.0])
    >>> optimizer.step()
    >>> [round(x, 6) for x in w.tolist()]  # |w| = 5: the step is 0.1 x 5 long, for any gradient's size
    [3.0, 3.5]
    """

    def __init__(self, optimizer: Optimizer, eps: float = 1e-8, trust_coef: float = 0.001) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"LARS wraps a torch.optim.Optimizer, not {type(optimizer).__name__}")
        if eps < 0 or trust_coef < 0:
            raise ValueError(f"eps={eps} and trust_coef={trust_coef} must not be negative")
        self.optim = optimizer
        self.eps = eps
        self.trust_coef = trust_coef
        # torch's own way to get hooks and profiling without parameter groups of our own
        super().__setstate__({})
        self._fill_groups()

    def _fill_groups(self) -> None:
        for group in self.optim.param_groups:
            group.setdefault("lars", True)
            group.setdefault("trust_coef", self.trust_coef)
            group.setdefault("lars_eps", self.eps)

    # The wrapped optimizer replaces these three when it loads a state: never keep a copy.
    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.optim.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.optim.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.optim.defaults

    def __getstate__(self) -> dict[str, Any]:
        return {"optim": self.optim, "eps": self.eps, "trust_coef": self.trust_coef}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._fill_groups()

    def __repr__(self) -> str:
        return f"LARS(eps={self.eps}, trust_coef={self.trust_coef}, {self.optim!r})"

    def state_dict(self) -> dict[str, Any]:
        return self.optim.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what this class, torchlars or the plain wrapped optimizer saved: all have one format."""
        self.optim.load_state_dict(state_dict)
        self._fill_groups()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optim.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.optim.add_param_group(param_group)
        self._fill_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step. ``closure`` runs once, before any norm is taken, and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        replaced: list[tuple[Tensor, Tensor]] = []
        decays: list[tuple[dict[str, Any], float]] = []
        try:
            for group in self.param_groups:
                params = [p for p in group["params"] if p.grad is not None]
                if not group["lars"] or not params:
                    continue
                grads = [p.grad for p in params if p.grad is not None]
                if any(g.is_sparse for g in grads):
                    raise RuntimeError("LARS needs dense gradients: give sparse ones a group with lars=False")
                decay = group.get("weight_decay", 0)
                scaled = _adapt(
                    params, grads, decay, group["trust_coef"], group["lars_eps"], group.get("maximize")
                )
                if "weight_decay" in group:
                    decays.append((group, decay))
                    group["weight_decay"] = 0
                for p, g, d in zip(params, grads, scaled, strict=True):
                    replaced.append((p, g))
                    p.grad = d
            self.optim.step()
        finally:
            for p, g in replaced:
                p.grad = g
            for group, decay in decays:
                group["weight_decay"] = decay
        return loss


def _adapt(
    params: list[Tensor],
    grads: list[Tensor],
    decay: float,
    trust_coef: float,
    eps: float,
    maximize: bool | None,
) -> list[Tensor]:
    """``ratio * (g + decay * w)`` for each pair, as new tensors; nothing is read on the host."""
    wide = torch.promote_types(params[0].dtype, torch.float32)
    wide = {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(wide, wide)
    w_norms = torch.stack([n.to(wide) for n in torch._foreach_norm(params, 2, wide)])
    g_norms = torch.stack([n.to(wide) for n in torch._foreach_norm(grads, 2, wide)])
    ratios = trust_coef * w_norms / (g_norms + decay * w_norms + eps)
    ratios = torch.where((w_norms == 0) | (g_norms == 0), torch.ones_like(ratios), ratios)
    # the wrapped optimizer turns the sign of all it is given, so the decay's is turned beforehand
    decayed = torch._foreach_add(grads, params, alpha=-decay if maximize else decay)
    return [d.mul_(r.to(d.dtype)) for d, r in zip(decayed, ratios.unbind(), strict=True)]
