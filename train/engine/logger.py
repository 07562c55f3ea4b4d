"""What the loop reports while it runs, and to whom: the interface of every form of the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

# the tag of each figure in a row of log.jsonl
TAGS = {
    "validation/top1": "val_top1",
    "validation/top5": "val_top5",
    "validation/loss": "val_loss",
    "train/epoch_loss": "train_loss",
    "epoch": "epoch",
    "images_per_second": "images_per_second",
}


@dataclass(frozen=True)
class Run:
    """What a logger is told when it is made."""

    folder: Path
    name: str
    images: int  # trained on so far: above 0 when the run is resumed, and what was logged of later ones is superseded
    settings: dict[str, Any]  # that stay as they are when the run is resumed, by name
    about: str  # lines that describe it


class Logger:
    """A log output. It overrides the methods that it needs: rows and layers become scalars, the others do nothing.

    ``images`` counts the images trained on since the beginning of the run, and epochs count from 1.
    """

    def training(self, epoch: int, until: int) -> None:
        """The steps of ``epoch`` begin, or continue after a resume; the next evaluation is after epoch ``until``."""

    def progress(self, images: int, **figures: float) -> None:
        """A step was taken. ``figures``, such as its loss, are given only when the loss is read."""

    def scalars(self, images: int, values: dict[str, float]) -> None:
        """Single figures, by name."""

    def layers(self, step: int, images: int, names: list[str], figures: dict[str, Tensor]) -> None:
        """Figures of every layer after ``step`` steps, such as its trust ratio: 1-D, in the order of ``names``."""
        for kind, values in figures.items():
            self.scalars(images, {f"{kind}/{n}": v for n, v in zip(names, values.tolist(), strict=True)})

    def evaluating(self, epoch: int) -> None:
        """``epoch`` has all its steps, and an evaluation follows."""

    def row(self, row: dict[str, Any]) -> None:
        """An evaluation, as it stands in ``log.jsonl``."""
        # a row whose steps another process took has no speed
        self.scalars(row["images"], {tag: row[key] for tag, key in TAGS.items() if row[key] is not None})

    def picture(self, images: int, tag: str, pixels: Tensor, captions: Sequence[str] = ()) -> None:
        """Images to be looked at, uint8 N,H,W,3, each with a caption of two lines where there are ``captions``."""

    def say(self, line: str) -> None:
        """A line for the person who watches the run."""

    def rewind(self, rows: int, images: int) -> None:
        """The run continues from an earlier point, after ``rows`` evaluations: what was logged since is superseded."""

    def close(self, is_over: bool) -> None:
        """The process ends. ``is_over``: the run is finished or has diverged, and will not be resumed."""


class Loggers:
    """Several forms of the log at once, each told what this one is told."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers

    def __getattr__(self, method: str) -> Callable[..., None]:
        def tell(*arguments: Any, **named: Any) -> None:
            for logger in self._loggers:
                getattr(logger, method)(*arguments, **named)

        return tell
