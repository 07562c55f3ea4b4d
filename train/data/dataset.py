"""What every kind of data has: its configuration, and the open data set that is made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.errors import UserError
from train.keys import key, operational

if TYPE_CHECKING:
    from train.data.loader import Loader, MicroBatch, Process

ILSVRC_2012 = (1_281_167, 50_000, 1_000)  # training images, validation images, classes


@dataclass(kw_only=True)
class ProgressiveConfig:
    """Training images that grow from ``start`` pixels to their full size, linearly between two ``epochs``."""

    start: int | None = key(range="a multiple of `data.progressive.multiple`, 8 to `data.size`")
    epochs: list[int] = key(ascending=True)
    multiple: int = key(least=1)

    def check(self, full: int) -> None:
        if len(self.epochs) != 2:
            raise UserError(f"data.progressive.epochs={self.epochs} must be two epochs, such as [0, 60]")
        if self.start is not None and not (8 <= self.start <= full and self.start % self.multiple == 0):
            raise UserError(
                f"data.progressive.start={self.start} must be a multiple of data.progressive.multiple={self.multiple} "
                f"from 8 to data.size={full}"
            )

    def size(self, full: int, epoch: int) -> int:
        """Pixels of a training image in ``epoch``, from 0, where the full size is ``full``."""
        begin, end = self.epochs
        if self.start is None or epoch >= end:
            return full
        grown = (full - self.start) * max(epoch - begin, 0) // (end - begin)
        return self.start + grown // self.multiple * self.multiple


@dataclass(kw_only=True)
class DataConfig:
    name: str
    root: str | None = operational()
    split: str = operational(one_of=("selection", "report"))  # what an evaluation without training scores
    size: int
    progressive: ProgressiveConfig
    batch_divisor: int
    micro: int
    workers: int | None = operational(least=0)
    mean: list[float]
    std: list[float]

    def sizes(self, epochs: int) -> set[int]:
        """Pixels of the images that a network sees in so many ``epochs``."""
        return {self.progressive.size(self.size, epoch) for epoch in range(epochs)} | {self.size}

    def expected_train_images(self) -> int | None:
        """The number of training images, where it is known before the data are opened."""
        return None

    def check(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(f"data.mean={self.mean} and data.std={self.std} must be three numbers, std above 0")
        self.progressive.check(self.size)


@dataclass(frozen=True)
class Data:
    """An open data set."""

    class_names: list[str]
    train_images: int
    val_images: int
    fingerprint: str  # identifies the images, their order and their labels
    remark: str  # what a reader of the log must know about them
    make_loader: Callable[[Process, int], Loader]  # for one process and a seed
    # one process's share of a third split, on which no setting is chosen; None where there is none
    report_batches: Callable[[Process], Iterable[MicroBatch]] | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def is_ilsvrc(self) -> bool:
        """Whether there are as many images and classes as in ILSVRC-2012."""
        return (self.train_images, self.val_images, self.classes) == ILSVRC_2012
