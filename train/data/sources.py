"""Where images lie: a source knows its classes and labels, and hands out an image's bytes by index."""

import hashlib
import os
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")


class Folder:
    """One split of an ImageFolder tree, ``folder/<class>/*``, sorted by class and file name.

    Paths are kept in one numpy array and not in a list: 1.28 million Python strings cost every worker their
    memory. Raises UserError for a folder that is missing, empty or without an image in some class.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        except OSError as error:
            raise UserError(f"cannot read {folder}: {error.strerror}") from error
        if not self.classes:
            raise UserError(f"{folder} has no class folders: it should hold {folder.name}/<class>/<image>.JPEG")
        names: list[bytes] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            files = sorted(e.name for e in os.scandir(folder / name) if e.name.lower().endswith(IMAGE_ENDINGS))
            if not files:
                raise UserError(
                    f"{folder / name} has no image files ({', '.join(IMAGE_ENDINGS)}): class without images"
                )
            names += [os.fsencode(f"{name}/{file}") for file in files]
            labels += [label] * len(files)
        self._names = np.array(names)
        self.labels: NDArray[np.int64] = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return str(self.folder / os.fsdecode(self._names[index]))

    def read(self, index: int) -> bytes:
        with open(self.name(index), "rb") as file:
            return file.read()

    def fingerprint(self) -> str:
        """What identifies these images without reading them: their names."""
        digest = hashlib.sha256()
        for name in self._names:
            digest.update(name + b"\n")
        return digest.hexdigest()


def open_folders(root: Path) -> tuple[Folder, Folder]:
    """The training and validation split under ``root``; raises UserError unless their classes agree."""
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder: give the one that holds train/ and val/")
    missing = [split for split in ("train", "val") if not (root / split).is_dir()]
    if missing:
        found = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
        raise UserError(
            f"data.root={root} has no folder {' and no '.join(missing)} (it holds {found}): "
            "expected train/<class>/* and val/<class>/*"
        )
    train, val = Folder(root / "train"), Folder(root / "val")
    if train.classes != val.classes:
        only = sorted(set(train.classes) ^ set(val.classes))
        raise UserError(
            f"data.root={root}: train has {len(train.classes)} classes and val {len(val.classes)}; "
            f"in only one of them: {', '.join(only[:3])}{' ...' if len(only) > 3 else ''}"
        )
    return train, val


def decode(source: Folder, index: int) -> Image.Image:
    """The image as RGB, of its own size; raises UserError naming the file when it cannot be decoded.

    As torchvision's ImageFolder does: CMYK and grey are converted, EXIF rotation is ignored.
    """
    try:
        with warnings.catch_warnings():
            # broken EXIF blocks are common in ImageNet and say nothing about the pixels
            warnings.simplefilter("ignore")
            return Image.open(BytesIO(source.read(index))).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot decode {source.name(index)}: {error}: mend or remove the file") from error
