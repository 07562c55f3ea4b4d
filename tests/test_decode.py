"""Training images are Pillow's to 1 of 255, whatever the file."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import Contents, content, picture
from train.data import augment
from train.data.decode import decode, training_image
from train.errors import UserError


def jpeg(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, options.pop("format", "JPEG"), **{"quality": 90, **options})
    return out.getvalue()


def kinds() -> dict[str, bytes]:
    image = picture(2, 0)
    exif = image.getexif()
    exif[0x0112] = 6
    return {
        "RGB": jpeg(image), "444": jpeg(image, subsampling=0), "progressive": jpeg(image, progressive=True),
        "grey": jpeg(image.convert("L")), "CMYK": jpeg(image.convert("CMYK")), "rotated": jpeg(image, exif=exif),
        "PNG": jpeg(image, format="PNG"),
        "alpha": jpeg(image.convert("LA"), format="PNG"), "one row": jpeg(image.crop((0, 0, 300, 1))),
        "one pixel": jpeg(image.crop((0, 0, 1, 1))), "large": jpeg(image.resize((1600, 1200))),
    }  # fmt: skip


@pytest.mark.parametrize("train_crop", ["minimal", "scale_and_aspect"])
@pytest.mark.parametrize("kind", kinds())
def test_training_images_are_pillows_to_one_of_255(kind, train_crop):
    crop = augment.Crop(224, 256, train_crop, 0.08, "square")
    source = Contents([kinds()[kind]])
    whole = Image.open(io.BytesIO(source.read(0))).convert("RGB")
    worst = 0
    for epoch in range(8):
        numbers = augment.random_numbers(crop, 0, epoch, np.array([0]))[0]
        got, is_plain = training_image(source, 0, crop, numbers)  # type: ignore[arg-type]
        if train_crop == "minimal":
            left, upper = numbers.tolist()
            square = whole.resize((256, 256), Image.Resampling.BILINEAR)
            wanted = square.crop((left, upper, left + 224, upper + 224))
        else:
            box = augment.scale_and_aspect_box(*whole.size, numbers, 0.08)
            wanted = whole.crop(box).resize((224, 224), Image.Resampling.BILINEAR)
        assert got.shape == (224, 224, 3) and got.dtype == np.uint8
        difference = np.abs(got.astype(int) - np.asarray(wanted).astype(int))
        worst = max(worst, difference.max())
        if kind == "large":
            assert difference.mean() < 4
    assert is_plain == (kind not in ("CMYK", "PNG", "alpha"))
    # half the decoded size leaves out high frequencies, and rounds the rectangle to pixels of its own
    assert worst <= (1 if kind != "large" else 60)


@pytest.mark.parametrize(("kind", "form"), [(np.uint16, "PNG"), (np.int32, "TIFF"), (np.float32, "TIFF")])
def test_more_than_8_bits_a_pixel_are_refused_because_pillow_would_make_them_white(kind: type, form: str):
    deep = Image.fromarray((np.asarray(picture(2, 0).convert("L")).astype(kind) * 257).astype(kind))
    with pytest.raises(UserError, match="more than 8 bits a pixel .*: convert it"):
        decode(Contents([jpeg(deep, format=form)]), 0)


def test_a_thousand_mutated_files_are_pillows_or_refused(tmp_path: Path):
    from train.data.decode import training_image

    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    seeds = [content(1, 2)]
    for kind, options in (("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {})):
        out = io.BytesIO()
        noise.save(out, kind, **options)
        seeds.append(out.getvalue())
    data = augment.Crop(32, 40, "minimal", 0.08, "square")
    used = 0
    for i in range(1000):
        mutated = bytearray(seeds[i % len(seeds)])
        for _ in range(1 + i % 4):
            at = int(generator.integers(len(mutated)))
            kind = int(generator.integers(3))
            if kind == 0:
                mutated[at] = int(generator.integers(256))
            elif kind == 1:
                del mutated[at : at + int(generator.integers(1, 200))]
            else:
                mutated = mutated[: max(at, 1)]
        source = Contents([bytes(mutated)])
        try:
            got, _ = training_image(source, 0, data, np.array([3, 4]))  # type: ignore[arg-type]
        except UserError as error:
            assert "cannot decode image 0" in str(error) and "\n" not in str(error)
            continue
        used += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = Image.open(io.BytesIO(source.read(0))).convert("RGB").resize((40, 40), Image.Resampling.BILINEAR)
        wanted = np.asarray(whole.crop((3, 4, 35, 36))).astype(int)
        assert np.abs(got.astype(int) - wanted).max() <= 1
    assert 100 < used < 900
