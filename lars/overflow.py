"""Undoes a step whose gradients overflowed, on the device and without a host synchronisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def unless_overflow(
    found_inf: Tensor,
    params: Sequence[Tensor],
    state: Mapping[Tensor, dict[str, Any]],
    step: Callable[[], None],
    *,
    begins_at_zero: bool,
) -> None:
    """Call ``step``, and let it change ``params`` and their ``state`` only where ``found_inf`` is 0.

    ``found_inf``, of one element, is not 0 where a gradient overflowed. On a CPU reading it waits for nothing, and
    ``step`` is not called then. Elsewhere whatever the step may change is copied first, and ``torch.where`` chooses.
    State that the step has made becomes zeros where it ``begins_at_zero``. Otherwise the host reads ``found_inf`` after
    such a step, and removes what it has made, so that the next step makes it anew.
    """
    if found_inf.is_cpu:
        if not found_inf:
            step()
        return
    before = {key: tensor.clone() for key, tensor in _tensors(params, state).items()}
    known = {p: dict(state.get(p, {})) for p in params}
    step()
    after = _tensors(params, state)
    if begins_at_zero:
        before |= {key: torch.zeros_like(made) for key, made in after.items() if key not in before}
    elif after.keys() != before.keys() and found_inf.item():
        for p, own in known.items():
            if own:
                state[p].update(own)
            for name in state.get(p, {}).keys() - own.keys():
                del state[p][name]
    for key, then in before.items():
        now = after[key]
        # a copy to a CPU that does not block would be read before it has arrived
        overflowed = found_inf.to(now.device, non_blocking=not now.is_cpu).bool().reshape(())
        torch.where(overflowed, then, now, out=now)


def _tensors(params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]]) -> dict[tuple[int, str], Tensor]:
    """What a step may change: the parameters, and their state by name, since a step may replace its tensors."""
    found = {(id(p), ""): p for p in params}
    for p in params:
        found |= {(id(p), name): value for name, value in state.get(p, {}).items() if isinstance(value, Tensor)}
    return found
