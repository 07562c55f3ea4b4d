"""Draws images side by side, each with its caption."""

from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

SIDE, CAPTION, COLUMNS = 128, 32, 8  # pixels of an image, of the two lines below it; images side by side


def grid(images: Tensor, captions: Sequence[str] = ()) -> Image.Image:
    """``images``, uint8 N,H,W,3, in rows of 8, each with a caption of two lines where there are ``captions``."""
    height = SIDE + (CAPTION if captions else 0)
    rows = -(-len(images) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * SIDE, rows * height), "white")
    draw = ImageDraw.Draw(picture)
    for i, pixels in enumerate(images.cpu().numpy()):
        x, y = i % COLUMNS * SIDE, i // COLUMNS * height
        # small images are enlarged without smoothing
        resampling = Image.Resampling.NEAREST if len(pixels) < SIDE else Image.Resampling.BILINEAR
        picture.paste(Image.fromarray(pixels).resize((SIDE - 2, SIDE - 2), resampling), (x, y))
        if captions:
            draw.multiline_text((x + 2, y + SIDE), captions[i], fill="black", spacing=2, font_size=12)
    return picture
