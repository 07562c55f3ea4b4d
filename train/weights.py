"""Initial weights from a file or a library, and which layers are trained."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from copy import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from train.errors import UserError
from train.model import ModelConfig, published_weights
from train.output import checkpoint

PUBLISHED = re.compile(r"[A-Z][A-Z0-9_]*")  # names such as DEFAULT and IMAGENET1K_V2; anything else is a file
WRAPPERS = re.compile(r"^((module|_orig_mod)(\.|$))+")  # what DDP and torch.compile put before names

Weights = dict[str, Tensor]


def initial_weights(init: str, config: ModelConfig) -> Weights:
    """The weights that ``init`` names: those of a file, or those that the network's library publishes."""
    # torchvision writes ResNet50_Weights.IMAGENET1K_V2
    name, path = init.rpartition("_Weights.")[2], Path(os.path.expanduser(init))
    if PUBLISHED.fullmatch(name):
        return published_weights(config, name)
    if not path.exists():
        raise UserError(f"init={init}: there is no such file; published weights are DEFAULT, IMAGENET1K_V2 etc.")
    return read(path)


def read(path: Path) -> Weights:
    """The weights in a checkpoint of ours, of timm's or torchvision's scripts, or in a plain file of either format."""
    state: dict[str, Any] = _safetensors(path) if path.suffix == ".safetensors" else checkpoint.load(path)
    weights = next(
        (state[key] for key in ("average", "model", "state_dict") if isinstance(state.get(key), dict)), state
    )
    # what torch's AveragedModel counts
    weights.pop("n_averaged", None)
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()):
        raise UserError(f"{path} holds no weights: give a state_dict, or a checkpoint with one")
    bare: Weights = OrderedDict((WRAPPERS.sub("", name), value) for name, value in weights.items())
    # the versions of modules, without which torchvision's MNASNet refuses its own weights
    versions = getattr(weights, "_metadata", {})
    bare._metadata = {WRAPPERS.sub("", name): version for name, version in versions.items()}  # type: ignore[attr-defined]
    return bare


def _safetensors(path: Path) -> Weights:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{path} needs safetensors to be read: pip install safetensors") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error}): download it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): give the file of weights") from error


def load(model: nn.Module, weights: Weights, problem: str, classes: int) -> None:
    """Load ``weights``; raises UserError, a line that begins with ``problem``, when they are another network's."""
    try:
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        why = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"{problem} with {classes} classes ({why[:240]}): give the model= and data= that it was trained with, "
            "and their model.options and data.size"
        ) from error


def begin_from(model: nn.Module, weights: Weights, classes: int, init: str) -> str:
    """Load ``weights``, except for a head that they lack or have for another number of classes; a line that says so.

    Raises UserError when they are another network's.
    """
    own = model.state_dict()
    head = [name for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]
    lacking = [name for name in own if name.rpartition(".")[0] == head and name not in weights]
    drawn = [name for name in own if name in weights and _is_other_head(model, name, own[name], weights[name], classes)]
    drawn += lacking
    merged = copy(weights)
    merged.update({name: own[name] for name in drawn})
    load(model, merged, f"init={init} does not fit this network", classes)
    if not drawn:
        return f"started from {init}"
    return (
        f"started from {init}, except {', '.join(drawn)}: randomly initialised "
        f"({f'{len(weights[drawn[0]])} classes' if drawn != lacking else 'no head'} there, {classes} classes here)"
    )


def _is_other_head(model: nn.Module, name: str, own: Tensor, other: Tensor, classes: int) -> bool:
    """Whether a tensor belongs to a last layer, and ``other`` only has another number of classes."""
    layer = model.get_submodule(name.rpartition(".")[0])
    if not isinstance(layer, (nn.Linear, nn.Conv2d)) or own.shape == other.shape:
        return False
    return own.shape[:1] == (classes,) and own.shape[1:] == other.shape[1:]


def train_only(model: nn.Module, layer: str) -> None:
    """Freeze all of ``model`` but ``layer``; raises UserError when it has none of that name."""
    chosen = [p for name, p in model.named_parameters() if f"{name}.".startswith(f"{layer}.")]
    if not chosen:
        names = dict.fromkeys(name.partition(".")[0] for name, _ in model.named_parameters())
        raise UserError(
            f"train_only={layer} is not a layer of this network: choose one of {', '.join(names)}, or a part"
        )
    model.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
