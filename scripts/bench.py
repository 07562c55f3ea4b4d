"""Measure this project against others and itself, interleaved, and save the figures.

Usage: python scripts/bench.py train        the app's images/s against a bare loop on the same tensors
       python scripts/bench.py peers        images/s and memory of this app, timm's script, torchvision's; a bare step
       python scripts/bench.py optimizer    a step over ResNet-50's 161 tensors: SGD, LARS by each path, timm's Lars
       python scripts/bench.py data         images/s of the input pipeline against torchvision's reference and DALI
       python scripts/bench.py seams        how long training waits at the ends of an epoch and of its evaluation
       python scripts/bench.py index        the index of 1,331,167 images: time to make and to open it, memory
       python scripts/bench.py checkpoint   images/s with and without checkpoints, how long a step is held
       python scripts/bench.py noise        what noise_scale=true adds to a step of ResNet-50 and of ResNet-8
       python scripts/bench.py plan         images/s on one and two gloo processes of a core, against what plan.py says
Each writes results/benchmarks/<name>.json and prints a table. Let nothing else run meanwhile. A checkout with changes
that are not committed is refused: nobody could repeat its figures.
"""

import argparse
import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.benchmarks.figures import clean_commit
from scripts.command import exit_with

# module under scripts/benchmarks, and how many counted rounds by default
BENCHMARKS = {
    "train": ("training", 15),
    "peers": ("peers", 5),
    "optimizer": ("optimizer", 150),
    "data": ("data", 7),
    "seams": ("seams", 7),
    "index": ("index", 3),
    "checkpoint": ("checkpoint", 4),
    "noise": ("noise", 5),
    "plan": ("planning", 5),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=BENCHMARKS)
    parser.add_argument("--rounds", type=int, help="counted rounds of each, in turn")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: at least 1")
    clean_commit()  # before anything is measured
    module, rounds = BENCHMARKS[arguments.what]
    importlib.import_module(f"scripts.benchmarks.{module}").measure(arguments.rounds or rounds)
    return 0


if __name__ == "__main__":
    exit_with(main)
