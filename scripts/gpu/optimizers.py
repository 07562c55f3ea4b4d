"""The step of LARS over ResNet-50's tensors: its numbers, its time, its kernels, beside SGD's and timm's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from lars import LARS, split_parameters
from scripts.benchmarks.clock import now
from scripts.gpu.claims import UNTRIED, Claim, Machine, judged
from scripts.gpu.steps import kernels, relative

Made = tuple[nn.Module, torch.optim.Optimizer]
DECAY = 1e-4
PASSES = {"SGD": 5, "LARS": 13, "timm": 15}  # reads and writes of all parameters (lars/update.py), by the first letters
OFF = 1e-5  # of float64, after three steps


def sgd(params: Any, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(params, lr=1.0, momentum=0.9, weight_decay=DECAY, **options)


MAKERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD, fused": lambda net: sgd(net.parameters(), fused=True),
    "SGD, foreach": lambda net: sgd(net.parameters(), foreach=True),
    "LARS": lambda net: LARS(sgd(net.parameters())),
    "LARS, caffe": lambda net: LARS(sgd(net.parameters()), momentum_form="caffe"),
    "LARS, nus": lambda net: LARS(sgd(split_parameters(net, DECAY)), momentum_form="nus", max_ratio=50, clamp=10),
}


def made(make: Callable[[nn.Module], torch.optim.Optimizer], device: str, dtype: torch.dtype, is_toy: bool) -> Made:
    """An optimizer over a network with gradients; the same numbers on every device and in every dtype."""
    from torchvision.models import resnet50

    from train.resnet import resnet8

    torch.manual_seed(0)
    net = (resnet8(10) if is_toy else resnet50()).to(memory_format=torch.channels_last).to(device, dtype)
    torch.manual_seed(1)
    for p in net.parameters():
        p.grad = torch.empty_like(p).copy_(1e-3 * torch.randn(p.shape))
    return net, make(net)


def copy_bandwidth(machine: Machine) -> float:
    """Bytes a second that a copy within the device's memory reads and writes."""
    source = torch.empty(2**20 if machine.sizes.is_toy else 2**30, dtype=torch.uint8, device=machine.device)
    target = torch.empty_like(source)
    target.copy_(source)
    began = now()
    for _ in range(10):
        target.copy_(source)
    return 2 * 10 * source.numel() / (now() - began)


def optimizers(machine: Machine) -> Iterator[Claim]:
    makers = dict(MAKERS)
    with contextlib.suppress(ImportError):
        from timm.optim import Lars

        makers["timm's Lars"] = lambda net: Lars(net.parameters(), lr=1.0, momentum=0.9, weight_decay=DECAY)
    bandwidth, toy = copy_bandwidth(machine), machine.sizes.is_toy
    for name, make in makers.items():
        net, optimizer = made(make, machine.device, torch.float32, toy)
        exact_net, exact = made(make, "cpu", torch.float64, toy)
        for _ in range(3):
            optimizer.step()
            exact.step()
        off = relative([p.detach() for p in net.parameters()], [p.detach() for p in exact_net.parameters()])
        began = now()
        for _ in range(machine.sizes.optimizer_steps):
            optimizer.step()
        seconds = (now() - began) / machine.sizes.optimizer_steps
        size = sum(p.nbytes for p in net.parameters())
        launched = sum(kernels(machine, optimizer.step).values())
        passes = next(count for letters, count in PASSES.items() if name.startswith(letters))
        share = passes * size / seconds / bandwidth
        yield judged(
            f"a step of {name} has the numbers of float64",
            off < OFF,
            f"off by {off:.0e}; {1e6 * seconds:,.0f} us, {launched or 'uncounted'} kernels; its {passes} N at "
            f"{share:.0%} of a copy's bandwidth",
            off=off, microseconds=1e6 * seconds, kernels=launched, copy_bandwidth=bandwidth, bytes_of_n=size,
        )  # fmt: skip
    if "timm's Lars" not in makers:
        yield Claim("a step of timm's Lars has the numbers of float64", UNTRIED, "timm is not installed")
