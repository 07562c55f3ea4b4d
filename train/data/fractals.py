"""The default data: iterated function systems, drawn by formula, as JPEG files in ImageFolder layout.

After FractalDB (Kataoka et al., ACCV 2020, arXiv 2101.08515). Each class is one random system of 2-7
contractive affine maps; each image jitters the system's coefficients, rotates it, colours it and adds noise.
All of it is integer bits and plain elementwise float64 arithmetic, so it is the same on every machine; JPEG
is the only library in between.
"""

import hashlib
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from train.config import FractalsConfig
from train.data.cache import made_once, user_cache
from train.data.decode import decode
from train.data.order import random_bits, uniform
from train.data.sources import Source
from train.errors import UserError

VERSION = 1  # of the formula: another number is another data set
LEAST_FILL = 0.15  # of the pixels, or the class is drawn again
JITTER = 0.25  # of a coefficient, at most
ROTATION = 0.6  # rad, at most
NOISE = 0.08  # standard deviation, of the range from black to white
BURN_IN, PARTICLES, POINTS_PER_PIXEL = 16, 64, 3
QUALITY = 95

# sha256 of the decoded pixels, training images first, for the shapes whose results are committed
FINGERPRINTS = {"64x(320+160)x32px-v1": "d339df24c0ebeee84b1b1ba9c1ab1139cf96ede32df4a69d97d6549671a733c3"}


def shape(config: FractalsConfig) -> str:
    return f"{config.classes}x({config.train_per_class}+{config.val_per_class})x{config.size}px-v{VERSION}"


def provide(config: FractalsConfig) -> Path:
    """The folder with this data set's images, which are made now if they are not there yet."""
    root = Path(config.root).expanduser().absolute() if config.root else user_cache() / f"fractals-{shape(config)}"
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
    """All images of ``source``, which are of one size, as uint8 N,H,W,C."""
    first = np.asarray(decode(source, 0))
    images = np.empty((len(source), *first.shape), dtype=np.uint8)
    for i in tqdm(range(len(source)), desc=f"decoding {source.index.split}", unit="img", delay=2, leave=False):
        image = np.asarray(decode(source, i))
        if image.shape != first.shape:
            raise UserError(f"{source.name(i)} is {image.shape[1]}x{image.shape[0]}, unlike the others: remove it")
        images[i] = image
    return images


def _make(root: Path, config: FractalsConfig) -> None:
    images = config.classes * (config.train_per_class + config.val_per_class)
    print(
        f"making {images:,} images of {config.size}x{config.size} pixels, once, in {root.parent}",
        file=sys.stderr,
    )
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_make_class, root, label, config) for label in range(config.classes)]
        with tqdm(total=images, unit="img", desc="fractals") as bar:
            for job in jobs:
                bar.update(job.result())


def _make_class(root: Path, label: int, config: FractalsConfig) -> int:
    system = draw_system(label, config.size)
    # numbers of their own for the validation images: another training count leaves them as they are
    for split, first, count in (("train", 0, config.train_per_class), ("val", 1 << 32, config.val_per_class)):
        folder = root / split / f"{label:04d}"
        folder.mkdir(parents=True)
        for start in range(0, count, 160):
            numbers = np.arange(first + start, first + min(start + 160, count))
            for number, pixels in zip(numbers, draw_images(system, label, numbers, config.size), strict=True):
                path = folder / f"{number - first:05d}.jpg"
                Image.fromarray(pixels).save(path, quality=QUALITY, subsampling=0)
    return config.train_per_class + config.val_per_class


@dataclass(frozen=True)
class System:
    """Maps ``(x, y) -> (a x + b y + e, c x + d y + f)``: ``maps`` M,6 of a to f, and their chances M."""

    maps: NDArray[np.float64]
    chances: NDArray[np.float64]


def draw_system(label: int, size: int) -> System:
    """The random system of class ``label``: the first of its draws whose picture fills enough pixels."""
    attempt = 0
    while True:
        count = 2 + int(uniform(VERSION, label, attempt, 0) * 6)
        maps = 2 * uniform(VERSION, label, attempt, 1, np.arange(count)[:, None], np.arange(6)) - 1
        a, b, c, d = maps[:, :4].T
        determinant, squares = a * d - b * c, (maps[:, :4] ** 2).sum(axis=1)
        largest = np.sqrt((squares + np.sqrt(np.maximum(squares**2 - 4 * determinant**2, 0))) / 2)
        # every map shrinks by 0.4 to 0.8: still contractive when jitter adds a quarter
        shrink = (0.4 + 0.4 * uniform(VERSION, label, attempt, 2, np.arange(count))) / largest
        maps[:, :4] *= shrink[:, None]
        weights = np.abs(determinant) * shrink**2 + 0.01
        system = System(maps, weights / weights.sum())
        key = random_bits(VERSION, label, attempt, 3)
        if _draw_masks(system.maps[None], system.chances, np.zeros(1), key[None], size).mean() >= LEAST_FILL:
            return system
        attempt += 1


def draw_images(system: System, label: int, numbers: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """The images ``numbers`` of class ``label``, uint8 N,size,size,3."""
    keys = random_bits(VERSION, label, 1 << 40, numbers)
    jitter = 1 + JITTER * (2 * uniform(keys[:, None, None], 0, np.arange(len(system.maps))[:, None], np.arange(6)) - 1)
    # half the angle's tangent, so that sine and cosine are plain arithmetic
    half = math.tan(ROTATION / 2) * (2 * uniform(keys, 1) - 1)
    masks = _draw_masks(system.maps * jitter, system.chances, half, keys, size)
    front, back = (uniform(keys[:, None], part, np.arange(3))[:, None, None, :] for part in (2, 3))
    pixels = np.where(masks[..., None], front, back)
    return np.floor(255 * np.clip(pixels + NOISE * _normal(keys, pixels.shape[1:]), 0, 1) + 0.5).astype(np.uint8)


def _draw_masks(
    maps: NDArray[np.float64],
    chances: NDArray[np.float64],
    half_tangents: NDArray[np.float64],
    keys: NDArray[np.uint64],
    size: int,
) -> NDArray[np.bool_]:
    """Which pixels the chaos game hits: ``maps`` N,M,6, one system for each image; bool N,size,size."""
    n, m, _ = maps.shape
    steps = max(POINTS_PER_PIXEL * size * size // PARTICLES, 16)
    image = np.arange(n)[:, None]
    thresholds = np.cumsum(chances)[:-1]
    tables = [np.ascontiguousarray(maps[:, :, i]).reshape(-1) for i in range(6)]
    x, y = np.zeros((n, PARTICLES)), np.zeros((n, PARTICLES))
    xs, ys = np.empty((steps, n, PARTICLES)), np.empty((steps, n, PARTICLES))
    for t in range(BURN_IN + steps):
        choice = np.searchsorted(thresholds, uniform(keys[:, None], 4, t, np.arange(PARTICLES)), side="right")
        a, b, c, d, e, f = (table[image * m + choice] for table in tables)
        x, y = a * x + b * y + e, c * x + d * y + f
        if t >= BURN_IN:
            xs[t - BURN_IN], ys[t - BURN_IN] = x, y
    cosine, sine = ((1 - half_tangents**2), 2 * half_tangents) / (1 + half_tangents**2)
    columns = _to_pixels(cosine[:, None] * xs - sine[:, None] * ys, size)
    rows = _to_pixels(sine[:, None] * xs + cosine[:, None] * ys, size)
    masks = np.zeros((n, size, size), dtype=bool)
    masks[image, rows, columns] = True
    return masks


def _to_pixels(points: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Coordinates steps,N,PARTICLES of each image stretched to fill all but one pixel at each edge."""
    low, high = points.min(axis=(0, 2), keepdims=True), points.max(axis=(0, 2), keepdims=True)
    inner = size - 2
    scaled = (points - low) / np.maximum(high - low, 1e-9) * inner
    return 1 + np.minimum(scaled.astype(np.int64), inner - 1)


def _normal(keys: NDArray[np.uint64], pixels: tuple[int, ...]) -> NDArray[np.float64]:
    """Nearly normal numbers N,*pixels: sums of eight uniform 16-bit numbers, of mean 0 and variance 1."""
    places = np.arange(math.prod(pixels), dtype=np.uint64)
    total = np.zeros((len(keys), len(places)), dtype=np.int64)
    for part in (5, 6):
        bits = random_bits(keys[:, None], part, places)
        for quarter in range(4):
            total += ((bits >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)).astype(np.int64)
    spread = math.sqrt(8 / 12) * 65536
    return ((total - 4 * 65535) / spread).reshape(len(keys), *pixels)
