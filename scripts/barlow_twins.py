"""Self-supervised learning with LARS, from start to end: Barlow Twins on fractals, and a linear probe.

Usage: python scripts/barlow_twins.py

Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230) with a ResNet-8 on images of 16 pixels, by LarsSGD as the authors
use LARS, by SGD and by Adam. Each has four learning rates, a factor of 3 apart; the best on ``val`` by the probe gets
three seeds, scored once on ``report``. As found at da8e9cd (torch 2.14.1, one thread of an Intel Xeon with AVX512)::

    LarsSGD  22.1 +- 0.8   lr 3.6    on val 0.15: 11.8, 0.4: 18.2, 1.2: 22.0, 3.6: 22.5
    SGD      25.6 +- 1.1   lr 0.03   on val 0.01: 21.4, 0.03: 24.2, 0.1: 23.0, 0.3: 20.5
    Adam     20.1 +- 2.0   lr 0.01   on val 3e-4: 6.6, 1e-3: 8.2, 3e-3: 13.6, 0.01: 17.2

SGD is ahead; LarsSGD and Adam are best at the highest of their four. 120 steps leave all encoders far from trained.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from lars import LarsSGD, split_parameters
from train.config.compose import compose
from train.data import fractals
from train.resnet import resnet8

EPOCHS, BATCH, PER_CLASS = 6, 512, 160
WARM_UP = 0.1  # of all steps
LAMBDA, DECAY = 0.0051, 1e-6  # the authors' main.py
Split = tuple[Tensor, Tensor]  # images N,3,H,W in [-1, 1], and labels


def load(name: str) -> Split:
    config = compose("data=fractals").data
    assert isinstance(config, fractals.Config)
    pixels, labels = map(torch.from_numpy, fractals.read(fractals.provide(config) / name, config.size))
    keep = torch.cat([(labels == c).nonzero()[:PER_CLASS, 0] for c in range(config.classes)])
    return pixels[keep].permute(0, 3, 1, 2) / 127.5 - 1, labels[keep]


def view(x: Tensor) -> Tensor:
    """A random crop of 30 to 100 % of each image's area, flipped or not, with its contrast and colours changed."""
    n, zero = len(x), torch.zeros(len(x))
    side, flip = torch.empty(n).uniform_(0.3, 1).sqrt(), torch.randint(2, (n,)) * 2 - 1
    shift = (2 * torch.rand(n, 2) - 1) * (1 - side[:, None])
    rows = torch.stack([side * flip, zero, shift[:, 0], zero, side, shift[:, 1]], dim=1).view(n, 2, 3)
    crop = F.grid_sample(x, F.affine_grid(rows, list(x.shape), align_corners=False), align_corners=False)
    return crop * torch.empty(n, 3, 1, 1).uniform_(0.5, 1.5) + torch.empty(n, 3, 1, 1).uniform_(-0.3, 0.3)


def barlow_loss(a: Tensor, b: Tensor) -> Tensor:
    """The cross-correlation of two batches N,D should be the identity (equation 1)."""
    a, b = ((z - z.mean(0)) / z.std(0) for z in (a, b))
    c = a.T @ b / len(a)
    on = torch.diagonal(c)
    return (on - 1).square().sum() + LAMBDA * (c.square().sum() - on.square().sum())


def by_lars(net: nn.Module, lr: float) -> Optimizer:
    """The authors' form: |g + wd w| below the line; biases and norm layers plain, at 0.024 of the lr."""
    weights, rest = split_parameters(net, DECAY)
    return LarsSGD([weights, {**rest, "lr": 0.024 * lr}], lr=lr, momentum=0.9, ratio="decayed", eps=0.0)


# each with its learning rates; LarsSGD's are around the authors' 0.2 x batch / 256
MAKERS: dict[str, tuple[Callable[[nn.Module, float], Optimizer], list[float]]] = {
    "LarsSGD": (by_lars, [0.15, 0.4, 1.2, 3.6]),
    "SGD": (lambda net, lr: torch.optim.SGD(split_parameters(net, DECAY), lr=lr, momentum=0.9), [0.01, 0.03, 0.1, 0.3]),
    "Adam": (lambda net, lr: torch.optim.Adam(split_parameters(net, DECAY), lr=lr), [3e-4, 1e-3, 3e-3, 1e-2]),
}


def train(make: Callable[[nn.Module, float], Optimizer], lr: float, images: Tensor, seed: int) -> nn.Module:
    """An encoder of 64 features, trained without labels; lr rises over ``WARM_UP`` and falls by a cosine."""
    torch.manual_seed(seed)
    encoder = resnet8(1)
    encoder.fc = nn.Identity()
    projector = [nn.Linear(64, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256, bias=False)]
    net = nn.Sequential(encoder, *projector)
    optimizer = make(net, lr)
    peaks = [group["lr"] for group in optimizer.param_groups]
    steps = len(images) // BATCH * EPOCHS
    for step in range(steps):
        if step % (steps // EPOCHS) == 0:
            batches = iter(torch.randperm(len(images)).split(BATCH))
        done = (step + 1) / steps
        factor = done / WARM_UP if done < WARM_UP else (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        x = images[next(batches)]
        optimizer.zero_grad()
        barlow_loss(net(view(x)), net(view(x))).backward()
        optimizer.step()
    return encoder.eval()


@torch.no_grad()
def probe(encoder: nn.Module, known: Split, asked: Split) -> float:
    """Top-1 in percent of a linear classifier on the frozen features: ridge regression, fitted to ``known``."""
    x, y = (torch.cat([encoder(part) for part in split[0].split(2048)]) for split in (known, asked))
    x, y = (F.pad((z - x.mean(0)) / (x.std(0) + 1e-6), (0, 1), value=1.0) for z in (x, y))
    weights = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]), x.T @ F.one_hot(known[1]).float())
    return 100 * ((y @ weights).argmax(1) == asked[1]).float().mean().item()


def main() -> None:
    known, selection, report = map(load, fractals.SPLITS)
    for name, (make, lrs) in MAKERS.items():
        tried = {lr: probe(train(make, lr, known[0], seed=0), known, selection) for lr in lrs}
        best = max(lrs, key=lambda lr: tried[lr])
        scores = [probe(train(make, best, known[0], seed), known, report) for seed in (1, 2, 3)]
        print(name, "val:", ", ".join(f"lr {lr:g} {top1:.2f}" for lr, top1 in tried.items()))
        print(f"{name} lr {best:g}, report: {mean(scores):.2f} +- {stdev(scores):.2f}", scores, flush=True)


if __name__ == "__main__":
    main()
