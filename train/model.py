"""The networks by name: our own in ``train/resnet.py``, and every classification network of torchvision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from train.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class ModelConfig:
    """A network without options, such as ``resnet18``: ``name`` is torchvision's."""

    name: str


@dataclass(kw_only=True)
class ResNet8Config(ModelConfig):
    zero_gamma: bool


@dataclass(kw_only=True)
class ResNet50Config(ResNet8Config):
    stride_in_1x1: bool


def config_class(name: str) -> type[ModelConfig]:
    return {"resnet8": ResNet8Config, "resnet50": ResNet50Config}.get(name, ModelConfig)


def make_model(config: ModelConfig, classes: int) -> nn.Module:
    """The network that ``config`` describes, for float images N,3,H,W; weights come from torch's generator."""
    # imported here: torch takes seconds, and a command line is checked before
    from train import resnet

    options = asdict(config)
    name = options.pop("name")
    if name == "resnet8":
        return resnet.resnet8(classes, **options)
    if name == "resnet50":
        return resnet.resnet50(classes, **options)
    from torchvision import models

    if name not in models.list_models(module=models):
        raise UserError(f"model.name={name} is not a classification network of torchvision.models")
    return models.get_model(name, num_classes=classes)
