"""From a file's bytes to an image of the network's input size: the only file that knows image formats."""

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

from train.data import augment
from train.data.sources import Source
from train.errors import UserError

Pixels = NDArray[np.uint8]  # H,W,3

# colour spaces that simplejpeg converts to RGB bit for bit as Pillow does; it does not convert CMYK
PLAIN = ("Gray", "RGB", "YCbCr")


def training_image(source: Source, index: int, crop: augment.Crop, numbers: NDArray[Any]) -> tuple[Pixels, bool]:
    """The training crop that ``numbers`` place, size,size,3, and whether the file is plain JPEG.

    ``numbers`` are the image's own from ``augment.random_numbers``. simplejpeg (libjpeg-turbo) decodes and torch
    resizes, which differs from Pillow by at most 1 of 255. A plain JPEG whose crop is at least 2, 4 or 8 times as large
    as needed is decoded at that fraction.
    """
    content = source.read(index)
    pixels: Pixels | None = None
    width, height = _plain_jpeg_size(content)
    is_plain = width > 0
    if not is_plain:
        pixels = np.array(_by_pillow(content, source, index))
        height, width = pixels.shape[:2]
    minimal = crop.train_crop == "minimal"
    box = (0, 0, width, height) if minimal else augment.scale_and_aspect_box(width, height, numbers, crop.min_area)
    side = crop.resize if minimal else crop.size
    if is_plain:
        shorter = min(box[2] - box[0], box[3] - box[1])
        divisor = next((d for d in (8, 4, 2) if shorter >= d * side), 1)
        pixels = _by_simplejpeg(content, width, height, divisor)
    if pixels is None:
        # the header is a plain JPEG's, but the content could not be decoded as one
        is_plain = False
        pixels = np.array(_by_pillow(content, source, index))
    square = resized(pixels, _scaled(box, pixels.shape[1] / width, pixels.shape[0] / height), side)
    if minimal:
        left, upper = numbers.tolist()
        square = square[upper : upper + crop.size, left : left + crop.size]
    return square, is_plain


def evaluation_image(source: Source, index: int, crop: augment.Crop) -> Pixels:
    """The central crop of the image, by Pillow, pixel for pixel torchvision's reference."""
    image = decode(source, index)
    return np.asarray(augment.central_crop(image, crop.resize, crop.size, square=crop.eval_resize == "square"))


def decode(source: Source, index: int) -> Image.Image:
    """The image as RGB in its own size, by Pillow; raises UserError naming the file when it cannot be decoded.

    As in torchvision's ImageFolder, CMYK and grey are converted and EXIF rotation is ignored.
    """
    return _by_pillow(source.read(index), source, index)


def _by_pillow(content: bytes, source: Source, index: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # broken EXIF blocks are common in ImageNet and do not affect the pixels
            warnings.simplefilter("ignore")
            image = Image.open(BytesIO(content))
            if image.mode.startswith(("I", "F")):
                # Pillow would clip it, mostly to white
                raise ValueError(f"more than 8 bits a pixel (Pillow's mode {image.mode}): convert it to 8")
            return image.convert("RGB")
    except Exception as error:
        # On damaged files Pillow raises whatever its decoders raise.
        why = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            # its own text is the address of a buffer
            why = "not an image of a known format"
        raise UserError(f"cannot decode {source.name(index)}: {why}: repair or remove the file") from error


def resized(pixels: Pixels, box: augment.Box, side: int) -> Pixels:
    """``box`` of ``pixels`` as a square of ``side``, bilinear with antialiasing."""
    left, upper, right, lower = box
    cut = np.ascontiguousarray(pixels[upper:lower, left:right])
    if cut.shape[:2] == (side, side):
        return cut
    # channels last, for which torch has a kernel on bytes
    image = torch.from_numpy(cut)[None].permute(0, 3, 1, 2)
    return F.interpolate(image, (side, side), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def _plain_jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height of a plain JPEG, from its header; 0, 0 for a file that only Pillow can read."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return 0, 0
    # beyond it Pillow warns of a decompression bomb, and at twice that refuses
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    return (width, height) if colours in PLAIN and width * height <= limit else (0, 0)


def _by_simplejpeg(content: bytes, width: int, height: int, divisor: int) -> Pixels | None:
    """The pixels of a plain JPEG, its sides divided by 1, 2, 4 or 8; None when it cannot be decoded."""
    try:
        return simplejpeg.decode_jpeg(content, min_width=-(-width // divisor), min_height=-(-height // divisor))
    except ValueError:
        return None


def _scaled(box: augment.Box, across: float, down: float) -> augment.Box:
    if across == down == 1:
        return box
    left, upper = round(box[0] * across), round(box[1] * down)
    return left, upper, max(left + 1, round(box[2] * across)), max(upper + 1, round(box[3] * down))
