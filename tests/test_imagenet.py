"""A folder of JPEG files as cameras and the web make them, trained at 224 pixels with ResNet-50."""

import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import App
from train import config
from train.config import Plan
from train.data import augment, open_data
from train.data.decode import draw, training_image
from train.errors import UserError
from train.main import composed
from train.step import MicroBatch
from train.world import World

SIZES = [(500, 375), (375, 500), (640, 480), (320, 240), (800, 600), (333, 500)]
COLOURS = [(200, 40, 40), (40, 160, 60), (50, 60, 200)]


def picture(label: int, number: int) -> Image.Image:
    """Stripes whose colour and direction tell the class, with noise."""
    generator = np.random.default_rng(100 * label + number)
    width, height = SIZES[number % len(SIZES)]
    y, x = np.mgrid[0:height, 0:width]
    phase = (x if label == 0 else y if label == 1 else x + y) / 20
    base = np.array(COLOURS[label]) * (0.6 + 0.4 * np.sin(phase))[..., None]
    return Image.fromarray(np.clip(base + generator.normal(0, 20, base.shape), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    for split, count, first in (("train", 8, 0), ("val", 5, 50)):
        for label in range(3):
            place = folder / split / f"n{label:08d}"
            place.mkdir(parents=True)
            for i in range(count):
                image, options = picture(label, first + i), {}
                if i == 1:
                    image = image.convert("L")
                if i == 2:
                    image = image.convert("CMYK")
                if i == 3:
                    options["exif"] = image.getexif()
                    options["exif"][0x0112] = 6  # a camera held upright
                image.save(place / f"{i}.JPEG", quality=90, **options)
    return folder


@pytest.mark.slow
def test_real_sized_jpegs_train_at_224_below_half_of_ln_classes(app: App, root: Path, tmp_path: Path):
    done = app(
        f"data.root={root}", "batch=8k", "batch.total=12", "batch.micro=12", "epochs=12",
        "optimizer.lr=4", "schedule.warmup_epochs=4", "name=run",
        timeout=500, env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "24 training and 15 validation images of 3 classes, from ImageFolder: NOT ILSVRC-2012" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "runs/run/log.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"] < math.log(3) / 2
    assert len((tmp_path / "runs/run/weights.pt").read_bytes()) > 90e6


@pytest.fixture
def settings(root: Path) -> config.ImageNetConfig:
    data = composed(f"data.root={root}").data
    assert isinstance(data, config.ImageNetConfig)
    return data


def batches(settings: config.ImageNetConfig, workers: int, epoch: int = 0) -> list[MicroBatch]:
    settings.workers = workers
    data = open_data(settings)
    loader = data.make_loader(Plan(12, 6, 2, 1, data.train_images, 1), 0, World())
    taken = [(x, y) for x, y in loader.train(epoch, 0)]
    loader.close()
    return taken


def test_images_are_the_same_whatever_the_number_of_workers(settings):
    none, two = batches(settings, 0), batches(settings, 2)
    assert len(none) == len(two) == 4
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(none, two, strict=True))
    assert none[0][0].shape == (6, 3, 224, 224) and none[0][0].is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(none[0][0], batches(settings, 0, epoch=1)[0][0])


def test_minimal_crop_is_the_papers_in_torchvisions_words(settings):
    """Resize to 256x256, a 224 crop, a flip, ToTensor, Normalize: our sample is one of torchvision's."""
    from torchvision import transforms

    data = open_data(settings)
    images, labels = batches(settings, 0)[0]
    to_tensor = transforms.Compose([transforms.Resize((256, 256)), transforms.ToTensor()])
    normalise = transforms.Normalize(settings.mean, settings.std)
    from train.data.sources import open_sources

    train, _ = open_sources(Path(settings.root or ""))
    from train.data.order import epoch_order

    index = int(epoch_order(0, 0, data.train_images)[0])
    whole = normalise(to_tensor(Image.open(io.BytesIO(train.read(index))).convert("RGB")))
    assert labels[0] == train.labels(slice(None))[index]
    crops = [
        candidate
        for turned in (whole, whole.flip(2))
        for candidate in turned.unfold(1, 224, 1).unfold(2, 224, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 224, 224)
    ]
    nearest = min(float((images[0] - c).abs().max()) for c in crops)
    # a step of 1 in 255 is all that the two ways of resizing may differ by
    assert nearest < 1.01 / 255 / min(settings.std)


def jpeg(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, options.pop("format", "JPEG"), **{"quality": 90, **options})
    return out.getvalue()


def kinds() -> dict[str, bytes]:
    image = picture(2, 0)
    exif = image.getexif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return {
        "RGB": jpeg(image), "444": jpeg(image, subsampling=0), "progressive": jpeg(image, progressive=True),
        "grey": jpeg(image.convert("L")), "CMYK": jpeg(image.convert("CMYK")), "rotated": jpeg(image, exif=exif),
        "PNG": jpeg(image, format="PNG"), "16 bits": jpeg(deep, format="PNG"),
        "alpha": jpeg(image.convert("LA"), format="PNG"), "one row": jpeg(image.crop((0, 0, 300, 1))),
        "one pixel": jpeg(image.crop((0, 0, 1, 1))), "large": jpeg(image.resize((1600, 1200))),
    }  # fmt: skip


class Contents:
    """A source of images in memory."""

    def __init__(self, contents: list[bytes]) -> None:
        self._contents = contents

    def read(self, index: int) -> bytes:
        return self._contents[index]

    def name(self, index: int) -> str:
        return f"image {index}"


@pytest.mark.parametrize("crop", ["minimal", "scale_and_aspect"])
@pytest.mark.parametrize("kind", kinds())
def test_training_images_are_pillows_to_one_of_255(settings, kind, crop):
    settings.train_crop = crop
    source = Contents([kinds()[kind]])
    whole = Image.open(io.BytesIO(source.read(0))).convert("RGB")
    worst = 0
    for epoch in range(8):
        drawn = draw(settings, 0, epoch, np.array([0]))[0]
        got, is_plain = training_image(source, 0, settings, drawn)  # type: ignore[arg-type]
        if crop == "minimal":
            left, upper = drawn.tolist()
            square = whole.resize((256, 256), Image.Resampling.BILINEAR)
            wanted = square.crop((left, upper, left + 224, upper + 224))
        else:
            box = augment.scale_and_aspect_box(*whole.size, drawn, 0.08)
            wanted = whole.crop(box).resize((224, 224), Image.Resampling.BILINEAR)
        assert got.shape == (224, 224, 3) and got.dtype == np.uint8
        difference = np.abs(got.astype(int) - np.asarray(wanted).astype(int))
        worst = max(worst, difference.max())
        if kind == "large":
            assert difference.mean() < 4
    assert is_plain == (kind not in ("CMYK", "PNG", "16 bits", "alpha"))
    # half the decoded size leaves out high frequencies, and rounds the rectangle to pixels of its own
    assert worst <= (1 if kind != "large" else 60)


def test_files_that_only_pillow_decodes_are_named_once(settings, root):
    data = open_data(settings)
    for workers in (0, 2):
        settings.workers = workers
        loader = data.make_loader(Plan(12, 6, 2, 1, data.train_images, 2), 0, World())
        list(loader.train(0, 0))
        (line,) = loader.remarks(0.01)
        assert "not plain JPEG, decoded by Pillow: 3 files" in line and f"{root}/train/n00000000/2.JPEG" in line
        list(loader.train(1, 0))
        assert loader.remarks(0.04) == []
        (line,) = loader.remarks(0.2)
        assert f"waited for data 20% of the epoch: more than data.workers={workers}" in line and "pack" in line
        loader.close()


def test_an_empty_root_is_the_users_mistake(settings):
    settings.root = None
    with pytest.raises(UserError, match="IMAGENET_DIR"):
        open_data(settings)
