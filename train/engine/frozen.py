"""Layers that are not trained: they compute as in evaluation, and their running statistics stay."""

from torch import nn


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Every module of ``model`` whose parameters, of which it has some, are all frozen, and all that it contains.

    A dropout beside a trained layer is none of them, one within a frozen block is.
    """
    found: dict[nn.Module, None] = {}
    for module in model.modules():
        trained = [parameter.requires_grad for parameter in module.parameters()]
        if trained and not any(trained):
            found.update(dict.fromkeys(module.modules()))
    return list(found)
