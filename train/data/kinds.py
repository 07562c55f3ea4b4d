"""The kinds of data by name, as in ``configs/data``.

A kind is a module with ``Config``, a ``DataConfig`` with the keys of the YAML file, and ``open_data(config)``, which
returns a ``Data`` and raises UserError when the images cannot be used. It imports torch only when the data are opened.
"""

from types import ModuleType

from train.data import cifar, fractals, imagenet
from train.data.dataset import Data, DataConfig
from train.errors import UserError

KINDS: dict[str, ModuleType] = {"imagenet": imagenet, "fractals": fractals, "cifar10": cifar, "cifar100": cifar}


def config_class(name: str) -> type[DataConfig]:
    if name not in KINDS:
        raise UserError(f"data.name={name} is not one of {', '.join(KINDS)}")
    return KINDS[name].Config


def open_data(config: DataConfig) -> Data:
    """Find the images that ``config`` describes, or make them; raises UserError when that is not possible."""
    return KINDS[config.name].open_data(config)
