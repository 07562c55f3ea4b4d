"""What the loop reports while it runs, and to whom: the interface of every form of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Run:
    """What a logger is told when it is made."""

    folder: Path
    name: str
    images: int  # trained on so far: above 0 when the run is resumed, and what was logged of later ones is superseded
    settings: dict[str, Any]  # that stay as they are when the run is resumed, by name
    about: str  # lines that describe it


class Logger:
    """A log output. It overrides the methods that it needs; the others do nothing.

    ``images`` counts the images trained on since the beginning of the run, and epochs count from 1.
    """

    def training(self, epoch: int, until: int) -> None:
        """The steps of ``epoch`` begin, or continue after a resume; the next evaluation is after epoch ``until``."""

    def progress(self, images: int, **figures: float) -> None:
        """A step was taken; ``figures`` such as its loss come with those whose loss is read."""

    def scalars(self, images: int, values: dict[str, float]) -> None:
        """Single figures, by name."""

    def layers(self, step: int, images: int, names: list[str], figures: dict[str, Tensor]) -> None:
        """Figures of every layer after ``step`` steps, such as its trust ratio: 1-D, in the order of ``names``."""

    def evaluating(self, epoch: int) -> None:
        """``epoch`` has all its steps, and an evaluation follows."""

    def row(self, row: dict[str, Any]) -> None:
        """An evaluation, as it stands in ``log.jsonl``."""

    def picture(self, images: int, tag: str, pixels: Tensor, captions: Sequence[str] = ()) -> None:
        """Images to be looked at, uint8 N,H,W,3, each with a caption of two lines where there are ``captions``."""

    def say(self, line: str) -> None:
        """A line for the person who watches the run."""

    def rewind(self, rows: int, images: int) -> None:
        """The run continues from an earlier point, after ``rows`` evaluations: what was logged since is superseded."""

    def close(self, is_over: bool) -> None:
        """The process ends. ``is_over``: the run is finished or has diverged, and will not be resumed."""


class Loggers(Logger):
    """Several forms of the log at once; none on a rank that is not the chief."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers

    def training(self, epoch: int, until: int) -> None:
        for logger in self._loggers:
            logger.training(epoch, until)

    def progress(self, images: int, **figures: float) -> None:
        for logger in self._loggers:
            logger.progress(images, **figures)

    def scalars(self, images: int, values: dict[str, float]) -> None:
        for logger in self._loggers:
            logger.scalars(images, values)

    def layers(self, step: int, images: int, names: list[str], figures: dict[str, Tensor]) -> None:
        for logger in self._loggers:
            logger.layers(step, images, names, figures)

    def evaluating(self, epoch: int) -> None:
        for logger in self._loggers:
            logger.evaluating(epoch)

    def row(self, row: dict[str, Any]) -> None:
        for logger in self._loggers:
            logger.row(row)

    def picture(self, images: int, tag: str, pixels: Tensor, captions: Sequence[str] = ()) -> None:
        for logger in self._loggers:
            logger.picture(images, tag, pixels, captions)

    def say(self, line: str) -> None:
        for logger in self._loggers:
            logger.say(line)

    def rewind(self, rows: int, images: int) -> None:
        for logger in self._loggers:
            logger.rewind(rows, images)

    def close(self, is_over: bool) -> None:
        for logger in self._loggers:
            logger.close(is_over)
