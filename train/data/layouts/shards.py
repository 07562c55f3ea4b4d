"""Shards: tar files as WebDataset has them, and the parquet files of Hugging Face."""

from __future__ import annotations

import json
import os
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from train.data.layouts.archives import members
from train.data.layouts.layout import IMAGE_ENDINGS, PACK, VAL_SPLITS, Layout, Part, Splits, Tick
from train.errors import UserError

CLASS_NAMES = "classes.txt"  # beside shards: a line for each label, if it is there


def webdataset(root: Path) -> Layout | None:
    if (root / PACK).exists():
        try:
            wanted = json.loads((root / PACK).read_text())["shards"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{root / PACK} is damaged ({error}): pack anew into another folder") from error
        if missing := [name for name in wanted if not (root / name).exists()]:
            raise UserError(
                f"{root} lacks {len(missing):,} of {len(wanted):,} shards, such as {missing[0]}: "
                "start scripts/pack.py again, it resumes"
            )
    train, val, val_split = _split_files(root, ".tar")
    if not train and not val:
        return None

    def list_images(tick: Tick) -> Splits:
        names = _class_names(root)
        return [_shard(root, f, names, tick) for f in train], [_shard(root, f, names, tick) for f in val]

    extra = [name for name in (CLASS_NAMES, PACK) if (root / name).exists()]
    total = sum((root / name).stat().st_size for name in train + val)
    return Layout("WebDataset shards", "archive", [*train, *val, *extra], list_images, total, "B", val_split)


def _split_files(root: Path, ending: str) -> tuple[list[str], list[str], str]:
    """Training files and validation files, relative to ``root``, and the word that they use for validation."""
    found = [p.relative_to(root).as_posix() for p in sorted([*root.glob(f"*{ending}"), *root.glob(f"*/*{ending}")])]
    named: dict[str, list[str]] = {word: [] for word in ("train", *VAL_SPLITS)}
    for file in found:
        folder, _, name = file.lower().rpartition("/")
        # the folder counts where the file's own name says nothing
        for word in _words_in(name, list(named)) or _words_in(folder, list(named)):
            named[word].append(file)
    val_split = next((split for split in VAL_SPLITS if named[split]), "val")
    train, val = named["train"], named[val_split]
    if bool(train) != bool(val):
        missing = "val" if train else "train"
        raise UserError(
            f"data.root={root} has {len(train or val)} files *{ending} but none whose name says {missing}: add them, "
            f"or move {(train or val)[0]} away if it is unpacked beside"
        )
    if both := sorted(set(train) & set(val)):
        raise UserError(f"{root / both[0]} says both train and {val_split}: rename it, or the folder that it is in")
    for split in (train, val):
        seen: dict[tuple[str, int], str] = {}
        for file in split:
            twin = seen.setdefault((file.rpartition("/")[2], (root / file).stat().st_size), file)
            if twin != file:
                raise UserError(f"{root} holds {twin} and {file}, which look like copies: move one of them away")
    return train, val, val_split


def _words_in(name: str, words: list[str]) -> list[str]:
    return [word for word in words if re.search(rf"(^|[^a-z]){word}", name)]


def _class_names(root: Path) -> list[str]:
    path = root / CLASS_NAMES
    try:
        names = path.read_text("utf-8").splitlines() if path.exists() else []
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: convert it (iconv -f latin1 -t utf-8)") from error
    # classes are in the order of their names everywhere
    return names if names == sorted(set(names)) else [f"{i:05d} {name}" for i, name in enumerate(names)]


def _name_of(names: list[str], label: int) -> str:
    # as many digits as sort like the numbers
    return names[label] if 0 <= label < len(names) else f"{label:05d}"


def _shard(root: Path, name: str, names: list[str], tick: Tick) -> Part:
    part, path = Part(name), root / name
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    dotted = ""  # an image whose name WebDataset would cut at its first dot
    with open(path, "rb") as file:
        for member in members(path, file, 0, tick):
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            key = f"{folder}/{stem}"
            if f".{ending.lower()}" in IMAGE_ENDINGS:
                if key in images:
                    raise UserError(f"{path} has two images of one name, {base} and {images[key].name}: rename one")
                images[key] = member
            elif ending.lower().endswith(IMAGE_ENDINGS):
                dotted = base
            elif ending in ("cls", "json") and key not in labels:
                content = os.pread(file.fileno(), member.size, member.offset_data)
                label = _label_in(content, ending)
                if label is None and ending == "cls":
                    raise UserError(f"{path}: {member.name} holds {content[:40]!r}, not a class number from 0 on")
                if label is not None:
                    labels[key] = label
    if dotted and not images:
        raise UserError(f"{path} has images such as {dotted}, whose name holds a dot: WebDataset needs NAME.jpg")
    if without := sorted(images.keys() - labels.keys()):
        raise UserError(
            f"{path} has no label (.cls or .json) for {without[0].strip('/')}: is it a WebDataset shard? If it is "
            "unpacked beside, move it away"
        )
    if without := sorted(labels.keys() - images.keys()):
        raise UserError(f"{path} has a label but no image ({', '.join(IMAGE_ENDINGS)}) for {without[0].strip('/')}")
    for key, member in images.items():
        base = member.name.rpartition("/")[2]
        part.add(base, _name_of(names, labels[key]), (member.offset_data, member.size))
    return part


def _label_in(content: bytes, ending: str) -> int | None:
    try:
        value: Any = json.loads(content)
        if ending == "json":
            value = next((value[key] for key in ("label", "cls", "class_id") if key in value), None)
        return None if value is None or int(value) < 0 else int(value)
    except (ValueError, TypeError, OverflowError):
        return None


def parquet(root: Path) -> Layout | None:
    train, val, val_split = _split_files(root, ".parquet")
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
                if lacking := {"image.path", "image.bytes", "label"} - set(_columns(file)):
                    raise UserError(f"{root / name} lacks {', '.join(sorted(lacking))}, which ImageNet's files have")
                names = _names_in(file.schema_arrow.metadata)
                for group in range(file.num_row_groups):
                    # without the images' bytes
                    table = file.read_row_group(group, columns=["image.path", "label"])
                    paths = table["image"].combine_chunks().field("path").to_pylist()
                    for row, (path, label) in enumerate(zip(paths, table["label"].to_pylist(), strict=True)):
                        if label is None or (isinstance(label, int) and label < 0):
                            raise UserError(f"{root / name} has images without a label: leave test files out")
                        if not isinstance(label, int):
                            raise UserError(f"{root / name} has the label {label!r}, which is not a class number")
                        part.add(_original(path or ""), _name_of(names, label), (group, row))
                tick(1)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"cannot read {root / name} ({error}): download it again") from error
        return part

    def list_images(tick: Tick) -> Splits:
        return [list_file(f, tick) for f in train], [list_file(f, tick) for f in val]

    total = len(train) + len(val)
    name = "Hugging Face's parquet files"
    return Layout(name, "parquet", [*train, *val], list_images, total, "file", val_split)


def _columns(file: Any) -> list[str]:
    return [file.schema.column(i).path for i in range(len(file.schema))]


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
