"""Tells which layout a folder has."""

import re
from pathlib import Path

from train.data.layouts import archives, folders, shards
from train.data.layouts.layout import Layout
from train.errors import UserError

# in this order: where a folder holds several, the first one counts
LAYOUTS = (archives.official, folders.kaggle, shards.parquet, shards.webdataset, folders.image_folder)
COMPRESSED = (".tgz", ".tar.gz", ".zip")  # as Imagenette and Tiny ImageNet are downloaded


def recognise(root: Path) -> Layout:
    """The layout of ``root``; raises UserError, with what was expected, when it has none."""
    if root.name.endswith(COMPRESSED):
        raise UserError(f"data.root={root} is compressed, and no single image can be read from it: {_unpack(root)}")
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder: give the one that holds the images or archives")
    for recognised_in in LAYOUTS:
        layout = recognised_in(root)
        if layout is not None:
            return layout
    inside = sorted(root.iterdir())
    if below := [path for path in inside if (path / "train").is_dir()]:
        raise UserError(f"data.root={root} holds the folder {below[0].name}: give data.root={below[0]}")
    if compressed := [path for path in inside if path.name.endswith(COMPRESSED)]:
        raise UserError(f"data.root={root} holds {compressed[0].name}, which is compressed: {_unpack(compressed[0])}")
    found = ", ".join(path.name for path in inside[:5]) or "nothing"
    raise UserError(
        f"data.root={root} holds {found}: expected train/<class>/* and val/<class>/*, {archives.TRAIN_TAR} and "
        f"{archives.VAL_TAR} with {archives.DEVKIT}, {folders.KAGGLE} with {folders.KAGGLE_LABELS}, "
        "or train and val shards (*.tar, *.parquet)"
    )


def _unpack(archive: Path) -> str:
    if cifar := re.match(r"cifar-(10+)-binary", archive.name):
        return f"give data=cifar{cifar[1]} and the folder that holds it"
    command = "unzip" if archive.suffix == ".zip" else "tar xzf"
    return f"unpack it (cd {archive.parent} && {command} {archive.name}), and give the folder with train and val in it"
