"""Loads optimizers that torchlars pickled."""

import pickle
from pathlib import Path
from typing import IO, Any

import torch

from lars.lars import LARS


class _Unpickler(pickle.Unpickler):
    """Resolves ``torchlars.LARS`` to this package's, allows torch's own classes, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "LARS" and module in ("torchlars", "torchlars.lars"):
            return LARS
        containers = name in ("dict", "list", "set", "tuple") and module in ("builtins", "__builtin__")
        containers = containers or (module == "collections" and name in ("OrderedDict", "defaultdict"))
        allowed = containers or module.split(".")[0] == "torch"
        if allowed:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"{module}.{name} does not belong in an optimizer's pickle: where torchlars is installed, save "
            "optimizer.state_dict() alone, and load that"
        )


class _Module:
    """The interface of the pickle module that ``torch.load`` needs."""

    Unpickler = _Unpickler
    load = staticmethod(lambda file, **options: _Unpickler(file, **options).load())


def load_torchlars(file: str | Path | IO[bytes]) -> Any:
    """Load a torchlars optimizer that ``pickle.dump`` or ``torch.save`` wrote, as a ``lars.LARS``.

    ``torchlars`` need not be installed. Only its class and torch's own are resolved; anything else raises
    pickle.UnpicklingError. A pickle can still call anything in torch, so load only files that you trust.
    """
    if isinstance(file, (str, Path)):
        with open(file, "rb") as opened:
            return load_torchlars(opened)
    start = file.read(4)
    file.seek(-len(start), 1)
    if start[:2] == b"PK":
        return torch.load(file, pickle_module=_Module, weights_only=False)
    return _Unpickler(file).load()
