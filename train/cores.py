"""How many cores this process may use, which under SLURM or in a container are fewer than the machine has."""

import os


def cores(shared_by: int = 1) -> int:
    """Each one's part of them when ``shared_by`` processes share them, at least 1."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, mine // shared_by)
