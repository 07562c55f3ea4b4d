"""Crops and flips: torchvision's distributions, and the reference crop of an evaluation."""

import numpy as np
import pytest
import torch
from PIL import Image

from train.config.compose import compose
from train.data import augment


def test_a_cut_on_imagenet_has_the_size_of_its_epoch():
    c = compose("data=imagenet", "data.progressive.start=128", "data.progressive.epochs=[0,60]").data
    assert [(at.size, at.resize) for at in map(c.crop, (0, 90, None))] == [(128, 146), (224, 256), (224, 256)]


def test_min_area_is_the_least_share_of_an_image_that_a_cut_has():
    import numpy as np

    from train.data import augment

    tries = augment.tries(0, 0, np.arange(2000))
    for least in (0.05, 0.5):
        boxes = np.array([augment.scale_and_aspect_box(500, 500, numbers, least) for numbers in tries])
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 500**2
        assert least - 0.005 < area.min() < least + 0.02


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


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return abs(float(np.corrcoef(a.astype(float), b.astype(float))[0, 1]))


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (0, 7), (1, 0)])
def test_flips_crops_and_tries_differ_from_epoch_to_epoch_and_from_seed_to_seed(seed: int, epoch: int):
    indices = np.arange(20_000)
    for drawn in (
        lambda *key: augment.flips(*key, indices),
        lambda *key: augment.corners(256, 224, *key, indices)[:, 0],
        lambda *key: augment.corners(256, 224, *key, indices)[:, 1],
        lambda *key: augment.tries(*key, indices)[:, 0, 0],
    ):
        assert correlation(drawn(0, 0), drawn(seed, epoch)) < 0.03


def test_whether_an_image_is_flipped_says_nothing_of_where_it_is_cut():
    indices = np.arange(20_000)
    flips = augment.flips(0, 3, indices)
    corners, tries = augment.corners(256, 224, 0, 3, indices), augment.tries(0, 3, indices)
    cuts = [corners[:, 0], corners[:, 1], *(tries[:, 0, i] for i in range(4)), *(tries[:, 1, i] for i in range(4))]
    for cut in cuts:
        assert correlation(flips, cut) < 0.03
    for i, a in enumerate(cuts[2:6]):
        assert all(correlation(a, b) < 0.03 for b in cuts[3 + i : 6])


def test_every_corner_of_a_crop_is_drawn_and_none_outside():
    corners = augment.corners(40, 32, 0, 0, np.arange(5_000))
    assert set(corners[:, 0]) == set(corners[:, 1]) == set(range(9))
