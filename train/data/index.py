"""Where every image of a data set is: listed once, kept as arrays on disk, mapped into memory by every process.

An index holds 20 bytes and a name for each image: 52 MB for ImageNet, half of it names. A process loads the pages that
it reads, and all processes of a machine share them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from train.data.cache import NoLocks, made_once, user_cache
from train.data.layouts.layout import PACK, Layout, Part
from train.data.layouts.recognise import recognise
from train.errors import UserError

VERSION = 3  # of the files below: another number makes other files
SPLITS = ("train", "val")
NAMES = 32  # digits of a fingerprint that identify names and labels
PLACE = np.dtype([("offset", "<i8"), ("size", "<i4"), ("label", "<i4"), ("container", "<i4")])
FOLDER = ".lars-imagenet-index"
KEPT = 30 * 24 * 3600  # seconds since its last use for which an index of earlier files is kept


@dataclass(frozen=True)
class Index:
    """One split of a data set, its images sorted by class and then by file name without extension.

    ``places`` has N rows of offset, size, label and container; the last two are indices into ``classes`` and
    ``containers``. Only the other fields are pickled: the arrays are mapped where they are used.
    """

    folder: Path
    root: Path
    split: str
    layout: str  # its name, for messages
    access: str  # a key of ``sources.READERS``
    val_split: str  # what the layout calls the validation images
    classes: list[str]
    is_named: bool  # images without names keep their stored order within a class
    containers: list[str]
    # Digits that identify these images without reading them: ``NAMES`` of names and labels, in order. A pack's end in a
    # dash and 16 more, of how it was made.
    fingerprint: str

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def places(self) -> NDArray[np.void]:
        return np.load(self.folder / f"{self.split}.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def names(self) -> NDArray[np.bytes_]:
        return np.load(self.folder / f"{self.split}-names.npy", mmap_mode="r", allow_pickle=False)


def open_index(root: Path, classes_from: Path | None = None) -> tuple[Index, Index]:
    """The training and validation index of ``root``, made now if there is none or its files have changed.

    With ``classes_from`` it holds those classes alone that the file names, one a line; what follows the name on a line
    is ignored. It is kept in the root, or in the user's cache where the root is read-only. Raises UserError for a root
    of no known layout, a damaged one, one whose splits have different classes, or one that lacks a named class.
    """
    layout = recognise(root)
    key = _key(root, layout)
    chosen = None if classes_from is None else _read_classes(classes_from)
    if chosen is not None:
        key += f"-{hashlib.sha256(os.fsencode('/'.join(chosen))).hexdigest()[:16]}"
    at_home = user_cache() / "index" / hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    places = [root / FOLDER, at_home]
    # another user's may be unreadable
    folder = next((place / key for place in places if os.access(place / key / "index.json", os.R_OK)), None)
    folder = folder or _made_in(places, key, lambda unfinished: _build(unfinished, root, layout, chosen))
    with suppress(OSError):
        # the time of its last use
        os.utime(folder)
    about = json.loads((folder / "index.json").read_text())
    of_both = (about["layout"], about["access"], about["val_split"], about["classes"], about["named"])
    train, val = (
        Index(folder, root, split, *of_both, about["containers"][split], about["fingerprints"][split])
        for split in SPLITS
    )
    return train, val


def _read_classes(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise UserError(f"data.classes_from={path} cannot be read ({why}): give a file with a class a line") from error
    if not any(lines):
        raise UserError(f"data.classes_from={path} is empty: give a file with a class a line")
    return [line for line in lines if line]


def _made_in(places: list[Path], key: str, make: Callable[[Path], None]) -> Path:
    """Make ``key`` in the first of ``places`` that can be written and locked, and remove what is long unused there."""
    for place in places:
        try:
            made_once(place / key, make)
            break
        except (OSError, NoLocks):
            if place == places[-1]:
                raise
    for old in place.iterdir():
        # not at once: a run that has opened it maps its arrays when it first needs them
        with suppress(OSError):
            if old.is_dir() and old.name != key and time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old)
    return place / key


def _key(root: Path, layout: Layout) -> str:
    digest = hashlib.sha256(f"{VERSION} {layout.name}".encode())
    for name in layout.inputs:
        status = os.stat(root / name)
        size = 0 if os.path.isdir(root / name) else status.st_size
        # tar and rsync set a folder's mtime back, and nothing sets its ctime
        line = f"{name}\0{size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _build(folder: Path, root: Path, layout: Layout, chosen: list[str] | None) -> None:
    scale = layout.unit == "B"
    bar = tqdm(total=layout.total, unit=layout.unit, unit_scale=scale, desc=f"index of {root}", delay=1, leave=False)
    with bar:
        splits = layout.list_images(bar.update)
    classes = _classes(root, *splits, layout.val_split, chosen)
    about: dict[str, Any] = {
        "layout": layout.name, "access": layout.access, "val_split": layout.val_split, "classes": classes,
        "named": True, "containers": {}, "fingerprints": {},
    }  # fmt: skip
    images = 0
    for split, parts in zip(SPLITS, splits, strict=True):
        places, names = _sorted(parts, classes)
        np.save(folder / f"{split}.npy", places)
        np.save(folder / f"{split}-names.npy", names)
        about["containers"][split] = [part.container for part in parts]
        about["named"] = about["named"] and bool((names != b"").all())
        about["fingerprints"][split] = _fingerprint(root, places, names)
        images += len(places)
    (folder / "index.json").write_text(json.dumps(about))
    print(f"index of {images:,} images made, from {layout.name} in {root}", file=sys.stderr)


def _classes(
    root: Path, train: Sequence[Part], val: Sequence[Part], val_split: str, chosen: list[str] | None
) -> list[str]:
    """The classes in order: all, which both splits must have, or the ``chosen`` lines' alone."""
    in_train, in_val = ({name for part in parts for name in part.classes} for parts in (train, val))
    if chosen is not None:
        known = {name: name for name in in_train | in_val}
        # shards number their classes, and may name them besides
        known |= {part: name for name in known if re.match(r"\d{5} ", name) for part in (name[:5], name[6:])}
        # a name may be followed by a description, and may hold spaces itself
        said = [line if line in known else line.split()[0] for line in chosen]
        if unknown := sorted(set(said) - known.keys()):
            raise UserError(
                f"data.classes_from names {_some(unknown)}, and data.root={root} has no such class: give one class "
                "name per line"
            )
        wanted = {known[name] for name in said}
        in_train, in_val = in_train & wanted, in_val & wanted
    if in_train != in_val:
        alone = {"train": sorted(in_train - in_val), val_split: sorted(in_val - in_train)}
        which = " and ".join(f"only {split} has {_some(names)}" for split, names in alone.items() if names)
        raise UserError(
            f"data.root={root}: train has {len(in_train)} classes and {val_split} {len(in_val)}, {which}: complete "
            "them, or give data.classes_from=FILE with the names that both have"
        )
    if not in_train:
        raise UserError(f"data.root={root} holds no images")
    return sorted(in_train)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _sorted(parts: Sequence[Part], classes: list[str]) -> tuple[NDArray[np.void], NDArray[np.bytes_]]:
    number = {name: label for label, name in enumerate(classes)}
    places = np.empty(sum(len(part.names) for part in parts), dtype=PLACE)
    at = 0
    for container, part in enumerate(parts):
        rows = places[at : at + len(part.names)]
        if len(part.names):
            rows["offset"], rows["size"] = np.array(part.places).T
        rows["label"] = [number.get(name, -1) for name in part.classes]
        rows["container"] = container
        at += len(part.names)
    names = np.array([os.fsencode(name) for part in parts for name in part.names], dtype=np.bytes_)
    stems = np.array([stem(name) for name in names.tolist()], dtype=np.bytes_)
    order = np.lexsort((names, stems, places["label"]))
    # without the images of classes that were not chosen
    order = order[np.searchsorted(places["label"][order], 0) :]
    return places[order], names[order]


def stem(name: bytes) -> bytes:
    """A file's name without its extension."""
    return os.path.splitext(name)[0]


def _fingerprint(root: Path, places: NDArray[np.void], names: NDArray[np.bytes_]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(places["label"]).tobytes())
    for name in names.tolist():
        digest.update(stem(name) + b"\n")
    if not names.all():
        digest.update(np.ascontiguousarray(places["size"]).tobytes())
    fingerprint = digest.hexdigest()[:NAMES]
    if (pack := root / PACK).exists():  # the same names as its originals, but other pixels
        fingerprint += f"-{hashlib.sha256(pack.read_bytes()).hexdigest()[:16]}"
    return fingerprint
