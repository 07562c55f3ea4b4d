"""The networks by kind: our own in ``train/resnet.py``, and those of torchvision and timm by their own names.

A kind is a file in ``configs/model`` and an entry of ``KINDS``. torch is imported only when a network is made, so that
the command line is checked first.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(kw_only=True)
class ModelConfig:
    name: str  # the kind

    @property
    def network(self) -> str:
        """The kind and the network, for messages."""
        return self.name


@dataclass(kw_only=True)
class CIFARResNetConfig(ModelConfig):
    zero_gamma: bool


@dataclass(kw_only=True)
class ResNet50Config(CIFARResNetConfig):
    stride_in_1x1: bool


@dataclass(kw_only=True)
class LibraryConfig(ModelConfig):
    arch: str  # the library's name of the network
    options: dict[str, Any] | None  # further arguments of its constructor

    @property
    def network(self) -> str:
        return f"{self.name} {self.arch}"


def make_cifar_resnet(config: CIFARResNetConfig, classes: int) -> nn.Module:
    # imported here: torch takes seconds
    from train.resnet import cifar_resnet

    return cifar_resnet(int(config.name.removeprefix("resnet")), classes, config.zero_gamma)


def make_resnet50(config: ResNet50Config, classes: int) -> nn.Module:
    from train.resnet import resnet50

    return resnet50(classes, config.zero_gamma, config.stride_in_1x1)


def make_torchvision(config: LibraryConfig, classes: int) -> nn.Module:
    from torchvision import models

    check_library(config)
    return models.get_model(config.arch, num_classes=classes, **config.options or {})


def make_timm(config: LibraryConfig, classes: int) -> nn.Module:
    check_library(config)
    return _timm().create_model(config.arch, num_classes=classes, **config.options or {})


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError("model=timm needs timm: pip install timm, or choose model=torchvision") from error
    return timm


def check_library(config: ModelConfig) -> None:
    """Raise UserError where a library has no network of that name, or where an option chooses its weights."""
    if not isinstance(config, LibraryConfig):
        return
    if weights := sorted({"pretrained", "weights", "checkpoint_path"} & {*(config.options or ())}):
        raise UserError(f"model.options has {weights[0]}: the weights to begin from are chosen by init=DEFAULT")
    if config.name == "timm":
        known = [] if _timm().is_model(config.arch) else _timm().list_models()
        is_known = not known
    else:
        from torchvision import models

        known = models.list_models(module=models)
        is_known = config.arch in known
    if not is_known:
        near = difflib.get_close_matches(config.arch, known, n=5, cutoff=0.5)
        fix = f"did you mean {', '.join(near)}?" if near else f"such as {', '.join(known[:: len(known) // 5][:5])}"
        raise UserError(f"model.arch={config.arch} is not a classification network of {config.name}: {fix}")


def no_weights(config: ModelConfig, init: str) -> dict[str, Tensor]:
    raise UserError(f"init={init}: there are no published weights of {config.network}: give a file by init=FILE")


def resnet50_weights(config: ResNet50Config, init: str) -> dict[str, Tensor]:
    if config.stride_in_1x1:
        raise UserError(f"init={init} has the stride in the 3x3 convolutions: give model.stride_in_1x1=false")
    return torchvision_weights(LibraryConfig(name="torchvision", arch=config.name, options=None), init)


def torchvision_weights(config: LibraryConfig, init: str) -> dict[str, Tensor]:
    from torchvision import models

    check_library(config)
    published = models.get_model_weights(config.arch)
    names = published.__members__  # type: ignore[attr-defined]
    if init not in names:
        raise UserError(f"init={init}: {config.network} has init={'|'.join(names) or 'FILE'}")
    weights = names[init]
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"init={init} cannot be downloaded from {weights.url} ({error}): download it elsewhere, and give init=FILE"
        ) from error


def timm_weights(config: LibraryConfig, init: str) -> dict[str, Tensor]:
    if init != "DEFAULT":
        raise UserError(f"init={init}: with model=timm the weights are part of model.arch=NAME.TAG, with init=DEFAULT")
    check_library(config)
    timm = _timm()
    source = timm.get_pretrained_cfg(config.arch)
    if source is None or not source.has_weights:
        return no_weights(config, init)
    try:
        return timm.create_model(config.arch, pretrained=True, **config.options or {}).state_dict()
    except Exception as error:
        # the hub raises whatever its client and its transport raise
        place = f"https://huggingface.co/{source.hf_hub_id}" if source.hf_hub_id else source.url
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"init={init} cannot be downloaded from {place} ({why[:120]}): download it elsewhere, and give init=FILE, "
            "as torch.save(model.state_dict(), FILE) writes it"
        ) from error


@dataclass(frozen=True)
class Kind:
    """Networks of one kind: their configuration, how one is made for so many classes, and its published weights."""

    config: type[ModelConfig]
    make: Callable[[Any, int], nn.Module]
    weights: Callable[[Any, str], dict[str, Tensor]] = no_weights


KINDS = {
    "resnet8": Kind(CIFARResNetConfig, make_cifar_resnet),
    "resnet20": Kind(CIFARResNetConfig, make_cifar_resnet),
    "resnet50": Kind(ResNet50Config, make_resnet50, resnet50_weights),
    "torchvision": Kind(LibraryConfig, make_torchvision, torchvision_weights),
    "timm": Kind(LibraryConfig, make_timm, timm_weights),
}


def config_class(name: str) -> type[ModelConfig]:
    if name not in KINDS:
        raise UserError(
            f"model.name={name}: the name belongs to model=: give model=NAME or model=torchvision model.arch={name}"
        )
    return KINDS[name].config


def make_model(config: ModelConfig, classes: int, sizes: Iterable[int] = (), micro: int = 2) -> nn.Module:
    """The network that ``config`` describes, for float images N,3,H,W; weights come from torch's generator.

    Raises UserError for an unknown name, and for a network that cannot be trained on ``micro`` images of ``sizes``.
    """
    make = KINDS[config.name].make
    try:
        model = make(config, classes)
    except Exception as error:
        # a library raises whatever its options lead to
        if not isinstance(config, LibraryConfig):
            raise
        given = f" with model.options={config.options}" if config.options else ""
        raise UserError(f"{config.network} cannot be made{given}: {' '.join(str(error).split())[:160]}") from error
    # ours take any number of images but one, which BatchNorm refuses where its maps are single pixels
    if isinstance(config, LibraryConfig) or micro == 1:
        for size in sorted(set(sizes)):
            _try(model, config, classes, size, min(micro, 2))
    return model


def published_weights(config: ModelConfig, init: str) -> dict[str, Tensor]:
    """The weights that a library publishes as ``init``, such as ``DEFAULT`` or ``IMAGENET1K_V2``, by name.

    Raises UserError when there are none, or when they cannot be downloaded.
    """
    return KINDS[config.name].weights(config, init)


def _try(model: nn.Module, config: ModelConfig, classes: int, size: int, images: int) -> None:
    """Take a training step of ``model`` without numbers; UserError when it is not one of logits N,classes."""
    import logging

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    # torch would print a traceback of its own
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    with FakeTensorMode(allow_non_fake_inputs=True):
        parameters = {name: torch.empty_like(p).requires_grad_() for name, p in model.named_parameters()}
        buffers = {name: torch.empty_like(b) for name, b in model.named_buffers()}
        try:
            logits = torch.func.functional_call(
                model.train(), (parameters, buffers), torch.empty(images, 3, size, size)
            )
        except Exception as error:
            why = f"images of {size} pixels ({' '.join(str(error).split())[:160]})"
            if images == 1:
                raise UserError(
                    f"{config.network} cannot be trained with batch.micro=1 on {why}: give a larger batch.micro"
                ) from error
            raise UserError(
                f"{config.network} cannot be trained on {why}: give another data.size, or model.options="
                f"{{image_size:{size}}} (timm: img_size) where it has that"
            ) from error
        if not isinstance(logits, torch.Tensor):
            raise UserError(
                f"{config.network} has auxiliary outputs in training, which have no loss here: choose another "
                "model.arch, or leave them out by model.options={aux_logits:false} where it has that"
            )
        if logits.shape != (images, classes):
            raise UserError(f"{config.network} gives {tuple(logits.shape)}, not logits of {classes} classes")
        logits.sum().backward()
        if unused := [name for name, p in parameters.items() if p.grad is None]:
            raise UserError(f"{config.network} does not train {', '.join(unused[:3])}: choose another model.arch")
