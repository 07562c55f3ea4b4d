"""What a layout is, and what the layouts share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from train.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")
# searched in this order; where there is only test it is used, and the data line says so
VAL_SPLITS = ("val", "valid", "validation", "test")
PACK = "pack.json"  # beside shards that scripts/pack.py writes: which there must be, and of what

Tick = Callable[[int], object]  # reports progress, in the layout's ``unit``


@dataclass
class Part:
    """The images of one folder or file ``container``, a path relative to the root; classes by name.

    ``places``: offset and size in bytes in an archive, row group and row in a parquet file, zeros in a folder.
    """

    container: str
    names: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)

    def add(self, name: str, of_class: str, place: tuple[int, int] = (0, 0)) -> None:
        self.names.append(name)
        self.classes.append(of_class)
        self.places.append(place)


Splits = tuple[list[Part], list[Part]]  # training and validation


@dataclass(frozen=True)
class Layout:
    """One layout, recognised in a root."""

    name: str  # for messages
    access: str  # a key of ``sources.READERS``
    inputs: list[str]  # files and folders, relative to the root, on which the listing depends
    list_images: Callable[[Tick], Splits]  # reports ``total`` of ``unit`` in all
    total: int
    unit: str
    val_split: str = "val"  # what it calls the validation images


def entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def label_of(classes: dict[str, str], stem: str, where: Path, labels: Path) -> str:
    """The class of image ``stem`` of ``where``, from the file ``labels``."""
    if stem not in classes:
        raise UserError(f"{where} has an image {stem} that {labels} does not name: are they of one data set?")
    return classes[stem]
