"""Which parameters LARS adapts, where a recipe leaves out norm layers and biases."""

from typing import Any

from torch import nn


def split_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: what is adapted and decayed, and the rest, which is neither.

    The rest is every tensor of at most one dimension: scales and shifts of norm layers, and biases. (The names
    that other code looks for miss some of ResNet-50's, whose ``downsample.1`` are BatchNorm too.) It is decided
    here, once, so that sharding cannot change it: call it before the model is sharded. On ResNet-50 54 and 107
    tensors.

    The rest keeps ``weight_decay`` 0 and the plain optimizer's step, as MLPerf's ``skip_list`` has it.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    >>> [(group["lars"], len(group["params"])) for group in split_parameters(model, 1e-4)]
    [(True, 1), (False, 3)]
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay, "lars": True},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0, "lars": False},
    ]
