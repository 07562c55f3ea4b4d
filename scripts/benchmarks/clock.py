"""The clock of the benchmarks, which stops when the device has computed what it was given."""

import time

import torch


def now() -> float:
    """Seconds, once the GPU of this process has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
