"""The kinds of data, found by name: ``data=NAME`` is ``configs/data/NAME.yaml`` and ``train/data/NAME.py``.

A number at the end of the name is not part of the module's: ``cifar10`` and ``cifar100`` are one module.

That module has ``Config``, a ``DataConfig`` with the keys of the YAML file, and ``open_data(config)``, which returns a
``Data`` and raises UserError when the images cannot be used. It imports torch only when the data are opened.
"""

import importlib
import importlib.util
from types import ModuleType

from train.data.dataset import Data, DataConfig
from train.errors import UserError


def config_class(name: str) -> type[DataConfig]:
    return _module(name).Config


def open_data(config: DataConfig) -> Data:
    """Find the images that ``config`` describes, or make them; raises UserError when that is not possible."""
    return _module(config.name).open_data(config)


def _module(name: str) -> ModuleType:
    module_name = name.rstrip("0123456789")
    path = f"train.data.{module_name}"
    if not module_name.isidentifier() or importlib.util.find_spec(path) is None:
        raise UserError(f"data.name={name} is not a kind of data: there is no train/data/{module_name}.py")
    module = importlib.import_module(path)
    if not hasattr(module, "Config"):
        raise UserError(f"data.name={name} is not a kind of data: train/data/{module_name}.py has no Config")
    return module
