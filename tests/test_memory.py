"""The loader of small images."""

from unittest import mock

import numpy as np
import torch

from tests.helpers import fractals_config, plan_for
from train.config.compose import compose
from train.data.kinds import open_data
from train.data.memory import MemoryLoader
from train.plan import Plan
from train.processes.world import World


def test_training_images_have_the_size_of_their_epoch_and_validation_images_their_own(tiny):
    small, data = tiny
    c = compose(*small, "data.progressive.start=16", "data.progressive.epochs=[0,2]", "epochs=3")
    loader, plan = open_data(c.data).make_loader(World(), 0), plan_for(c, data.train_images)
    sizes = [next(loader.training_batches(plan, epoch, 0))[0].shape[2:] for epoch in range(3)]
    assert sizes == [(16, 16), (24, 24), (32, 32)]
    assert next(loader.validation_batches())[0].shape[2:] == (32, 32)


def test_memory_loader_shifts_by_at_most_two_pixels_and_flips():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(16)
    plan = Plan(16, 16, 1, 1, 16, 1)
    c = fractals_config(mean=[0.0] * 3, std=[1 / 255] * 3)
    batches = MemoryLoader((images, labels), (images, labels), c, c.shift, World(), 0)
    seen = set()
    for epoch in range(8):
        for x, y in batches.training_batches(plan, epoch, 0):
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
    x, y = next(batches.validation_batches())
    assert torch.equal(x.round().byte().permute(0, 2, 3, 1), torch.from_numpy(images)) and y.tolist() == list(range(16))


def test_on_a_gpu_the_images_stay_there_and_nothing_is_read_on_the_host():
    """Meta tensors have no values: whatever would read one on the host raises."""
    place = World()
    place.device = torch.device("meta")
    images, labels = np.zeros((2100, 32, 32, 3), dtype=np.uint8), np.zeros(2100, dtype=np.int64)
    config = fractals_config()
    pinned: list[torch.Tensor] = []
    with mock.patch.object(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self):
        loader = MemoryLoader((images, labels), (images, labels), config, config.shift, place, 0)
        batches = list(loader.training_batches(Plan(700, 700, 1, 1, 2100, 1), 0, 0))
        evaluation = list(loader.validation_batches())
    assert [(x.shape, x.device.type, y.device.type) for x, y in batches] == [((700, 3, 32, 32), "meta", "meta")] * 3
    assert [len(y) for _, y in evaluation] == [1024, 1024, 52]
    # an index that is not pinned, or stays on the host, makes the host wait
    assert len(pinned) == 6
