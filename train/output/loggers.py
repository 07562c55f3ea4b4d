"""Opens the loggers that ``logger=`` names, and turns off one that fails."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from train.engine.logger import Logger, Run
from train.output.board import BoardLogger, opening


def open_logger(name: str, run: Run, say: Callable[[str], None]) -> Logger:
    """The logger ``name``: tensorboard, wandb, mlflow, or a ``module:callable`` that makes a Logger of a ``Run``.

    When one of the latter three cannot be opened or fails later, ``say`` reports it once, and training continues.
    """
    if name == "tensorboard":
        return BoardLogger(run.folder / "tb", run.images, opening(run.settings, run.about))

    return cast(Logger, Guarded(name, lambda: _factory(name)(run), say))


def _factory(name: str) -> Callable[[Run], Logger]:
    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)
    from train.output import tracking

    return tracking.SERVICES[name]


class Guarded:
    """A logger that may fail, for example for want of a server: after its first failure it is no longer called."""

    def __init__(self, name: str, make: Callable[[], object], say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        self._logger = Logger()
        self._try(self._begin, make)

    def _begin(self, make: Callable[[], object]) -> None:
        made = make()
        if not isinstance(made, Logger):
            raise TypeError(f"it made {made!r:.60}, which is no Logger")
        self._logger = made

    def _try(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (Exception, SystemExit) as error:
            self._logger = Logger()
            why = " ".join(f"{type(error).__name__}: {error}".split())
            fix = ""
            if isinstance(error, ModuleNotFoundError):
                is_service = error.name == self._name
                fix = f": pip install {self._name}" if is_service else ": put the folder of its module on PYTHONPATH"
            self._say(f"logger={self._name} is off, training continues without it ({why[:300]}){fix}")

    def __getattr__(self, method: str) -> Callable[..., None]:
        return lambda *arguments, **named: self._try(lambda: getattr(self._logger, method)(*arguments, **named))
