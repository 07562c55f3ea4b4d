"""The kind of accelerator that this machine has, and how many; nothing here makes a context on one."""

import torch

# Kinds that can train here, and what sums their tensors over processes. Others lack float64, in which evaluations are
# summed, or a way to sum.
BACKENDS = {"cuda": "nccl", "xpu": "xccl"}


def accelerator() -> str | None:
    """``cuda`` or ``xpu`` where torch was built for it and finds one, else None."""
    found = torch.accelerator.current_accelerator()
    if found is None or found.type not in BACKENDS:
        return None
    return found.type if torch.get_device_module(found).is_available() else None


def accelerators() -> int:
    """How many of them this process may use."""
    kind = accelerator()
    return torch.get_device_module(kind).device_count() if kind else 0
