"""The official archives of ILSVRC-2012 as downloaded: a tar of tars, a tar, and the development kit with labels."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from train.data.layouts.layout import Layout, Part, Splits, Tick, label_of
from train.errors import UserError

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT, TRUTH = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_validation_ground_truth.txt"


def official(root: Path) -> Layout | None:
    needed = (TRAIN_TAR, VAL_TAR, DEVKIT)
    missing = [name for name in needed if not (root / name).is_file()]
    if TRAIN_TAR in missing and VAL_TAR in missing:
        return None
    if missing:
        what = " (validation labels)" if missing == [DEVKIT] else ""
        there = next(name for name in needed if name not in missing)
        raise UserError(
            f"data.root={root} lacks {' and '.join(missing)}{what}: download from image-net.org, as it is, or move "
            f"{there} away if it is unpacked beside"
        )

    def list_images(tick: Tick) -> Splits:
        train = Part(TRAIN_TAR)
        with open(root / TRAIN_TAR, "rb") as file:
            for of_class in members(root / TRAIN_TAR, file, 0, lambda _: None):
                end = of_class.offset_data + of_class.size
                name = PurePosixPath(of_class.name).stem
                for image in members(root / TRAIN_TAR, file, of_class.offset_data, lambda _: None, end):
                    train.add(PurePosixPath(image.name).name, name, (image.offset_data, image.size))
                tick(of_class.size)
        synsets = _validation_synsets(root / DEVKIT)
        val = Part(VAL_TAR)
        with open(root / VAL_TAR, "rb") as file:
            for image in members(root / VAL_TAR, file, 0, tick):
                name = PurePosixPath(image.name).name
                val.add(name, label_of(synsets, PurePosixPath(name).stem, root / VAL_TAR, root / DEVKIT),
                        (image.offset_data, image.size))  # fmt: skip
        return [train], [val]

    total = sum((root / name).stat().st_size for name in (TRAIN_TAR, VAL_TAR))
    return Layout("the official archives", "archive", list(needed), list_images, total, "B")


def members(path: Path, file: BinaryIO, start: int, tick: Tick, end: int | None = None) -> Iterator[tarfile.TarInfo]:
    """The regular files of the tar from ``start`` to ``end`` of ``file``; UserError when it is damaged or cut short."""
    whole = os.fstat(file.fileno()).st_size
    end = whole if end is None else end
    file.seek(start)
    at = start
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                # tarfile keeps every header it has seen
                tar.members.clear()  # type: ignore[attr-defined]
                if member.offset_data + member.size > whole:
                    break
                if member.isreg():
                    yield member
                tick(tar.offset - at)
                at = tar.offset
            last = os.pread(file.fileno(), tarfile.BLOCKSIZE, tar.offset)
    except tarfile.ReadError as error:
        raise UserError(f"{path} is not a tar file, or cut short ({error}): download it again") from error
    if last != bytes(tarfile.BLOCKSIZE) or at + tarfile.BLOCKSIZE > end:
        raise UserError(f"{path} is damaged or cut short at byte {at:,} of {whole:,}: download it again")


def synsets() -> list[str]:
    """WordNet ids of the classes, in the order of their numbers in ILSVRC 2012, from 1 on."""
    lines = Path(__file__).with_name("ilsvrc2012_synsets.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def _validation_synsets(devkit: Path) -> dict[str, str]:
    """Class (WordNet id) of each validation image by its stem, from the development kit of ILSVRC 2012.

    The kit numbers the classes in a MATLAB file, whose numbers are in ``ilsvrc2012_synsets.txt``.
    """
    try:
        # whole, so that gzip's checksum is looked at
        whole = gzip.decompress(devkit.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            content = {PurePosixPath(m.name).name: tar.extractfile(m) for m in tar.getmembers() if m.isreg()}
            truth = content.get(TRUTH)
            if truth is None:
                raise UserError(f"{devkit} has no {TRUTH}: download it again")
            numbers = [int(line) for line in truth.read().split()]
        of_number = dict(enumerate(synsets(), 1))
        return {f"ILSVRC2012_val_{i:08d}": of_number[number] for i, number in enumerate(numbers, 1)}
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {devkit} ({error}): download it again") from error
