"""The forms in which people have ImageNet: told apart, and listed: where each image lies, its name and its class.

Nothing is extracted and no image is read: of archives only the headers between the images are.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from train.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
KAGGLE, KAGGLE_LABELS = "ILSVRC/Data/CLS-LOC", "LOC_val_solution.csv"
CLASS_NAMES = "classes.txt"  # beside shards: a line for each label, if it is there
PACK = "pack.json"  # beside shards that scripts/pack.py writes: which there must be, and of what

Tick = Callable[[int], object]


@dataclass
class Part:
    """The images of one folder or file, ``container``, a path relative to the root; classes by name.

    ``places``: offset and size in bytes in an archive, row group and row in a parquet file, nothing in a folder.
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
    """One form: ``name`` for people; ``access`` as in ``sources.READERS``; ``inputs``, files and folders relative to
    the root, on which the listing depends; ``list``, which reads them and ticks off ``total`` of ``unit``.
    """

    name: str
    access: str
    inputs: list[str]
    list: Callable[[Tick], Splits]
    total: int
    unit: str


def recognise(root: Path) -> Layout:
    """The layout of ``root``; raises UserError, with what was looked for, when there is none."""
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder: give the one that holds the images or archives")
    for tell in (_official, _kaggle, _parquet, _shards, _folders):
        layout = tell(root)
        if layout is not None:
            return layout
    found = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
    raise UserError(
        f"data.root={root} holds {found}: expected train/<class>/* and val/<class>/*, {TRAIN_TAR} and {VAL_TAR} with "
        f"{DEVKIT}, {KAGGLE} with {KAGGLE_LABELS}, or train and val shards (*.tar, *.parquet)"
    )


# Folders ---------------------------------------------------------------------------------------------------------


def _folders(root: Path) -> Layout | None:
    missing = [split for split in ("train", "val") if not (root / split).is_dir()]
    if len(missing) == 2:
        return None
    if missing:
        found = ", ".join(sorted(p.name for p in root.iterdir())[:5])
        raise UserError(
            f"data.root={root} has no folder {missing[0]} (it holds {found}): "
            "expected train/<class>/* and val/<class>/*"
        )
    train, val = (_class_folders(root, split) for split in ("train", "val"))

    def list_images(tick: Tick) -> Splits:
        return [_class_folder(root, f, tick) for f in train], [_class_folder(root, f, tick) for f in val]

    inputs = ["train", "val", *train, *val]
    return Layout("ImageFolder", "folder", inputs, list_images, len(train) + len(val), "class")


def _class_folders(root: Path, split: str) -> list[str]:
    found = sorted(entry.name for entry in _entries(root / split) if entry.is_dir())
    if not found:
        raise UserError(f"{root / split} has no class folders: it should hold {split}/<class>/<image>.JPEG")
    return [f"{split}/{name}" for name in found]


def _class_folder(root: Path, folder: str, tick: Tick) -> Part:
    part, name = Part(folder), folder.rpartition("/")[2]
    for entry in _entries(root / folder):
        if entry.name.lower().endswith(IMAGE_ENDINGS):
            part.add(entry.name, name)
    if not part.names:
        raise UserError(f"{root / folder} has no image files ({', '.join(IMAGE_ENDINGS)}): class without images")
    tick(1)
    return part


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def _kaggle(root: Path) -> Layout | None:
    if not (root / KAGGLE).is_dir():
        return None
    labels = root / KAGGLE_LABELS
    if not labels.is_file():
        raise UserError(f"{root / KAGGLE / 'val'} has no labels: {labels} is missing, which Kaggle has beside ILSVRC/")
    if not (root / KAGGLE / "train").is_dir() or not (root / KAGGLE / "val").is_dir():
        raise UserError(f"{root / KAGGLE} must hold train/<class>/* and val/*: unpack the rest of Kaggle's archive")
    train = _class_folders(root, f"{KAGGLE}/train")
    val = f"{KAGGLE}/val"

    def list_images(tick: Tick) -> Splits:
        try:
            with open(labels, newline="") as file:
                classes = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
        except (KeyError, AttributeError, IndexError, ValueError) as error:
            raise UserError(f"{labels} has no ImageId and PredictionString in every row: download it again") from error
        part = Part(val)
        for entry in _entries(root / val):
            if entry.name.lower().endswith(IMAGE_ENDINGS):
                part.add(entry.name, _label_of(classes, PurePosixPath(entry.name).stem, root / val, labels))
        tick(1)
        return [_class_folder(root, folder, tick) for folder in train], [part]

    inputs = [KAGGLE_LABELS, f"{KAGGLE}/train", val, *train]
    return Layout("Kaggle's tree", "folder", inputs, list_images, len(train) + 1, "folder")


def _label_of(classes: dict[str, str], stem: str, where: Path, labels: Path) -> str:
    if stem not in classes:
        raise UserError(f"{where} has an image {stem} that {labels} does not name: are they of one data set?")
    return classes[stem]


# Archives --------------------------------------------------------------------------------------------------------


def _official(root: Path) -> Layout | None:
    needed = (TRAIN_TAR, VAL_TAR, DEVKIT)
    missing = [name for name in needed if not (root / name).is_file()]
    if TRAIN_TAR in missing and VAL_TAR in missing:
        return None
    if missing:
        what = " (validation labels)" if missing == [DEVKIT] else ""
        raise UserError(f"data.root={root} lacks {' and '.join(missing)}{what}: download from image-net.org, as it is")

    def list_images(tick: Tick) -> Splits:
        train = Part(TRAIN_TAR)
        with open(root / TRAIN_TAR, "rb") as file:
            for of_class in _members(root / TRAIN_TAR, file, 0, lambda _: None):
                end = of_class.offset_data + of_class.size
                name = PurePosixPath(of_class.name).stem
                for image in _members(root / TRAIN_TAR, file, of_class.offset_data, lambda _: None, end):
                    train.add(PurePosixPath(image.name).name, name, (image.offset_data, image.size))
                tick(of_class.size)
        synsets = _validation_synsets(root / DEVKIT)
        val = Part(VAL_TAR)
        with open(root / VAL_TAR, "rb") as file:
            for image in _members(root / VAL_TAR, file, 0, tick):
                name = PurePosixPath(image.name).name
                val.add(name, _label_of(synsets, PurePosixPath(name).stem, root / VAL_TAR, root / DEVKIT),
                        (image.offset_data, image.size))  # fmt: skip
        return [train], [val]

    total = sum((root / name).stat().st_size for name in (TRAIN_TAR, VAL_TAR))
    return Layout("the official archives", "archive", list(needed), list_images, total, "B")


def _members(path: Path, file: BinaryIO, start: int, tick: Tick, end: int | None = None) -> Iterator[tarfile.TarInfo]:
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
        raise UserError(f"{path} is no tar file, or cut short ({error}): download it again") from error
    if last != bytes(tarfile.BLOCKSIZE) or at + tarfile.BLOCKSIZE > end:
        raise UserError(f"{path} is damaged or cut short at byte {at:,} of {whole:,}: download it again")


def _validation_synsets(devkit: Path) -> dict[str, str]:
    """Class (WordNet id) of each validation image by its stem, from the development kit of ILSVRC 2012."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(f"{devkit} needs scipy to be read: pip install scipy") from error
    try:
        # whole, so that gzip's checksum is looked at
        whole = gzip.decompress(devkit.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            content = {PurePosixPath(m.name).name: tar.extractfile(m) for m in tar.getmembers() if m.isreg()}
            meta, truth = content.get("meta.mat"), content.get("ILSVRC2012_validation_ground_truth.txt")
            if meta is None or truth is None:
                raise UserError(f"{devkit} has no meta.mat or no validation ground truth: download it again")
            synsets = loadmat(io.BytesIO(meta.read()), squeeze_me=True)["synsets"]
            ids = [int(line) for line in truth.read().split()]
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {devkit} ({error}): download it again") from error
    names = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
    return {f"ILSVRC2012_val_{i:08d}": names[number] for i, number in enumerate(ids, 1)}


# Shards ----------------------------------------------------------------------------------------------------------


def _shards(root: Path) -> Layout | None:
    if (root / PACK).exists():
        try:
            wanted = json.loads((root / PACK).read_text())["shards"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{root / PACK} is damaged ({error}): pack anew into another folder") from error
        if missing := [name for name in wanted if not (root / name).exists()]:
            raise UserError(
                f"{root} lacks {len(missing):,} of {len(wanted):,} shards, such as {missing[0]}: "
                "start scripts/pack.py again, it goes on where it was"
            )
    train, val = _split_files(root, ".tar")
    if not train and not val:
        return None

    def list_images(tick: Tick) -> Splits:
        names = _class_names(root)
        return [_shard(root, f, names, tick) for f in train], [_shard(root, f, names, tick) for f in val]

    extra = [name for name in (CLASS_NAMES, PACK) if (root / name).exists()]
    total = sum((root / name).stat().st_size for name in train + val)
    return Layout("WebDataset shards", "archive", [*train, *val, *extra], list_images, total, "B")


def _split_files(root: Path, ending: str) -> tuple[list[str], list[str]]:
    """The files whose name or folder says train, and those that say val, relative to ``root``."""
    found = [p.relative_to(root).as_posix() for p in sorted([*root.glob(f"*{ending}"), *root.glob(f"*/*{ending}")])]
    train, val = ([f for f in found if re.search(rf"(^|[^a-z]){word}", f.lower())] for word in ("train", "val"))
    if bool(train) != bool(val):
        missing = "val" if train else "train"
        raise UserError(f"data.root={root} has {len(train or val)} files *{ending} but none whose name says {missing}")
    return train, val


def _class_names(root: Path) -> list[str]:
    path = root / CLASS_NAMES
    names = path.read_text().splitlines() if path.exists() else []
    # classes are in the order of their names everywhere
    return names if names == sorted(set(names)) else [f"{i:05d} {name}" for i, name in enumerate(names)]


def _name_of(names: list[str], label: int) -> str:
    # as many digits as sort like the numbers
    return names[label] if 0 <= label < len(names) else f"{label:05d}"


def _shard(root: Path, name: str, names: list[str], tick: Tick) -> Part:
    part, path = Part(name), root / name
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    with open(path, "rb") as file:
        for member in _members(path, file, 0, tick):
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            key = f"{folder}/{stem}"
            if f".{ending.lower()}" in IMAGE_ENDINGS:
                images[key] = member
            elif ending in ("cls", "json") and key not in labels:
                content = os.pread(file.fileno(), member.size, member.offset_data)
                label = _label_in(content, ending)
                if label is not None:
                    labels[key] = label
    if without := sorted(set(images) - set(labels)):
        raise UserError(f"{path} has no label (.cls or .json) for {without[0].strip('/')}: is it a WebDataset shard?")
    for key, member in images.items():
        base = member.name.rpartition("/")[2]
        part.add(base, _name_of(names, labels[key]), (member.offset_data, member.size))
    return part


def _label_in(content: bytes, ending: str) -> int | None:
    try:
        value: Any = json.loads(content)
        if ending == "json":
            value = next((value[key] for key in ("label", "cls", "class_id") if key in value), None)
        return None if value is None else int(value)
    except (ValueError, TypeError):
        return None


def _parquet(root: Path) -> Layout | None:
    train, val = _split_files(root, ".parquet")
    if not train and not val:
        return None
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(f"data.root={root} needs pyarrow to be read: pip install pyarrow") from error

    def list_file(name: str, tick: Tick) -> Part:
        part = Part(name)
        try:
            with parquet.ParquetFile(root / name) as file:
                names = _names_in(file.schema_arrow.metadata)
                for group in range(file.num_row_groups):
                    # without the images' bytes
                    table = file.read_row_group(group, columns=["image.path", "label"])
                    paths = table["image"].combine_chunks().field("path").to_pylist()
                    for row, (path, label) in enumerate(zip(paths, table["label"].to_pylist(), strict=True)):
                        if label is None or label < 0:
                            raise UserError(f"{root / name} has images without a label: leave test files out")
                        part.add(_original(path or ""), _name_of(names, label), (group, row))
                tick(1)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"cannot read {root / name} ({error}): download it again") from error
        return part

    def list_images(tick: Tick) -> Splits:
        return [list_file(f, tick) for f in train], [list_file(f, tick) for f in val]

    total = len(train) + len(val)
    return Layout("Hugging Face's parquet files", "parquet", [*train, *val], list_images, total, "file")


def _names_in(metadata: dict[bytes, bytes] | None) -> list[str]:
    """The class names that ``datasets`` writes into a parquet file, in the order of the labels."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [f"{i:05d} {name}" for i, name in enumerate(features["label"]["names"])]
    except (KeyError, ValueError, TypeError):
        return []


def _original(path: str) -> str:
    """``n01440764_10026.JPEG`` from Hugging Face's ``n01440764_10026_n01440764.JPEG``."""
    return re.sub(r"_n\d{8}(\.\w+)$", r"\1", PurePosixPath(path).name)
