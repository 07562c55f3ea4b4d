"""The gradient of a step: accumulated, it is the mean over micro-batches; with fixed statistics, that of one batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.batchnorm import RunningStatistics
from train.model import resnet8
from train.step import Arithmetic, MicroBatch, train_step
from train.world import World

COUNT, SIZE, CLASSES, SMOOTHING = 4, 6, 10, 0.1


@pytest.fixture
def model() -> nn.Module:
    """A float64 ResNet-8 whose BatchNorm layers have seen something."""
    torch.manual_seed(0)
    model = resnet8(CLASSES).double()
    with torch.no_grad():
        model(3 * torch.randn(32, 3, 16, 16, dtype=torch.float64) + 1)
    return model


@pytest.fixture
def micro_batches() -> list[MicroBatch]:
    """Each brighter than the one before: their statistics differ, and so do their gradients."""
    g = torch.Generator().manual_seed(1)
    return [
        (i + torch.randn(SIZE, 3, 16, 16, generator=g, dtype=torch.float64), torch.arange(SIZE) + i)
        for i in range(COUNT)
    ]


def accumulated(model: nn.Module, micro_batches: list[MicroBatch]) -> list[Tensor]:
    """The gradients with which the app's own step moves the weights; here it moves them by nothing."""
    seen: list[Tensor] = []
    world = World()
    train_step(
        model, torch.optim.SGD(model.parameters(), lr=0.0), micro_batches, COUNT, RunningStatistics(model, world),
        world, Arithmetic(world.device), lr=0.0, smoothing=SMOOTHING,
        watch=lambda loss: seen.extend(p.grad.clone() for p in model.parameters() if p.grad is not None),
    )  # fmt: skip
    return seen


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Of the mean loss over these images, wholly in float64."""
    loss = F.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)
    return torch.autograd.grad(loss, list(model.parameters()))


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).norm() / y.norm()) for x, y in zip(a, b, strict=True))


def test_the_accumulated_gradient_is_the_mean_of_the_micro_batches_one_by_one(model, micro_batches):
    model.train()
    one_by_one = [gradients(model, *batch) for batch in micro_batches]
    mean = [sum(of_each) / COUNT for of_each in zip(*one_by_one, strict=True)]
    # the step takes the loss of float32 logits
    assert difference(accumulated(model, micro_batches), mean) < 1e-6
    # BatchNorm saw the micro-batches apart: one large batch is something else
    assert difference(mean, gradients(model, *map(torch.cat, zip(*micro_batches, strict=True)))) > 0.1


def test_with_batchnorm_in_evaluation_mode_it_is_that_of_one_large_batch(model, micro_batches):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # train_step turns the model to training
            module.train = lambda mode=True, module=module: nn.Module.train(module, False)
    model.eval()
    large = gradients(model, *map(torch.cat, zip(*micro_batches, strict=True)))
    assert difference(accumulated(model, micro_batches), large) < 1e-6
