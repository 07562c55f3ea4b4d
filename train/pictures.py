"""Pictures of a run for TensorBoard: images as the network sees them, and the mistakes it was surest of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from train.world import World

SIDE, CAPTION, COLUMNS = 128, 32, 8  # pixels of an image, of the two lines below it; images side by side
COUNT = 32  # images in a picture


def grid(images: Tensor, captions: Sequence[str] = ()) -> Image.Image:
    """``images``, uint8 N,H,W,3, in rows of 8, each with its caption of two lines when there are ``captions``."""
    height = SIDE + (CAPTION if captions else 0)
    rows = -(-len(images) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * SIDE, rows * height), "white")
    draw = ImageDraw.Draw(picture)
    for i, pixels in enumerate(images.cpu().numpy()):
        x, y = i % COLUMNS * SIDE, i // COLUMNS * height
        # small ones stay as they are, pixel for pixel
        how = Image.Resampling.NEAREST if len(pixels) < SIDE else Image.Resampling.BILINEAR
        picture.paste(Image.fromarray(pixels).resize((SIDE - 2, SIDE - 2), how), (x, y))
        if captions:
            draw.multiline_text((x + 2, y + SIDE), captions[i], fill="black", spacing=2, font_size=12)
    return picture


class Mistakes:
    """The ``COUNT`` images, of all that ``add`` is given on any rank, whose wrong class had the highest probability."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, ...] | None = None  # probabilities, true classes, classes said, images

    def add(self, images: Tensor, labels: Tensor, logits: Tensor) -> None:
        """A batch as it was scored: images N,3,H,W, labels N, float logits N,K. Nothing waits for the device."""
        probabilities, said = logits.softmax(1).max(1)
        wrong = torch.where(said == labels, -1.0, probabilities)
        # within the batch first: few images are ever copied
        batch = _largest((wrong, labels, said, images))
        self._kept = batch if self._kept is None else _largest(_joined([self._kept, batch]))

    def worst(self, world: World) -> tuple[Tensor, ...]:
        """Probabilities N, true classes N, classes said N, images N,3,H,W: in the host's memory, the surest first.

        Every rank must call it, and all get the same.
        """
        kept = None if self._kept is None else tuple(values.cpu() for values in self._kept)
        worst = _largest(_joined([share for share in world.gather(kept) if share is not None]))
        return tuple(values[worst[0] >= 0] for values in worst)


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def _largest(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    order = values[0].topk(min(COUNT, len(values[0]))).indices
    return tuple(v[order] for v in values)


def captions(worst: tuple[Tensor, ...], names: Sequence[str]) -> list[str]:
    """The true class and the one said, with its probability, of each of ``Mistakes.worst``."""
    return [
        f"true: {names[label][:12]}\nsaid: {names[said][:12]}, {probability:.0%}"
        for probability, label, said in zip(*(values.tolist() for values in worst[:3]), strict=True)
    ]
