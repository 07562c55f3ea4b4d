"""The most confident mistakes, over all batches and ranks."""

from unittest import mock

import pytest
import torch

from train.engine.mistakes import COUNT, Mistakes
from train.processes.world import World


def batches(count: int, classes: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [
        (torch.full((n, 3, 2, 2), 100.0 * i) + torch.arange(n).view(-1, 1, 1, 1),
         torch.randint(classes, (n,), generator=g), 3 * torch.randn(n, classes, generator=g))
        for i, n in enumerate([50, 3, 40, 27][:count])
    ]  # fmt: skip


def test_mistakes_are_the_surest_wrong_ones_over_all_batches_and_ranks():
    scored = batches(4, 5)
    expected = sorted(
        (
            (probabilities.max().item(), int(label), int(probabilities.argmax()), image[0, 0, 0].item())
            for images, labels, logits in scored
            for image, label, probabilities in zip(images, labels, logits.double().softmax(1), strict=True)
            if probabilities.argmax() != label
        ),
        reverse=True,
    )[:COUNT]
    ranks = [Mistakes() for _ in range(3)]  # the last one gets no images
    for i, batch in enumerate(scored):
        ranks[i % 2].add(*batch)
    shares = [rank._kept for rank in ranks]
    with mock.patch.object(World, "gather", lambda self, value: [value, *shares[1:]]):
        worst = ranks[0].worst(World())
    found = list(zip(*(v.tolist() for v in worst[:3]), worst[3][:, 0, 0, 0].tolist(), strict=True))
    assert [f[1:] for f in found] == [e[1:] for e in expected]
    assert [f[0] for f in found] == pytest.approx([e[0] for e in expected])
    said = worst.captions(["zero", "one", "two", "three", "four"])
    assert said[0].startswith("true: ") and "\npredicted: " in said[0] and said[0].endswith("%")


def test_a_network_that_makes_no_mistake_has_none():
    labels = torch.tensor([0, 1])
    mistakes = Mistakes()
    mistakes.add(torch.zeros(2, 3, 2, 2), labels, 9 * torch.nn.functional.one_hot(labels).float())
    assert [len(v) for v in mistakes.worst(World())] == [0, 0, 0, 0]
