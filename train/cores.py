"""The number of cores that this process may use, which under SLURM or in a container is less than the machine has."""

import os


def cores(shared_by: int = 1) -> int:
    """Cores for each of ``shared_by`` processes, at least 1."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, mine // shared_by)
