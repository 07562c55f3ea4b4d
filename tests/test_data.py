"""Order and augmentation as pure functions, the formula's pictures, and folders of images."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train.config import FractalsConfig, Plan, ProgressiveConfig
from train.data import augment, fractals, loader, open_data, order
from train.data.memory import MemoryLoader
from train.data.sources import open_sources
from train.errors import UserError
from train.world import World


def config(**changes: object) -> FractalsConfig:
    values = {
        "name": "fractals", "root": None, "batch_divisor": 8, "micro": 512, "workers": 0,
        "mean": [0.5] * 3, "std": [0.25] * 3,
        "classes": 3, "train_per_class": 4, "val_per_class": 2, "size": 32, "shift": 2,
        "progressive": ProgressiveConfig(None, [0, 60], 8),
    }  # fmt: skip
    return FractalsConfig(**{**values, **changes})  # type: ignore[arg-type]


def test_random_bits_are_splitmix64s():
    # the first outputs of Vigna's splitmix64.c for seed 0; a key of one part 0 is its first
    assert int(order.random_bits(0)) == 0xE220A8397B1DCDAF


def test_epoch_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    a = order.epoch_order(0, 0, 1000)
    assert sorted(a.tolist()) == list(range(1000))
    assert np.array_equal(a, order.epoch_order(0, 0, 1000))
    assert (a == order.epoch_order(0, 1, 1000)).sum() < 10 and (a == order.epoch_order(1, 0, 1000)).sum() < 10


def test_epoch_order_is_the_committed_one():
    # any change here changes every published run
    digest = hashlib.sha256(order.epoch_order(0, 3, 20_480).astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "408e93c1a073fc38"


def test_uniform_numbers_are_uniform_and_uncorrelated():
    u = order.uniform(order.FLIP, 0, 0, np.arange(100_000))
    assert abs(u.mean() - 0.5) < 0.003 and abs(u.var() - 1 / 12) < 0.001
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
    assert abs(augment.flips(0, 0, np.arange(100_000)).mean() - 0.5) < 0.005


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_together_take_the_same_micro_batches_in_the_same_order(processes):
    alone = Plan(total=64, micro=8, accumulation=8, processes=1, train_images=300, epochs=1)
    shared = Plan(64, 8, 8 // processes, processes, 300, 1)
    expected = list(loader.micro_batches(alone, 0, 2, 0, rank=0))
    ranks = [list(loader.micro_batches(shared, 0, 2, 0, rank)) for rank in range(processes)]
    k = shared.accumulation
    together = [m for step in range(4) for rank in ranks for m in rank[step * k : (step + 1) * k]]
    assert len(together) == len(expected) == 32
    assert all(np.array_equal(a, b) for a, b in zip(together, expected, strict=True))


def test_an_epoch_goes_on_from_any_step():
    plan = Plan(total=64, micro=8, accumulation=8, processes=1, train_images=300, epochs=1)
    whole = list(loader.micro_batches(plan, 0, 0, 0, 0))
    assert all(np.array_equal(a, b) for a, b in zip(whole[16:], loader.micro_batches(plan, 0, 0, 2, 0), strict=True))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("images", [1, 10, 256, 257, 1000])
def test_validation_shares_hold_every_image_once_in_equally_many_batches(size, images):
    shares = [list(loader.shares(images, World(rank, size))) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(images))


def test_memory_loader_shifts_by_at_most_two_pixels_and_flips():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(16)
    plan = Plan(16, 16, 1, 1, 16, 1)
    c = config(mean=[0.0] * 3, std=[1 / 255] * 3)
    batches = MemoryLoader((images, labels), (images, labels), c, plan, 0, World())
    seen = set()
    for epoch in range(8):
        for x, y in batches.train(epoch, 0):
            for picture, label in zip(x, y, strict=True):
                padded = np.pad(images[label], [(2, 2), (2, 2), (0, 0)], mode="edge")
                found = [
                    (dy, dx, flip)
                    for dy in range(5)
                    for dx in range(5)
                    for flip in (1, -1)
                    if np.array_equal(
                        padded[dy : dy + 32, dx : dx + 32][:, ::flip].transpose(2, 0, 1),
                        picture.numpy().round(),
                    )
                ]
                assert len(found) == 1
                seen.add(found[0])
    assert len(seen) > 35
    x, y = next(batches.validation())
    assert torch.equal(x.round().byte().permute(0, 2, 3, 1), torch.from_numpy(images)) and y.tolist() == list(range(16))


def test_scale_and_aspect_boxes_have_the_areas_and_aspects_of_torchvisions():
    tries = augment.tries(0, 0, np.arange(3000))
    boxes = np.array([augment.scale_and_aspect_box(500, 375, numbers, 0.08) for numbers in tries])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and boxes[:, 2].max() <= 500 and boxes[:, 3].max() <= 375
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    theirs = np.array(
        [RandomResizedCrop.get_params(torch.empty(3, 375, 500), [0.08, 1], [3 / 4, 4 / 3]) for _ in range(3000)]
    )
    area, their_area = w * h / 187_500, theirs[:, 2] * theirs[:, 3] / 187_500
    assert area.mean() == pytest.approx(their_area.mean(), abs=0.02)
    assert np.quantile(area, [0.1, 0.9]) == pytest.approx(np.quantile(their_area, [0.1, 0.9]), abs=0.03)
    assert np.log(w / h).mean() == pytest.approx(np.log(theirs[:, 3] / theirs[:, 2]).mean(), abs=0.02)


def test_evaluation_at_the_shorter_side_is_torchvisions_pixel_for_pixel():
    from torchvision import transforms

    reference = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for size in [(500, 375), (375, 500), (257, 301), (100, 640)]:
        image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
        ours = augment.central_crop(image, 256, 224, square=False)
        assert np.array_equal(np.asarray(ours), np.asarray(reference(image)))


def test_fractal_classes_are_contractive_and_fill_enough_and_their_images_differ():
    for label in range(6):
        system = fractals.draw_system(label, 32)
        assert 2 <= len(system.maps) <= 7 and system.chances.sum() == pytest.approx(1)
        for a, b, c, d in 1.25 * system.maps[:, :4]:
            assert np.linalg.norm([[a, b], [c, d]], 2) <= 1 + 1e-9
        images = fractals.draw_images(system, label, np.arange(4), 32)
        assert images.shape == (4, 32, 32, 3) and len({image.tobytes() for image in images}) == 4


def test_default_fractals_have_the_committed_pixels(tmp_path):
    """The first class of the default data set, whose images do not depend on the other classes."""
    root = fractals.provide(config(classes=1, train_per_class=4, root=str(tmp_path / "f")))
    pixels = fractals.decoded(open_sources(root)[0])
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "83c82bc32184e32a"


def test_noise_has_the_stated_spread():
    noise = fractals._normal(order.random_bits(1, np.arange(4)), (32, 32, 3))
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_a_killed_generation_leaves_nothing_that_a_later_run_trusts(tmp_path):
    root = tmp_path / "fractals"
    c = config(classes=40, train_per_class=200, root=str(root))
    code = f"""
from tests.test_data import config
from train.data import fractals
if __name__ == "__main__":
    fractals.provide(config(classes=40, train_per_class=200, root={str(root)!r}))
"""
    script = tmp_path / "make.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    maker = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
    unfinished = tmp_path / ".fractals.unfinished"
    deadline = time.time() + 60
    while not list(unfinished.glob("train/*/*.jpg")) and time.time() < deadline:
        time.sleep(0.01)
    os.killpg(maker.pid, signal.SIGKILL)
    maker.wait()
    assert unfinished.exists() and not root.exists()
    fractals.provide(c)
    assert len(list(root.glob("train/*/*.jpg"))) == 8000 and not unfinished.exists()


def test_another_training_count_leaves_the_validation_images_as_they_are():
    few, many = (open_data(config(train_per_class=n)) for n in (2, 3))
    assert few.fingerprint != many.fingerprint
    plan = Plan(2, 2, 1, 1, 6, 1)
    a, b = (next(d.make_loader(plan, 0, World()).validation())[0] for d in (few, many))
    assert torch.equal(a, b)


def folder(root: Path, tree: dict[str, list[str]]) -> Path:
    for place, names in tree.items():
        (root / place).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (40, 30), "red").save(root / place / name, "JPEG")
    return root


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "holds nothing: expected train/<class>"),
        ({"train/a": ["1.jpg"]}, "no folder val"),
        ({"train": [], "val": []}, "no class folders"),
        ({"train/a": ["1.jpg"], "val/b": ["1.jpg"]}, "in only one of them: a, b"),
        ({"train/a": [], "val/a": ["1.jpg"]}, "no image files"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_named(tmp_path, tree, said):
    root = folder(tmp_path / "root", tree)
    root.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=said) as caught:
        open_sources(root)
    assert str(root) in str(caught.value)
