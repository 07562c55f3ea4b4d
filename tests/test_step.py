"""The gradient of a step: accumulated, it is the mean over micro-batches; nothing waits for the device."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from lars import LARS
from train.data.loader import MicroBatch
from train.engine.batchnorm import RunningStatistics
from train.engine.precision import Precision
from train.engine.step import Step
from train.engine.stop import StopVotes
from train.processes.world import World
from train.resnet import resnet8

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


def connected(
    model: nn.Module, count: int, device: str = "cpu", optimizer: Optimizer | None = None, **statistics: Any
) -> Step:
    """A step of ``count`` micro-batches; without an ``optimizer`` it is SGD's."""
    world, precision = World(), Precision(torch.device(device))
    return Step(
        model=model,
        optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.0),
        statistics=RunningStatistics(model, world, count),
        votes=StopVotes(world, lambda: False, count),
        world=world,
        precision=precision,
        label_smoothing=SMOOTHING,
        micro_batches=count,
        scaler=precision.scaler(),
        **statistics,
    )


def accumulated(model: nn.Module, micro_batches: list[MicroBatch]) -> list[Tensor]:
    """The gradients with which the app's own step moves the weights; here it moves them by nothing."""
    connected(model, COUNT)(micro_batches, lr=0.0)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


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


def test_a_training_step_never_waits_for_the_device():
    """Meta tensors have no values, as a GPU's are not there yet: whatever would read one on the host raises."""
    device = torch.device("meta")
    with device:
        model = resnet8(num_classes=64)
        images, labels = torch.empty(8, 3, 32, 32), torch.empty(8, dtype=torch.int64)
    optimizer = LARS(torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4))
    step = connected(model, 2, "meta", optimizer)
    for _ in range(2):
        loss = step([(images, labels)] * 2, lr=1.0)
    assert loss.device == device
    with pytest.raises(RuntimeError):
        loss.item()
