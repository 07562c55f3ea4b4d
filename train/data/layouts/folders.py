"""Images as files: a folder for each class (ImageFolder), and the tree of Kaggle's archive."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from train.data.layouts.layout import IMAGE_ENDINGS, VAL_SPLITS, Layout, Part, Splits, Tick, entries, label_of
from train.errors import UserError

KAGGLE, KAGGLE_LABELS = "ILSVRC/Data/CLS-LOC", "LOC_val_solution.csv"


def image_folder(root: Path) -> Layout | None:
    # a test split without labels, as competitions have it, is none to validate on
    val_split = next((s for s in VAL_SPLITS if (root / s).is_dir() and (s != "test" or _has_folder(root / s))), None)
    has_train = (root / "train").is_dir()
    if not has_train and val_split is None:
        return None
    if not has_train or val_split is None:
        found = ", ".join(sorted(p.name for p in root.iterdir())[:5])
        found += "; test has no class folders" if (root / "test").is_dir() else ""
        raise UserError(
            f"data.root={root} has no folder {'val' if has_train else 'train'} (it holds {found}): "
            f"expected train/<class>/* and val/<class>/*, which may be called {', '.join(VAL_SPLITS[1:])} too"
        )
    train, val = _class_folders(root, "train"), _class_folders(root, val_split)

    def list_images(tick: Tick) -> Splits:
        return [_class_folder(root, f, tick) for f in train], [_class_folder(root, f, tick) for f in val]

    inputs = ["train", val_split, *train, *val]
    return Layout("ImageFolder", "folder", inputs, list_images, len(train) + len(val), "class", val_split)


def _has_folder(folder: Path) -> bool:
    return any(entry.is_dir() for entry in entries(folder))


def _class_folders(root: Path, split: str) -> list[str]:
    found = sorted(entry.name for entry in entries(root / split) if entry.is_dir())
    if not found:
        raise UserError(f"{root / split} has no class folders: it should hold {split}/<class>/<image>.JPEG")
    return [f"{split}/{name}" for name in found]


def _class_folder(root: Path, folder: str, tick: Tick) -> Part:
    part, name = Part(folder), folder.rpartition("/")[2]
    for entry in entries(root / folder):
        if entry.name.lower().endswith(IMAGE_ENDINGS):
            part.add(entry.name, name)
    if not part.names:
        found = "they must lie in it, not in a folder below" if _has_folder(root / folder) else "an empty class"
        raise UserError(f"{root / folder} has no image files ({', '.join(IMAGE_ENDINGS)}): {found}")
    tick(1)
    return part


def kaggle(root: Path) -> Layout | None:
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
        for entry in entries(root / val):
            if entry.name.lower().endswith(IMAGE_ENDINGS):
                part.add(entry.name, label_of(classes, PurePosixPath(entry.name).stem, root / val, labels))
        tick(1)
        return [_class_folder(root, folder, tick) for folder in train], [part]

    inputs = [KAGGLE_LABELS, f"{KAGGLE}/train", val, *train]
    return Layout("Kaggle's tree", "folder", inputs, list_images, len(train) + 1, "folder")
