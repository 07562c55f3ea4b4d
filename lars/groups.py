"""Parameter groups for recipes that exclude norm layers and biases from LARS."""

from typing import Any

from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

# Of every parameter that was split. They are not in the groups: torch mixes no named group with one that is not, and
# ZeRO deals the parameters of a group out in another order.
NAMES = WeakTensorKeyDictionary()


def split_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: tensors that are adapted and decayed, and the rest, which is neither.

    The rest is every tensor of at most one dimension: scales and shifts of norm layers, and biases. (Rules that go by
    name miss 8 of ResNet-50's, because ``downsample.1`` is a BatchNorm too.) ResNet-50 splits into 54 and 107 tensors.
    Several networks are one in ``nn.ModuleList([encoder, projector])``. Call it after FSDP2's ``fully_shard``, which
    replaces the parameters, and before anything that flattens them.

    The rest gets ``weight_decay`` 0 and the plain optimizer's step, as MLPerf's ``skip_list`` has it. ``LARS.names``
    remembers the names of the parameters.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    >>> [(group["lars"], len(group["params"])) for group in split_parameters(model, 1e-4)]
    [(True, 1), (False, 3)]
    """
    if not isinstance(model, nn.Module):
        raise TypeError("split_parameters needs the names of parameters: give it the model, not model.parameters()")
    parameters = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            NAMES[p] = name
            parameters.append(p)
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay, "lars": True},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0, "lars": False},
    ]
