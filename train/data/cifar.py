"""``data=cifar10`` and ``data=cifar100``: the official binary archives, read in place into memory.

``cifar-10-binary.tar.gz`` and ``cifar-100-binary.tar.gz`` are from https://www.cs.toronto.edu/~kriz/cifar.html, which
has their format: for each image its labels, a byte each, and 32 x 32 bytes of red, then of green, then of blue.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from train.data.dataset import Data, DataConfig
from train.errors import UserError
from train.keys import key

if TYPE_CHECKING:
    from train.data.loader import Loader, Process
    from train.data.memory import Split

SIDE = 32  # pixels
OFFICIAL = (50_000, 10_000)  # training and test images


@dataclass(frozen=True)
class Archive:
    """One of the archives: its files of training and of test images, and the bytes of labels before an image."""

    name: str
    train: tuple[str, ...]
    test: str
    class_names: str
    labels: int


ARCHIVES = {
    "cifar10": Archive(
        "cifar-10-binary.tar.gz",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt", labels=1,
    ),
    "cifar100": Archive(  # the label of twenty, and then that of a hundred
        "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", "fine_label_names.txt", labels=2
    ),
}  # fmt: skip


@dataclass(kw_only=True)
class Config(DataConfig):
    size: int = key(range="32")
    shift: int = key(least=0)

    def check(self) -> None:
        super().check()
        if self.size != SIDE:
            raise UserError(f"data.size={self.size}: the images of data={self.name} are of {SIDE} pixels")
        if self.split == "report":
            raise UserError(f"data.split=report: data={self.name} has no third split, only train and test")


def open_data(config: Config) -> Data:
    from train.data.memory import MemoryLoader, fingerprint

    archive = ARCHIVES[config.name]
    if not config.root:
        raise UserError(f"data={config.name} needs data.root=DIR, the folder that holds {archive.name}")
    classes, train, test = read(Path(os.path.expanduser(config.root)).absolute() / archive.name, archive)
    counts = (len(train[1]), len(test[1]))
    remark = "{:,} training and {:,} test images".format(*counts) + f" of {len(classes)} classes, from {archive.name}"
    if counts != OFFICIAL:
        remark += ": NOT the official archive, which has {:,} and {:,}".format(*OFFICIAL)

    def make_loader(process: Process, seed: int) -> Loader:
        return MemoryLoader(train, test, config, config.shift, process, seed, border="constant")

    return Data(classes, *counts, fingerprint(train, test), remark, make_loader)


def read(path: Path, archive: Archive) -> tuple[list[str], Split, Split]:
    """The classes, and the images N,32,32,3 and labels of both splits; UserError when the archive is damaged."""
    try:
        # whole, so that gzip's checksum is looked at
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes()))) as tar:
            members = {PurePosixPath(m.name).name: tar.extractfile(m) for m in tar.getmembers() if m.isreg()}
            files = {name: member.read() for name, member in members.items() if member}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"there is no {path}: give the folder that holds it, as downloaded from "
            "https://www.cs.toronto.edu/~kriz/cifar.html"
        ) from error
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged or cut short ({error}): download it again") from error
    if missing := [name for name in (*archive.train, archive.test, archive.class_names) if name not in files]:
        raise UserError(f"{path} has no {missing[0]}: download it again")
    classes = files[archive.class_names].decode().split()
    splits: list[Split] = []
    for names in (archive.train, (archive.test,)):
        content = b"".join(files[name] for name in names)
        images, rest = divmod(len(content), archive.labels + 3 * SIDE**2)
        records = np.frombuffer(content, np.uint8, count=len(content) - rest).reshape(images, -1)
        labels = records[:, archive.labels - 1].astype(np.int64)
        if rest or not images or labels.max() >= len(classes):
            raise UserError(
                f"{path} is damaged: {names[0]} is not a whole number of images, or has labels without a class"
            )
        pixels = records[:, archive.labels :].reshape(images, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        splits.append((np.ascontiguousarray(pixels), labels))
    return classes, splits[0], splits[1]
