"""The conditions of a run, for its ``result.json``: versions, hardware and commits."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from train.cores import cores

PACKAGES = ("torch", "torchvision", "hydra-core", "numpy", "pillow", "tensorboard")


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def hardware(processes: int) -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
        "processes": processes,
        "threads": torch.get_num_threads(),  # of each
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def conditions(processes: int, command: str, commits: list[str | None]) -> dict[str, Any]:
    """What a record says of how its run was made; ``commits`` are those that trained it, the first start's first."""
    return {
        "versions": versions(),
        "hardware": hardware(processes),
        "command": command,
        "commit": commits[0],
        "resumed_by": commits[1:],
    }


def with_commit(commits: list[str | None], now: str | None) -> list[str | None]:
    """``commits`` that trained a run so far, and ``now`` of this start where it is another one."""
    return commits if commits and commits[-1] == now else [*commits, now]


def commit() -> str | None:
    """The commit of the running code, with ``-dirty`` if it was changed; None outside a git checkout.

    ``scripts`` counts as code: every benchmark and the list of experiments are there.
    """
    here = Path(__file__).parent
    try:
        # an installed copy may be inside a checkout that is not its own
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, check=True)
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changes = ["git", "status", "--porcelain", "--", "lars", "train", "configs", "scripts"]
        status = subprocess.run(changes, cwd=here.parents[1], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-dirty" if status.stdout.strip() else "")
