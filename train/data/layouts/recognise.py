"""Tells which layout a folder has."""

from pathlib import Path

from train.data.layouts import archives, folders, shards
from train.data.layouts.layout import Layout
from train.errors import UserError

# in this order: where a folder holds several, the first one counts
LAYOUTS = (archives.official, folders.kaggle, shards.parquet, shards.webdataset, folders.image_folder)


def recognise(root: Path) -> Layout:
    """The layout of ``root``; raises UserError, with what was expected, when it has none."""
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder: give the one that holds the images or archives")
    for recognised_in in LAYOUTS:
        layout = recognised_in(root)
        if layout is not None:
            return layout
    found = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
    raise UserError(
        f"data.root={root} holds {found}: expected train/<class>/* and val/<class>/*, {archives.TRAIN_TAR} and "
        f"{archives.VAL_TAR} with {archives.DEVKIT}, {folders.KAGGLE} with {folders.KAGGLE_LABELS}, "
        "or train and val shards (*.tar, *.parquet)"
    )
