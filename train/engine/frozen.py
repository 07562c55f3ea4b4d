"""Layers that are not trained: they compute as in evaluation, and their running statistics stay."""

from torch import nn


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules of ``model`` that have parameters, all of them frozen, with their submodules.

    A dropout within a frozen block is one of them; a dropout next to a trained layer is not.
    """
    found: dict[nn.Module, None] = {}
    for module in model.modules():
        trained = [parameter.requires_grad for parameter in module.parameters()]
        if trained and not any(trained):
            found.update(dict.fromkeys(module.modules()))
    return list(found)
