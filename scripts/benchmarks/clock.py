"""The clock of the benchmarks, which stops when the device has computed what it was given."""

import time

import torch

from train.processes.accelerator import accelerator


def now() -> float:
    """Seconds, once every accelerator of this process has nothing left to do."""
    if accelerator():
        torch.accelerator.synchronize()
    return time.perf_counter()
