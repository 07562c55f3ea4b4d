"""How images are cropped and mirrored: in training a function of (seed, epoch, image index)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from train.data.randomness import CROP, FLIP, below, uniform

BILINEAR = Image.Resampling.BILINEAR
Box = tuple[int, int, int, int]  # left, upper, right, lower


@dataclass(frozen=True)
class Crop:
    """How images become ``size`` x ``size`` pixels: the values of ``configs/data/imagenet.yaml``."""

    size: int
    resize: int
    train_crop: str  # "minimal" or "scale_and_aspect"
    min_area: float
    eval_resize: str  # "square" or "shorter"


def flips(seed: int, epoch: int, indices: ArrayLike) -> NDArray[np.bool_]:
    """Whether each image is mirrored in this epoch."""
    return uniform(FLIP, seed, epoch, indices) < 0.5


def random_numbers(crop: Crop, seed: int, epoch: int, indices: NDArray[np.int64]) -> NDArray[Any]:
    """What places the training crop of each image: ``corners`` or ``tries``, with the images as first dimension."""
    if crop.train_crop == "minimal":
        return corners(crop.resize, crop.size, seed, epoch, indices)
    return tries(seed, epoch, indices)


def corners(resize: int, size: int, seed: int, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Left and upper edge, N,2, of a random square of ``size`` in each image resized to ``resize`` x ``resize``.

    With a flip it is the paper's minimal augmentation (arXiv 1708.03888, section 6).
    """
    return below(resize - size + 1, CROP, seed, epoch, indices[:, None], np.arange(2))


def tries(seed: int, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) from which ``scale_and_aspect_box`` draws each image's rectangle: N,10,4."""
    return uniform(CROP, seed, epoch, indices[:, None, None], np.arange(10)[:, None], np.arange(4))


def scale_and_aspect_box(width: int, height: int, tries: NDArray[np.float64], min_area: float) -> Box:
    """A random rectangle of area ``min_area`` to 1 and aspect 3/4 to 4/3 (Szegedy et al. 2015).

    As in torchvision's RandomResizedCrop: ten ``tries``, then the largest central rectangle.
    """
    for area, aspect, x, y in tries.tolist():
        target = width * height * (min_area + (1 - min_area) * area)
        ratio = math.exp(math.log(3 / 4) + aspect * (math.log(4 / 3) - math.log(3 / 4)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, upper, left + w, upper + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def central_crop(image: Image.Image, resize: int, size: int, *, square: bool) -> Image.Image:
    """The central ``size`` x ``size`` of the image resized: both sides to ``resize``, or the shorter."""
    width = height = resize
    if not square:
        # the longer side is truncated, as torchvision's Resize does
        shorter = min(image.width, image.height)
        width, height = resize * image.width // shorter, resize * image.height // shorter
    left, upper = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), BILINEAR).crop((left, upper, left + size, upper + size))
