"""Counts what an optimizer's step costs: calls, elements read and written, and values waited for on the host."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# these move no elements
FREE = ("as_strided", "view", "unbind", "detach", "alias", "select", "slice", "lift_fresh", "prim::device", "profiler")


class Traffic(TorchDispatchMode):
    """A context in which every call of torch is counted, as eager mode makes it.

    An element that a call reads or writes counts once. Divided by the number of parameters, ``read_and_written`` is
    the step's cost in N; a step cannot do with less than memory makes it, but a cache may serve some of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.host_reads = 0
        self.read_and_written = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        name = function.name().removeprefix("aten::").partition(".")[0]
        if name == "_local_scalar_dense":
            self.host_reads += 1
            return out
        if any(free in name for free in FREE):
            return out
        self.calls += 1
        read, written = _elements(args), _elements([out])
        if name == "_fused_sgd_":
            # weights and buffers: the schema says gradients too, but they are written only to unscale them
            written = _elements([args[0], args[2]])
        elif name.endswith("_") and written == 0:
            written = _elements(args[:1])
        if name == "dot" and args[0].data_ptr() == args[1].data_ptr():
            read //= 2
        self.read_and_written += read + written
        return out


def _elements(values: Any) -> int:
    if isinstance(values, torch.Tensor):
        return values.numel()
    return sum(_elements(v) for v in values) if isinstance(values, (list, tuple)) else 0
