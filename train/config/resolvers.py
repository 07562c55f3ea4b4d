"""What the ``${...}`` expressions in ``configs/`` compute."""

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from train.config import groups
from train.errors import UserError
from train.keys import flatten

BY_BATCH = ("${by_batch:", "${lr_by_batch:")  # how the YAML files say that a value follows from the preset


def divide(total: int, divisor: int) -> int:
    if divisor < 1 or total % divisor:
        raise UserError(f"data.batch_divisor={divisor} does not divide the preset's batch of {total}")
    return total // divisor


def by_batch(table: dict[str | int, Any], *, _root_: DictConfig) -> Any:
    """The entry of ``table`` for the chosen preset; raises UserError when the recipe has not published one."""
    published = {str(preset): value for preset, value in table.items()}
    preset = str(_root_.batch.preset)
    if preset in published:
        return published[preset]
    # The keys that lack a value are those that the YAML files define by this function.
    written = flatten(OmegaConf.to_container(_root_, resolve=False))  # type: ignore[arg-type]
    lacking = [name for name, value in written.items() if str(value).startswith(BY_BATCH)]
    raise UserError(
        f"recipe={_root_.recipe.name} has no published values for batch={preset}: choose batch={'|'.join(published)}, "
        f"or give values of your own by {' '.join(f'{name}=X' for name in lacking)}"
    )


def lr_by_batch(table: dict[str | int, float], *, _root_: DictConfig) -> float:
    """As ``by_batch``; where ``batch.total`` was given on ImageNet or images of one's own, scaled from the nearest row.

    LARS by the square root of the batch (NUS-HPC-AI-Lab/LARS-ImageNet-PyTorch), others in proportion to it (Goyal et
    al. 2017). Data that divide the batch keep the preset's lr, because there the preset is what the batch stands for.
    """
    total = _root_.batch.total
    is_preset = total == _root_.batch.published or _root_.data.batch_divisor != 1
    # a total that is not valid is reported later, under its own key
    if is_preset or not isinstance(total, int) or total < 1:
        return by_batch(table, _root_=_root_)
    rows = {groups.images(str(preset)): lr for preset, lr in table.items()}
    nearest = min(rows, key=lambda images: abs(math.log(images / total)))
    scale = sqrt if _root_.optimizer.name == "lars" else linear
    return scale(rows[nearest], nearest, total)


def linear(lr: float, batch: int, total: int) -> float:
    """The lr of ``total`` images in proportion to the batch, from a published pair of lr and batch."""
    return lr * total / batch


def sqrt(lr: float, batch: int, total: int) -> float:
    """As ``linear``, in proportion to the square root of the batch."""
    return round(lr * math.sqrt(total / batch), 2)


def register() -> None:
    """Make them known to OmegaConf by name."""
    for function in (divide, by_batch, lr_by_batch, linear, sqrt, min):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)  # type: ignore[arg-type]
