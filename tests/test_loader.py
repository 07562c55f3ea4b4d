"""Which images a rank takes, and how they are normalised."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch

from train.config.compose import compose
from train.data import loader
from train.data.randomness import epoch_order
from train.plan import Plan


def test_normalised_images_come_back_to_the_bit():
    settings = compose()
    images = torch.randint(256, (2, 4, 5, 3), dtype=torch.uint8)
    normalise = loader.Normalise(settings.data.mean, settings.data.std, torch.device("cpu"))
    assert normalise.undo(normalise(images, torch.zeros(2))[0]).equal(images)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_together_take_the_same_micro_batches_in_the_same_order(processes):
    alone = Plan(total=64, micro=8, accumulation=8, processes=1, train_images=300, epochs=1)
    shared = Plan(64, 8, 8 // processes, processes, 300, 1)
    order = epoch_order(0, 2, 300)
    expected = list(loader.micro_batches(alone, 0, order, 0, rank=0))
    ranks = [list(loader.micro_batches(shared, 0, order, 0, rank)) for rank in range(processes)]
    k = shared.accumulation
    together = [m for step in range(4) for rank in ranks for m in rank[step * k : (step + 1) * k]]
    assert len(together) == len(expected) == 32
    assert all(np.array_equal(a, b) for a, b in zip(together, expected, strict=True))


def test_an_epoch_goes_on_from_any_step():
    plan = Plan(total=64, micro=8, accumulation=8, processes=1, train_images=300, epochs=1)
    order = epoch_order(0, 0, 300)
    whole = list(loader.micro_batches(plan, 0, order, 0, 0))
    assert all(
        np.array_equal(a, b) for a, b in zip(whole[16:], loader.micro_batches(plan, 0, order, 2, 0), strict=True)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("images", [1, 10, 256, 257, 1000])
def test_validation_shares_hold_every_image_once_in_equally_many_batches(size, images):
    shares = [list(loader.validation_shares(images, rank, size)) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(images))


@pytest.mark.parametrize("evaluate_every", [1, 2, 3])
def test_a_run_is_one_sequence_of_requests_that_goes_on_from_any_step(evaluate_every: int):
    plan = Plan(64, 8, 8, 1, 300, epochs=5, evaluate_every=evaluate_every)
    validation: list[loader.Request] = [(None, batch) for batch in loader.validation_shares(100, 0, 1)]

    def sequence(step: int, evaluate_first: bool = False) -> list[loader.Request]:
        return list(loader.run_requests(plan, 0, step, 0, validation, evaluate_first))

    def same(a: list[loader.Request], b: list[loader.Request]) -> bool:
        return [e for e, _ in a] == [e for e, _ in b] and all(map(np.array_equal, *([i for _, i in x] for x in (a, b))))

    apart: list[loader.Request] = []
    for epoch in range(5):
        apart += [(epoch, m) for m in loader.micro_batches(plan, epoch, epoch_order(0, epoch, 300), 0, 0)]
        if epoch + 1 in {1: [1, 2, 3, 4, 5], 2: [2, 4, 5], 3: [3, 5]}[evaluate_every]:
            apart += validation
    whole = sequence(0)
    assert same(whole, apart)
    for step in (1, 4, 7, 12, 20):
        rest = sequence(step)
        assert same(rest, whole[len(whole) - len(rest) :])
        assert same(sequence(step, evaluate_first=True), validation + rest)
        assert sum(epoch is not None for epoch, _ in rest) == 8 * (20 - step)


class Streams:
    """A device's streams that note what is done with them, in the place of torch.cuda."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def Stream(self, device: torch.device) -> str:
        return "side"

    def current_stream(self) -> "Streams":
        return self

    @contextmanager
    def stream(self, stream: str) -> Iterator[None]:
        self.notes.append(f"enter {stream}")
        yield
        self.notes.append(f"leave {stream}")

    def wait_stream(self, stream: str) -> None:
        self.notes.append(f"wait for {stream}")


def test_a_batch_is_made_beside_the_current_stream_which_waits_for_it_and_keeps_its_memory():
    streams = Streams()
    noted = mock.Mock(record_stream=lambda stream: streams.notes.append("record"))
    with mock.patch.object(torch, "cuda", streams):
        beside = loader.SideStream(torch.device("cuda"))
        batch = beside(lambda: streams.notes.append("make") or (noted, noted))
    assert batch == (noted, noted)
    assert streams.notes == ["enter side", "make", "leave side", "wait for side", "record", "record"]
