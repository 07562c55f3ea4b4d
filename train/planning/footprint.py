"""Memory that a training step takes, found by taking one with fake tensors: shapes and types, no numbers, no GPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from train.batchnorm import RunningStatistics
from train.config import OptimizerConfig
from train.optimizer import make_optimizer
from train.step import Arithmetic, MicroBatch, train_step
from train.world import World

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Footprint:
    """Bytes of one process at the fullest moment of a step, and the operations for one image."""

    weights: int  # parameters and running statistics, float32
    gradients: int
    optimizer: int
    activations: int  # all else: images, what the backward pass needs, temporaries
    statistics: int  # BatchNorm's running means and variances, a part of the weights
    gmacs: float  # 10^9 multiply-additions of one image's forward pass

    @property
    def peak(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


class LiveBytes(TorchDispatchMode):
    """A context that counts the bytes of all tensors made in it: ``now``, and the most since ``restart``."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[int] = set()
        self.now = self.most = 0

    def restart(self) -> None:
        self.most = self.now

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        # views share it, and an operation in place returns it again
        address, size = storage._cdata, storage.nbytes()
        if address not in self._known:
            self._known.add(address)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._freed, address, size)

    def _freed(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


def footprint(
    network: Callable[[], nn.Module],
    size: int,
    optimizer: OptimizerConfig,
    *,
    micro: int,
    accumulation: int,
    dtype: torch.dtype,
    fake: bool = True,
) -> Footprint:
    """Take two steps of ``network`` on images ``micro,3,size,size`` and look at the second, where momentum is there.

    Counted is what tensors hold. A GPU's own libraries, its allocator's gaps and the images that wait for their
    turn come on top. With ``fake=False`` the same steps are really taken, on the CPU.
    """
    world, micro_batches = World(), min(accumulation, 2)
    with FakeTensorMode() if fake else nullcontext(), LiveBytes() as live:
        net = network()
        statistics = sum(b.nbytes for b in net.buffers() if b.is_floating_point())
        gradients = sum(p.nbytes for p in net.parameters())
        weights = live.now
        stepping, running = make_optimizer(net, optimizer), RunningStatistics(net, world)

        def images() -> Iterator[MicroBatch]:
            for _ in range(micro_batches):
                yield torch.zeros(micro, 3, size, size), torch.zeros(micro, dtype=torch.int64)

        for _ in range(2):
            state = live.now - weights
            live.restart()
            train_step(
                net, stepping, images(), micro_batches, running, world, Arithmetic(CPU, dtype), lr=0.0, smoothing=0.0
            )
        most = live.most
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.eval()(torch.zeros(1, 3, size, size))
    # it counts a multiplication and an addition as two
    gmacs = counter.get_total_flops() / 2e9
    return Footprint(weights, gradients, state, most - weights - gradients - state, statistics, gmacs)
