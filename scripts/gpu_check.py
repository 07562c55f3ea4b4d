"""Check on one NVIDIA GPU what this project promises of GPUs, without ImageNet and without a network.

Usage: python scripts/gpu_check.py              all parts, some 30 minutes
       python scripts/gpu_check.py 1 3          parts 1 and 3

 1  three steps of each recipe are the same on CPU and GPU
 2  no call of a training step waits for the device
 3  images/s of the bare step, eager and compiled, at 32 to 256 images; the step of LARS, of SGD, of timm's Lars
 4  the loader at 4 to 16 workers
 5  the app from JPEG files against the bare step
 6  batch=32k on fractals against the same row's seeds on CPUs
 7  a group of one process over NCCL and one of two that share the GPU against one process
 8  stop and resume, compile with resume and a moving average, images that grow

It prints a line for each claim and ends in a table: held, did not hold, could not be tried. The figures go to
``results/gpu``. The exit code is 1 when something did not hold, and 2 where there is no NVIDIA GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.errors import UserError, print_error

if TYPE_CHECKING:
    from scripts.gpu.claims import Claim, Machine

ROOT = Path(__file__).parents[1]


def check(machine: Machine, wanted: list[int]) -> Iterator[Claim]:
    """The claims of the ``wanted`` parts, one after the other; an error ends its part and counts as not held."""
    from scripts.gpu import optimizers, runs, steps
    from scripts.gpu.claims import FAILED, Claim

    parts = {
        1: [steps.same_on_both], 2: [steps.nothing_waits], 3: [steps.speeds, optimizers.optimizers], 4: [runs.loader],
        5: [runs.end_to_end], 6: [runs.row_of_the_table], 7: [runs.groups], 8: [runs.stops],
    }  # fmt: skip
    for part in chain.from_iterable(parts[number] for number in wanted):
        try:
            yield from part(machine)
        except (RuntimeError, OSError, ValueError, AssertionError, subprocess.TimeoutExpired) as error:
            traceback.print_exc()
            words = " ".join(str(error).split())[:200]
            yield Claim(f"{part.__name__} runs to its end", FAILED, f"{type(error).__name__}: {words}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", type=int, metavar="PART", help="1 to 8; by default all")
    parser.add_argument("--toy", action="store_true", help="try these checks themselves, tiny, on the CPU; no record")
    arguments = parser.parse_args()
    wanted = arguments.parts or list(range(1, 9))
    if not set(wanted) <= set(range(1, 9)):
        parser.error(f"parts are 1 to 8, not {wanted}")
    import torch

    if not (arguments.toy or torch.cuda.is_available()):
        return print_error(UserError("torch finds no NVIDIA GPU here: run this where it finds one, or give --toy"))
    from scripts.gpu import claims

    found, began = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        device, sizes = ("cpu", claims.TOY) if arguments.toy else ("cuda", claims.GPU)
        for claim in check(claims.Machine(device, sizes, Path(folder)), wanted):
            found.append(claim)
            print(f"{time.monotonic() - began:5.0f} s  {claim.outcome:20}{claim.sentence}: {claim.why}", flush=True)
    print(f"\n{claims.table(found)}")
    if not arguments.toy:
        print(f"\n{record(found)}")
    return int(any(claim.outcome == claims.FAILED for claim in found))


def record(found: list[Claim]) -> Path:
    """Write what was found under results/gpu, with what it was found on."""
    from train.output import environment

    hardware = environment.hardware(1)
    name = hardware["gpus"][0].lower().replace(" ", "-")
    path = ROOT / "results" / "gpu" / f"{name}-{datetime.date.today()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {
        "command": f"python scripts/gpu_check.py {' '.join(sys.argv[1:])}".strip(),
        "hardware": hardware, "versions": environment.versions(), "commit": environment.commit(),
        "claims": [asdict(claim) for claim in found],
    }  # fmt: skip
    path.write_text(json.dumps(whole, indent=2) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
