"""Parameter groups for recipes that exclude norm layers and biases from LARS."""

from typing import Any

from torch import nn


def split_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: tensors that are adapted and decayed, and the rest, which is neither.

    The rest is every tensor of at most one dimension: scales and shifts of norm layers, and biases. (Rules that go by
    name miss 8 of ResNet-50's, because ``downsample.1`` is a BatchNorm too.) Call it before the model is sharded: it
    decides by the shapes of whole tensors. ResNet-50 splits into 54 and 107 tensors.

    The rest gets ``weight_decay`` 0 and the plain optimizer's step, as MLPerf's ``skip_list`` has it.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    >>> [(group["lars"], len(group["params"])) for group in split_parameters(model, 1e-4)]
    [(True, 1), (False, 3)]
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay, "lars": True},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0, "lars": False},
    ]
