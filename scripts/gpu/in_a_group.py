"""The app in a process group that it would not form by itself: ``torchrun ... in_a_group.py BACKEND OVERRIDES``.

A single process in DDP, or several that share one GPU, for which the backend must be gloo.
"""

import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch.distributed as dist

from train.processes.world import World

if __name__ == "__main__":
    backend = sys.argv.pop(1)
    os.environ["LOCAL_RANK"] = "0"
    form = dist.init_process_group
    dist.init_process_group = lambda _, **options: form(backend, **options)
    World.data_parallel = World.in_ddp  # type: ignore[method-assign]
    runpy.run_path(str(Path(__file__).parents[2] / "train" / "main.py"), run_name="__main__")
