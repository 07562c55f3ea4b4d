"""Iterated function systems drawn by formula: the images of ``data=fractals``.

After FractalDB (Kataoka et al., ACCV 2020, arXiv 2101.08515). Each class is one random system of 2-7 contractive affine
maps. Each image jitters the system's coefficients, rotates it, colours it and adds noise. The figure is brighter than
its ground: with random contrast, as in version 1, a small network stayed at chance for several epochs, and a short run
said little. Everything is computed from integer bits and plain elementwise float64 arithmetic, so it is the same on
every machine.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.data.randomness import random_bits, uniform

VERSION = 2  # of the formula: another number is another data set
LEAST_FILL = 0.15  # of the pixels, or the class is drawn again
JITTER = 0.25  # of a coefficient, at most
ROTATION = 1.2  # rad, at most
NOISE = 0.35  # standard deviation, of the range from black to white
BURN_IN, PARTICLES, POINTS_PER_PIXEL = 16, 64, 3


@dataclass(frozen=True)
class System:
    """Maps ``(x, y) -> (a x + b y + e, c x + d y + f)``: ``maps`` M,6 of a to f, and their chances M."""

    maps: NDArray[np.float64]
    chances: NDArray[np.float64]


def draw_system(label: int, size: int) -> System:
    """The random system of class ``label``: the first one drawn whose picture fills enough pixels."""
    attempt = 0
    while True:
        count = 2 + int(uniform(VERSION, label, attempt, 0) * 6)
        maps = 2 * uniform(VERSION, label, attempt, 1, np.arange(count)[:, None], np.arange(6)) - 1
        a, b, c, d = maps[:, :4].T
        determinant, squares = a * d - b * c, (maps[:, :4] ** 2).sum(axis=1)
        largest = np.sqrt((squares + np.sqrt(np.maximum(squares**2 - 4 * determinant**2, 0))) / 2)
        # Every map shrinks by 0.4 to 0.8, so it stays contractive when jitter adds a quarter.
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
    # the tangent of half the angle, from which sine and cosine follow without library functions
    half = math.tan(ROTATION / 2) * (2 * uniform(keys, 1) - 1)
    masks = _draw_masks(system.maps * jitter, system.chances, half, keys, size)
    front, back = (0.5 * uniform(keys[:, None], part, np.arange(3))[:, None, None, :] for part in (2, 3))
    pixels = np.where(masks[..., None], 0.5 + front, back)
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
    """Coordinates steps,N,PARTICLES as pixels: each image is stretched to all but one pixel at each edge."""
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
