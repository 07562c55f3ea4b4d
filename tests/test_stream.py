"""A folder of JPEG files as cameras and the web make them, through workers."""

import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import App, image_folder, picture
from train.config.compose import compose
from train.data import imagenet
from train.data import loader as loader_module
from train.data.kinds import open_data
from train.data.loader import MicroBatch
from train.errors import UserError
from train.plan import Plan
from train.processes.world import World


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
def settings(root: Path) -> imagenet.Config:
    data = compose(f"data.root={root}").data
    assert isinstance(data, imagenet.Config)
    return data


def batches(settings: imagenet.Config, workers: int, epoch: int = 0) -> list[MicroBatch]:
    settings.workers = workers
    data = open_data(settings)
    loader, plan = data.make_loader(World(), 0), Plan(12, 6, 2, 1, data.train_images, 1)
    taken = [(x, y) for x, y in loader.training_batches(plan, epoch, 0)]
    loader.close()
    return taken


def test_images_are_the_same_whatever_the_number_of_workers(settings):
    none, two = batches(settings, 0), batches(settings, 2)
    assert len(none) == len(two) == 4
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(none, two, strict=True))
    assert none[0][0].shape == (6, 3, 224, 224) and none[0][0].is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(none[0][0], batches(settings, 0, epoch=1)[0][0])


def equal(a: list[MicroBatch], b: list[MicroBatch]) -> bool:
    pairs = [pair for one, two in zip(a, b, strict=True) for pair in zip(one, two, strict=True)]
    return all(torch.equal(x, y) for x, y in pairs)


def test_workers_read_ahead_past_the_ends_of_epochs_and_of_evaluations(settings, monkeypatch: pytest.MonkeyPatch):
    data, plan = open_data(settings), Plan(12, 6, 2, 1, 24, epochs=2)
    settings.workers = 0
    loader = data.make_loader(World(), 0)
    training = [list(loader.training_batches(plan, epoch, 0)) for epoch in range(2)]
    apart = [*training[0], *loader.validation_batches(), *training[1], *loader.validation_batches()]
    # the 15 validation images are one batch, here in four pieces
    monkeypatch.setattr("train.data.stream.VALIDATION_PIECE", 4)
    settings.workers, drawn = 2, []
    loader = data.make_loader(World(), 0)
    requests = loader_module.run_requests(plan, 0, 0, 0, [(None, np.arange(15))], evaluate_first=False)
    batches = loader.batches(drawn.append(epoch) or (epoch, indices) for epoch, indices in requests)
    taken = [next(batches) for _ in range(4)]
    assert drawn[4:] and drawn[4] is None
    taken += [next(batches)]
    assert drawn[5:] and drawn[5] == 1
    taken += list(batches)
    assert equal(taken, apart) and drawn == [0, 0, 0, 0, None, 1, 1, 1, 1, None]
    loader.close()


def test_minimal_crop_is_the_papers_in_torchvisions_words(settings):
    """Resize to 256x256, a 224 crop, a flip, ToTensor, Normalize: our sample is one of torchvision's."""
    from torchvision import transforms

    data = open_data(settings)
    images, labels = batches(settings, 0)[0]
    to_tensor = transforms.Compose([transforms.Resize((256, 256)), transforms.ToTensor()])
    normalise = transforms.Normalize(settings.mean, settings.std)
    from train.data.sources import open_sources

    train, _ = open_sources(Path(settings.root or ""))
    from train.data.randomness import epoch_order

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


def test_files_that_only_pillow_decodes_are_named_once(settings, root):
    data = open_data(settings)
    for workers in (0, 2):
        settings.workers = workers
        loader, plan = data.make_loader(World(), 0), Plan(12, 6, 2, 1, data.train_images, 2)
        list(loader.training_batches(plan, 0, 0))
        (line,) = loader.remarks(0.01)
        assert "not plain JPEG, decoded by Pillow: 3 files" in line and f"{root}/train/n00000000/2.JPEG" in line
        list(loader.training_batches(plan, 1, 0))
        assert loader.remarks(0.04) == []
        (line,) = loader.remarks(0.2)
        assert f"waited for data 20% of the epoch: more than data.workers={workers}" in line and "pack" in line
        loader.close()


def test_an_empty_root_is_the_users_mistake(settings):
    settings.root = None
    with pytest.raises(UserError, match="IMAGENET_DIR"):
        open_data(settings)


def spoil(root: Path) -> list[Path]:
    folder = root / "train" / "n02100735"
    bad = sorted(folder.iterdir())[:3]
    bad[0].write_bytes(b"")
    bad[1].write_text("<html>404</html>")
    bad[2].write_bytes(bad[2].read_bytes()[:400])
    return bad


def test_bad_images_stop_the_run_or_their_neighbours_stand_in_and_are_listed(app: App, tmp_path: Path):
    image_folder(tmp_path / "root")
    bad = spoil(tmp_path / "root")
    arguments = [
        f"data.root={tmp_path}/root", "model=resnet8", "data.size=32", "data.resize=40", "batch.total=12",
        "batch.micro=6", "epochs=2", "name=run", "precision=fp32",
    ]  # fmt: skip
    stopped = app(*arguments, "data.workers=2")
    assert stopped.returncode == 2 and "repair or remove the file" in stopped.stderr.splitlines()[-1]
    ends = []
    for workers in (0, 2):
        done = app(*arguments, "data.on_bad_image=skip", f"data.workers={workers}", f"runs_dir=w{workers}")
        assert done.returncode == 0, done.stderr
        lines = [
            line for line in done.stdout.splitlines() if line.startswith("skipped and replaced by their neighbours")
        ]
        # once each, at the end of the epoch in which they came first
        assert all(sum(str(path) in line for line in lines) == 1 for path in bad)
        ends.append((tmp_path / f"w{workers}/run/weights.pt").read_bytes())
    assert ends[0] == ends[1]
