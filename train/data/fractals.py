"""``data=fractals``, the default: images that ``train/data/ifs.py`` draws, as JPEG files in ImageFolder layout.

They are made once and kept in the user's cache. JPEG is the only library between the formula and the pixels. There are
three splits: the network trains on ``train``, settings are chosen on ``val``, and ``report`` is scored once at the end.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm import tqdm

from train.data import ifs
from train.data.cache import made_once, user_cache
from train.data.dataset import Data, DataConfig
from train.errors import UserError
from train.keys import key

if TYPE_CHECKING:
    from train.data.loader import Loader, Process
    from train.data.memory import Split

QUALITY = 95  # of the JPEG files
SPLITS = ("train", "val", "report")  # folders

# sha256 of the decoded pixels, training images first, of the shapes whose results are committed
FINGERPRINTS = {"64x(320+160+160)x16px-v2": "08de78fe4a515b5e56a96d5e647a8a45349268ea03ffa3f411a43953bbedb6f7"}


@dataclass(kw_only=True)
class Config(DataConfig):
    classes: int = key(least=1)
    train_per_class: int = key(least=1)
    val_per_class: int = key(least=1)
    report_per_class: int = key(least=1, free_on_resume=True)  # the fingerprint is of all images
    shift: int = key(least=0)  # pixels

    def expected_train_images(self) -> int:
        return self.classes * self.train_per_class

    def check(self) -> None:
        super().check()
        if not 8 <= self.size <= 512:
            raise UserError(f"data.size={self.size} must be from 8 to 512 pixels")
        if self.shift >= self.size:
            raise UserError(f"data.shift={self.shift} must be less than data.size={self.size}")

    @property
    def shape(self) -> str:
        """What identifies the images: counts, size and the version of the formula."""
        counts = f"{self.train_per_class}+{self.val_per_class}+{self.report_per_class}"
        return f"{self.classes}x({counts})x{self.size}px-v{ifs.VERSION}"

    @property
    def per_class(self) -> int:
        """Images of a class in all splits."""
        return self.train_per_class + self.val_per_class + self.report_per_class

    @property
    def remark(self) -> str:
        return f"{self.classes} classes of fractals made by formula: NOT ImageNet"


def open_data(config: Config) -> Data:
    from train.data.memory import MemoryLoader, fingerprint, in_order

    root = provide(config)
    train, selection = (read(root / split, config.size) for split in ("train", "val"))
    # images that 0.1 made have no third split
    report = read(root / "report", config.size) if (root / "report").is_dir() else None
    if report is None and config.split == "report":
        raise UserError(f"data.root={root} has no images to report on: leave out data.split=report")
    digest = fingerprint(train, selection, *([report] if report else []))
    remark, expected = config.remark, FINGERPRINTS.get(config.shape)
    if expected is not None and digest != expected:
        remark += f"; WARNING: not the pixels of the published results ({digest[:8]}, not {expected[:8]})"

    def make_loader(process: Process, seed: int) -> Loader:
        return MemoryLoader(train, selection, config, config.shift, process, seed)

    classes = [folder.name for folder in class_folders(root / "train")]
    report_batches = (lambda process: in_order(report, config, process)) if report else None
    return Data(classes, len(train[1]), len(selection[1]), digest, remark, make_loader, report_batches)


def provide(config: Config) -> Path:
    """The folder with this data set's images, which are made now if they are not there yet."""
    root = (
        Path(os.path.expanduser(config.root)).absolute() if config.root else user_cache() / f"fractals-{config.shape}"
    )
    if root.exists() and not root.is_dir():
        raise UserError(f"data.root={root} is not a folder: give one, or none for the cache")
    return made_once(root, lambda unfinished: _make(unfinished, config))


def class_folders(split: Path) -> list[Path]:
    if not split.is_dir():
        raise UserError(f"data.root={split.parent} has no folder {split.name}: give another one, or none for the cache")
    return sorted(entry for entry in split.iterdir() if entry.is_dir())


def read(split: Path, size: int) -> Split:
    """The images below the folder ``split``, of ``size`` x ``size`` pixels, as uint8 N,H,W,C, and their labels."""
    folders, trained = class_folders(split), class_folders(split.parent / "train")
    if [folder.name for folder in folders] != [folder.name for folder in trained]:
        raise UserError(f"{split} does not have the {len(trained)} classes of train/: give another data.root")
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())]
    if not files:
        raise UserError(f"{split} holds no images: give another data.root")
    images = np.empty((len(files), size, size, 3), dtype=np.uint8)
    for i, (path, _) in enumerate(tqdm(files, desc=f"reading {split.name}", unit="img", delay=2, leave=False)):
        try:
            pixels = np.asarray(Image.open(path))
        except OSError as error:
            is_made = user_cache() in split.parents
            fix = f"remove the folder {split.parent}, and it is made again" if is_made else "give another data.root"
            raise UserError(f"cannot read {path}: {fix}") from error
        if pixels.shape != images.shape[1:]:
            height, width = pixels.shape[:2]
            raise UserError(f"{path} is {width}x{height}, not data.size={size}: give that size, or another data.root")
        images[i] = pixels
    return images, np.array([label for _, label in files], dtype=np.int64)


def _make(root: Path, config: Config) -> None:
    images = config.classes * config.per_class
    size = f"{config.size}x{config.size}"
    print(f"making {images:,} images of {size} pixels, once, in {root.parent}", file=sys.stderr)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_make_class, root, label, config) for label in range(config.classes)]
        try:
            with tqdm(total=images, unit="img", desc="fractals") as bar:
                for job in jobs:
                    job.result()
                    bar.update(config.per_class)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that draws fractals was ended, perhaps for want of memory: start the same command again"
            ) from error
        except BaseException:
            # a signal, for example, should not wait until all of them are drawn
            pool.shutdown(cancel_futures=True)
            raise


def _make_class(root: Path, label: int, config: Config) -> None:
    system = ifs.draw_system(label, config.size)
    counts = (config.train_per_class, config.val_per_class, config.report_per_class)
    for i, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        folder = root / split / f"{label:04d}"
        folder.mkdir(parents=True)
        # Each split's images have numbers of their own, so another count leaves the other splits as they are.
        first = i << 32
        for start in range(0, count, 160):
            numbers = np.arange(first + start, first + min(start + 160, count))
            for number, pixels in zip(numbers, ifs.draw_images(system, label, numbers, config.size), strict=True):
                path = folder / f"{number - first:05d}.jpg"
                Image.fromarray(pixels).save(path, quality=QUALITY, subsampling=0)
