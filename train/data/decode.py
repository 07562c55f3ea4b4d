"""From a file's bytes to an image of the size that the network takes: the one place that knows of image formats."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from train.config import ImageNetConfig
from train.data import augment
from train.data.sources import Source
from train.errors import UserError

Pixels = NDArray[np.uint8]  # H,W,3

# what simplejpeg turns into RGB bit for bit as Pillow does; CMYK is Pillow's own
PLAIN = ("Gray", "RGB", "YCbCr")


def draw(config: ImageNetConfig, seed: int, epoch: int, indices: NDArray[np.int64]) -> NDArray[Any]:
    """For each image the numbers that ``training_image`` cuts it out by."""
    if config.train_crop == "minimal":
        return augment.corners(config.resize, config.size, seed, epoch, indices)
    return augment.tries(seed, epoch, indices)


def training_image(source: Source, index: int, config: ImageNetConfig, drawn: NDArray[Any]) -> tuple[Pixels, bool]:
    """The cut of the image that was ``drawn``, size,size,3, and whether the file is plain JPEG.

    simplejpeg (libjpeg-turbo) decodes and torch resizes, which differs from Pillow by 1 of 255 at most. A plain JPEG
    whose cut is at least 2, 4 or 8 times the size wanted is decoded at that fraction.
    """
    content = source.read(index)
    pixels, (width, height) = None, _jpeg_size(content)
    if not width:
        pixels = np.array(_by_pillow(content, source, index))
        height, width = pixels.shape[:2]
    minimal = config.train_crop == "minimal"
    box = (0, 0, width, height) if minimal else augment.scale_and_aspect_box(width, height, drawn, config.min_area)
    side = config.resize if minimal else config.size
    plain = pixels is None
    if pixels is None:
        shorter = min(box[2] - box[0], box[3] - box[1])
        pixels = _jpeg(content, width, height, next((d for d in (8, 4, 2) if shorter >= d * side), 1))
    if pixels is None:
        plain, pixels = False, np.array(_by_pillow(content, source, index))
    cut = resized(pixels, _scaled(box, pixels.shape[1] / width, pixels.shape[0] / height), side)
    if minimal:
        left, upper = drawn.tolist()
        cut = cut[upper : upper + config.size, left : left + config.size]
    return cut, plain


def evaluation_image(source: Source, index: int, config: ImageNetConfig) -> Pixels:
    """The central crop of the image, by Pillow, pixel for pixel torchvision's reference."""
    image = decode(source, index)
    square = config.eval_resize == "square"
    return np.asarray(augment.central_crop(image, config.resize, config.size, square=square))


def decode(source: Source, index: int) -> Image.Image:
    """The image as RGB, of its own size, by Pillow; raises UserError naming the file when it cannot be decoded.

    As torchvision's ImageFolder does: CMYK and grey are converted, EXIF rotation is ignored.
    """
    return _by_pillow(source.read(index), source, index)


def _by_pillow(content: bytes, source: Source, index: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # broken EXIF blocks are common in ImageNet and say nothing about the pixels
            warnings.simplefilter("ignore")
            return Image.open(BytesIO(content)).convert("RGB")
    except Exception as error:
        # damaged files make Pillow raise whatever its decoders trip over
        why = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            # whose own text is the address of a buffer
            why = "no image, or none of a known format"
        raise UserError(f"cannot decode {source.name(index)}: {why}: mend or remove the file") from error


def resized(pixels: Pixels, box: augment.Box, side: int) -> Pixels:
    """``box`` of ``pixels`` as a square of ``side``, bilinear with antialiasing."""
    left, upper, right, lower = box
    cut = np.ascontiguousarray(pixels[upper:lower, left:right])
    if cut.shape[:2] == (side, side):
        return cut
    # channels last, for which torch has a kernel on bytes
    image = torch.from_numpy(cut)[None].permute(0, 3, 1, 2)
    return F.interpolate(image, (side, side), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height of a plain JPEG from its header; 0, 0 for what only Pillow can read."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return 0, 0
    # beyond it Pillow warns of a decompression bomb, and at twice that refuses
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    return (width, height) if colours in PLAIN and width * height <= limit else (0, 0)


def _jpeg(content: bytes, width: int, height: int, divisor: int) -> Pixels | None:
    """The pixels of a plain JPEG, its sides divided by 1, 2, 4 or 8; None for what only Pillow can tell."""
    try:
        return simplejpeg.decode_jpeg(content, min_width=-(-width // divisor), min_height=-(-height // divisor))
    except ValueError:
        return None


def _scaled(box: augment.Box, across: float, down: float) -> augment.Box:
    if across == down == 1:
        return box
    left, upper = round(box[0] * across), round(box[1] * down)
    return left, upper, max(left + 1, round(box[2] * across)), max(upper + 1, round(box[3] * down))
