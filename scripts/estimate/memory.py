"""The memory that a training step takes, found by taking one with fake tensors: no numbers and no GPU."""

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

from train.data.loader import MicroBatch
from train.engine.batchnorm import RunningStatistics
from train.engine.precision import Precision
from train.engine.step import Step
from train.engine.stop import StopVotes
from train.engine.variance_reduction import VarianceReduction
from train.optimizer import OptimizerConfig, make_optimizer
from train.processes.world import World

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Footprint:
    """Bytes of one process at the peak of a step, and the operations for one image."""

    weights: int  # parameters and running statistics, float32
    gradients: int
    optimizer: int
    activations: int  # everything else: images, what the backward pass needs, temporaries
    statistics: int  # BatchNorm's running means and variances, a part of the weights
    gmacs: float  # 10^9 multiply-additions of one image's forward pass
    squares: int = 0  # of the gradients' elements, which variance reduction all-reduces; a part of the optimizer

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
    """Take two steps of ``network`` on images ``micro,3,size,size`` and measure the second, which has momentum.

    Only tensors are counted. A GPU's libraries, the allocator's gaps and prefetched images come on top. With
    ``fake=False`` the same steps are really taken, on the CPU.
    """
    world, micro_batches, precision = World(), min(accumulation, 2), Precision(CPU, dtype)
    # made for real: some networks look at numbers of theirs when they are made
    net = network()
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext(), LiveBytes() as live:
        net.to_empty(device=CPU)
        statistics = sum(b.nbytes for b in net.buffers() if b.is_floating_point())
        gradients = sum(p.nbytes for p in net.parameters() if p.requires_grad)
        weights = live.now
        step = Step(
            model=net,
            optimizer=make_optimizer(net, optimizer),
            statistics=RunningStatistics(net, world),
            votes=StopVotes(world, lambda: False),
            world=world,
            precision=precision,
            label_smoothing=0.0,
            micro_batches=micro_batches,
            scaler=precision.scaler(),
            variance_reduction=VarianceReduction(net, world, None) if optimizer.variance_reduction else None,
        )

        def images() -> Iterator[MicroBatch]:
            for _ in range(micro_batches):
                yield torch.zeros(micro, 3, size, size), torch.zeros(micro, dtype=torch.int64)

        for _ in range(2):
            # the gradients of the step before are not part of the state between two steps
            step.optimizer.zero_grad(set_to_none=True)
            state = live.now - weights
            live.restart()
            step(images(), lr=0.0)
        most = live.most
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.eval()(torch.zeros(1, 3, size, size))
    # it counts a multiplication and an addition as two
    gmacs = counter.get_total_flops() / 2e9
    squares = gradients if optimizer.variance_reduction else 0
    return Footprint(weights, gradients, state, most - weights - gradients - state, statistics, gmacs, squares)
