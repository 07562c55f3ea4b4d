"""Undoes a step whose gradients overflowed, on the device and without a host synchronisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def unless_overflow(
    found_inf: Tensor, params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]], step: Callable[[], None]
) -> None:
    """Call ``step``, and let it change ``params`` and their ``state`` only where ``found_inf`` is 0.

    ``found_inf``, of one element, is not 0 where a gradient overflowed. On a CPU reading it waits for nothing, and
    ``step`` is not called then. Elsewhere whatever the step may change is copied first, and ``torch.where`` chooses.
    State that the step has made becomes zeros.
    """
    if found_inf.is_cpu:
        if not found_inf:
            step()
        return
    before = {key: tensor.clone() for key, tensor in _tensors(params, state).items()}
    step()
    for key, now in _tensors(params, state).items():
        then = before.get(key)
        overflowed = found_inf.to(now.device, non_blocking=True).bool().reshape(())
        torch.where(overflowed, torch.zeros_like(now) if then is None else then, now, out=now)


def _tensors(params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]]) -> dict[tuple[int, str], Tensor]:
    """What a step may change: the parameters, and their state by name, since a step may replace its tensors."""
    found = {(id(p), ""): p for p in params}
    for p in params:
        found |= {(id(p), name): value for name, value in state.get(p, {}).items() if isinstance(value, Tensor)}
    return found
