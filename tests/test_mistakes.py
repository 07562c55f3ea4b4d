"""The most confident mistakes, over all batches and ranks, and the bytes that it takes to find them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.helpers import join, spawn
from train.engine.mistakes import COUNT, Mistakes
from train.processes.world import World

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def batches(count: int, classes: int) -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    return [
        (torch.full((n, 3, 2, 2), 50.0 * i) + torch.arange(n).view(-1, 1, 1, 1),
         torch.randint(classes, (n,), generator=g), 3 * torch.randn(n, classes, generator=g))
        for i, n in enumerate([50, 3, 40, 27][:count])
    ]  # fmt: skip


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 2, 3, 1).byte()


def find(rank: int, size: int, port: int, out: Path) -> None:
    """Ranks 1 and 2 see the batches in turn, the chief sees none."""
    world = join(rank, size, port)
    mistakes = Mistakes()
    for i, batch in enumerate(batches(4, 5)):
        if rank == 1 + i % 2:
            mistakes.add(*batch)
    worst = mistakes.worst(world, pixels)
    assert (worst is not None) == world.is_chief
    torch.save(tuple(worst) if worst else None, out / f"{rank}.pt")
    world.leave()


def test_mistakes_are_the_surest_wrong_ones_over_all_batches_and_ranks(tmp_path: Path):
    expected = sorted(
        (
            (probabilities.max().item(), int(label), int(probabilities.argmax()), image[0, 0, 0].item())
            for images, labels, logits in batches(4, 5)
            for image, label, probabilities in zip(images, labels, logits.double().softmax(1), strict=True)
            if probabilities.argmax() != label
        ),
        reverse=True,
    )[:COUNT]
    spawn(find, 3, tmp_path)
    alone = Mistakes()
    for batch in batches(4, 5):
        alone.add(*batch)
    for worst in (torch.load(tmp_path / "0.pt"), alone.worst(World(), pixels)):
        found = list(zip(*(v.tolist() for v in worst[:3]), worst[3][:, 0, 0, 0].tolist(), strict=True))
        assert [f[1:] for f in found] == [e[1:] for e in expected]
        assert [f[0] for f in found] == pytest.approx([e[0] for e in expected])
        assert worst[3].dtype == torch.uint8 and worst[3].shape == (COUNT, 2, 2, 3)


def test_a_caption_names_the_true_class_and_the_predicted_one():
    mistakes = Mistakes()
    mistakes.add(torch.zeros(1, 3, 2, 2), torch.tensor([1]), torch.tensor([[3.0, 0.0]]))
    worst = mistakes.worst(World(), pixels)
    assert worst is not None and worst.captions(["zero", "one"]) == ["true: one\npredicted: zero, 95%"]


def test_a_network_that_makes_no_mistake_has_none():
    labels = torch.tensor([0, 1])
    mistakes = Mistakes()
    mistakes.add(torch.zeros(2, 3, 2, 2), labels, 9 * torch.nn.functional.one_hot(labels).float())
    assert mistakes.worst(World(), pixels) is None and Mistakes().worst(World(), pixels) is None


class Received(TorchDispatchMode):
    """A context that counts the bytes which this rank receives, by any call of torch.distributed."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d" and not function.name().startswith("c10d::send"):
            # what a call fills is its first argument
            self.bytes += sum(tensor.nbytes for tensor in tree_leaves(args[0]))
        return function(*args, **(kwargs or {}))


def weigh(rank: int, size: int, port: int, out: Path) -> None:
    """The bytes that a rank receives for the mistakes of 40 images of 224 pixels on each, all 0 or all 1."""
    world = join(rank, size, port)
    generator = torch.Generator().manual_seed(rank)
    mistakes, images = Mistakes(), torch.full((40, 3, 224, 224), float(rank))
    mistakes.add(images, torch.zeros(40, dtype=torch.int64), torch.randn(40, 9, generator=generator))
    with Received() as received:
        worst = mistakes.worst(world, pixels)
    torch.save((received.bytes, int(worst.images.sum()) if worst else 0), out / f"{rank}.pt")
    world.leave()


def test_at_512_ranks_each_would_receive_under_2_megabytes_beside_the_images_that_are_shown(tmp_path: Path):
    spawn(weigh, 2, tmp_path)
    for rank in range(2):
        received, images = torch.load(tmp_path / f"{rank}.pt")
        # only the chief shows images; those of rank 1 have as many bytes as ones
        assert bool(images) == (rank == 0) and images <= COUNT * 224 * 224 * 3
        # a rank's own share counts too
        assert 0 < 512 / 2 * (received - images) < 2e6
