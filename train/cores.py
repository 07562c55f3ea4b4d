"""The cores that a process may use: fewer than the machine has under SLURM, in a container, or beside other ranks."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROL_GROUPS, MINE, BOOT = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Allowance:
    """What one process may use."""

    machine: str  # the same for processes on one machine, in whatever containers
    mask: frozenset[int]  # the cores on which it may run
    quota: float | None  # cores' worth of time, as a container has
    group: str  # the same for processes that share a quota


def allowance() -> Allowance:
    """That of this process."""
    mask = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    host = socket.gethostname()
    machine = BOOT.read_text().strip() if BOOT.exists() else host
    return Allowance(machine, frozenset(mask), quota(), f"{host} {MINE.read_text() if MINE.exists() else ''}")


def cores_of(mine: Allowance, everyone: Sequence[Allowance]) -> int:
    """Cores for the process with ``mine``, at least 1.

    A core is shared equally by those of ``everyone`` that may run on it, and a quota by those that have it in common.
    """
    here = [other for other in everyone if other.machine == mine.machine]
    of_mask = sum(1 / sum(core in other.mask for other in here) for core in mine.mask)
    of_quota = math.inf if mine.quota is None else mine.quota / sum(other.group == mine.group for other in here)
    # three thirds are one
    return max(1, math.floor(min(of_mask, of_quota) + 1e-6))


def cores(shared_by: int = 1) -> int:
    """Cores for each of ``shared_by`` processes that may all use what this one may, at least 1."""
    return cores_of(mine := allowance(), [mine] * shared_by)


def quota(root: Path = CONTROL_GROUPS, mine: Path = MINE) -> float | None:
    """The least quota of this process's control group and those above it, of either version; None without one."""
    lines = [line.split(":", 2) for line in mine.read_text().splitlines()] if mine.exists() else []
    quotas = []
    for _, controllers, path in lines:
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.strip("/")
        # a container sees its own group as the top one
        for folder in {top, group, *(parent for parent in group.parents if parent.is_relative_to(top))}:
            quotas += _quota_in(folder)
    return min(quotas, default=None)


def _quota_in(folder: Path) -> list[float]:
    if (folder / "cpu.max").exists():
        time, period = (folder / "cpu.max").read_text().split()
    elif (folder / "cpu.cfs_quota_us").exists():
        time, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    else:
        return []
    return [] if time in ("max", "-1") else [int(time) / int(period)]
