"""The device of the benchmarks, and their clock, which stops when it has computed what it was given."""

import time

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Seconds, once the GPU of this process has nothing left to do."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
