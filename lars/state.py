"""Refuses a saved state that is not of an optimizer's kind and parameters, before anything of it is loaded."""

from __future__ import annotations

from typing import Any

from torch.optim.optimizer import Optimizer

# hyper-parameters that tell one optimizer's groups from another's; versions of torch add others
TELLING = ("lr", "momentum", "dampening", "nesterov", "weight_decay", "betas")


def check_state(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Raise ValueError unless ``state_dict`` has the groups, tensors and hyper-parameters of ``optimizer``."""
    if not {"state", "param_groups"} <= set(state_dict):
        raise ValueError(
            f"not an optimizer's state: its keys are {sorted(map(str, state_dict))[:5]}; "
            "pass what state_dict() gave, for example checkpoint['optimizer']"
        )
    kind, mine, saved = type(optimizer).__name__, optimizer.param_groups, state_dict["param_groups"]
    if len(saved) != len(mine):
        raise ValueError(f"the state has {len(saved)} parameter groups and this optimizer {len(mine)}: build it alike")
    for i, (group, theirs) in enumerate(zip(mine, saved, strict=True)):
        if len(theirs["params"]) != len(group["params"]):
            raise ValueError(
                f"group {i} of the state has {len(theirs['params'])} tensors and this optimizer's "
                f"{len(group['params'])}: build it from the same model"
            )
        missing = [key for key in TELLING if key in optimizer.defaults and key not in theirs]
        if missing:
            raise ValueError(
                f"group {i} of the state has no {', '.join(missing)}: it is another optimizer's, not one of {kind}"
            )
        for p, key in zip(group["params"], theirs["params"], strict=True):
            buffer = state_dict["state"].get(key, {}).get("momentum_buffer")
            if buffer is not None and buffer.shape != p.shape:
                raise ValueError(
                    f"a momentum buffer of group {i} has the shape {tuple(buffer.shape)} and its tensor "
                    f"{tuple(p.shape)}: build the optimizer from the same model"
                )
