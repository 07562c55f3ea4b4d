"""``data=fractals``, the default: images that ``train/data/ifs.py`` draws, as JPEG files in ImageFolder layout.

They are made once and kept in the user's cache. JPEG is the only library between the formula and the pixels.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from train.data import ifs
from train.data.cache import made_once, user_cache
from train.data.dataset import Data, DataConfig
from train.errors import UserError
from train.keys import key

if TYPE_CHECKING:
    from train.data.loader import Loader, Place
    from train.data.sources import Source

QUALITY = 95  # of the JPEG files

# sha256 of the decoded pixels, training images first, of the shapes whose results are committed
FINGERPRINTS = {"64x(320+160)x32px-v1": "d339df24c0ebeee84b1b1ba9c1ab1139cf96ede32df4a69d97d6549671a733c3"}


@dataclass(kw_only=True)
class Config(DataConfig):
    classes: int = key(least=1)
    train_per_class: int = key(least=1)
    val_per_class: int = key(least=1)
    shift: int = key(least=0)

    def expected_train_images(self) -> int:
        return self.classes * self.train_per_class

    def check(self) -> None:
        super().check()
        if not 8 <= self.size <= 512:
            raise UserError(f"data.size={self.size} must be from 8 to 512 pixels")

    @property
    def shape(self) -> str:
        """What identifies the images: counts, size and the version of the formula."""
        return f"{self.classes}x({self.train_per_class}+{self.val_per_class})x{self.size}px-v{ifs.VERSION}"

    @property
    def remark(self) -> str:
        return f"{self.classes} classes of fractals made by formula: NOT ImageNet"


def open_data(config: Config) -> Data:
    from train.data.memory import MemoryLoader
    from train.data.sources import open_sources

    train, val = open_sources(provide(config))
    splits = [(decoded(source), source.labels(slice(None))) for source in (train, val)]
    digest = fingerprint(*(pixels for pixels, _ in splits))
    remark, expected = config.remark, FINGERPRINTS.get(config.shape)
    if expected is not None and digest != expected:
        remark += f"; WARNING: not the pixels of the published results ({digest[:8]}, not {expected[:8]})"

    def make_loader(place: Place, seed: int) -> Loader:
        return MemoryLoader(splits[0], splits[1], config, config.shift, place, seed)

    return Data(train.classes, len(train), len(val), digest, remark, make_loader)


def provide(config: Config) -> Path:
    """The folder with this data set's images, which are made now if they are not there yet."""
    root = Path(config.root).expanduser().absolute() if config.root else user_cache() / f"fractals-{config.shape}"
    if root.exists() and not root.is_dir():
        raise UserError(f"data.root={root} is not a folder: give one, or none for the cache")
    return made_once(root, lambda unfinished: _make(unfinished, config))


def fingerprint(*splits: NDArray[np.uint8]) -> str:
    """sha256 of the pixels of all ``splits``."""
    digest = hashlib.sha256()
    for pixels in splits:
        digest.update(pixels.tobytes())
    return digest.hexdigest()


def decoded(source: Source) -> NDArray[np.uint8]:
    """All images of ``source``, which must be of one size, as uint8 N,H,W,C."""
    from train.data.decode import decode

    first = np.asarray(decode(source, 0))
    images = np.empty((len(source), *first.shape), dtype=np.uint8)
    for i in tqdm(range(len(source)), desc=f"decoding {source.index.split}", unit="img", delay=2, leave=False):
        image = np.asarray(decode(source, i))
        if image.shape != first.shape:
            raise UserError(f"{source.name(i)} is {image.shape[1]}x{image.shape[0]}, unlike the others: remove it")
        images[i] = image
    return images


def _make(root: Path, config: Config) -> None:
    images = config.classes * (config.train_per_class + config.val_per_class)
    size = f"{config.size}x{config.size}"
    print(f"making {images:,} images of {size} pixels, once, in {root.parent}", file=sys.stderr)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_make_class, root, label, config) for label in range(config.classes)]
        with tqdm(total=images, unit="img", desc="fractals") as bar:
            for job in jobs:
                bar.update(job.result())


def _make_class(root: Path, label: int, config: Config) -> int:
    system = ifs.draw_system(label, config.size)
    # Validation images have numbers of their own, so another training count leaves them as they are.
    for split, first, count in (("train", 0, config.train_per_class), ("val", 1 << 32, config.val_per_class)):
        folder = root / split / f"{label:04d}"
        folder.mkdir(parents=True)
        for start in range(0, count, 160):
            numbers = np.arange(first + start, first + min(start + 160, count))
            for number, pixels in zip(numbers, ifs.draw_images(system, label, numbers, config.size), strict=True):
                path = folder / f"{number - first:05d}.jpg"
                Image.fromarray(pixels).save(path, quality=QUALITY, subsampling=0)
    return config.train_per_class + config.val_per_class
