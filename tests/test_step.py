"""The gradient of a step: accumulated, it is the mean over micro-batches; nothing waits for the device."""

import pytest
import torch
from torch import Tensor, nn

from lars import LARS
from tests.helpers import connected, difference, gradients
from train.data.loader import MicroBatch
from train.resnet import resnet8


def accumulated(model: nn.Module, micro_batches: list[MicroBatch]) -> list[Tensor]:
    """The gradients with which the app's own step moves the weights; here it moves them by nothing."""
    connected(model, len(micro_batches))(micro_batches, lr=0.0)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_the_accumulated_gradient_is_the_mean_of_the_micro_batches_one_by_one(model, micro_batches):
    model.train()
    one_by_one = [gradients(model, *batch) for batch in micro_batches]
    mean = [sum(of_each) / len(micro_batches) for of_each in zip(*one_by_one, strict=True)]
    # the step takes the loss of float32 logits
    assert difference(accumulated(model, micro_batches), mean) < 1e-6
    # BatchNorm saw the micro-batches apart: one large batch is something else
    assert difference(mean, gradients(model, *map(torch.cat, zip(*micro_batches, strict=True)))) > 0.1


def test_with_batchnorm_in_evaluation_mode_it_is_that_of_one_large_batch(model, micro_batches):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # a step sets the model to training mode
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
