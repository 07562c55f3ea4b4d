"""Rehearse the largest row where no cluster is: ResNet-50, LARS, two steps of 32,768 images, by accumulation.

Usage: python scripts/rehearsal.py      (ten minutes on two cores)

The app reads 33,000 JPEG files of 64 pixels in 1,000 classes, made by formula, through the pipeline of ImageNet. What
it took is written to ``results/rehearsal``: the run's record, and peak memory and seconds by phase.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.records import ROOT, file_run
from train.config.compose import compose
from train.data import fractals

RECORD = ROOT / "results" / "rehearsal"
RUNS = Path("runs", "rehearsal")  # in the checkout, so that the record names no folder of a machine
IMAGES = [
    f"data.root={ROOT / RUNS / 'images'}",
    "data.classes=1000",
    "data.train_per_class=33",
    "data.val_per_class=2",
    "data.size=64",
]
RUN = ["batch=32k", "data.size=64", "data.resize=64", "epochs=2", "log.every_steps=1", "name=run"]


def phases(log: Path, whole: float) -> dict[str, float]:
    """Seconds of each step and evaluation by the run's ``log``, and what else the ``whole`` command took."""
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    # the first step has no speed in the log: the start of the process is in it
    step = (second["images"] // second["step"]) / second["images_per_second"]
    marks = {
        "step 1, evaluation 1": first["seconds"],
        "step 2": step,
        "evaluation 2": second["seconds"] - first["seconds"] - step,
        "start, index, checkpoints and weights": whole - second["seconds"],
    }
    return {name: round(seconds, 1) for name, seconds in marks.items()}


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data = compose("data=fractals", "batch.total=64", "batch.micro=64", *IMAGES).data
    assert isinstance(data, fractals.Config)
    fractals.provide(data)
    run = ROOT / RUNS / "run"
    shutil.rmtree(run, ignore_errors=True)
    overrides = [*RUN, f"data.root={RUNS / 'images'}", f"runs_dir={RUNS}"]
    began = time.time()
    done = subprocess.run([sys.executable, "train/main.py", *overrides], cwd=ROOT)
    if done.returncode:
        return done.returncode
    took = phases(run / "log.jsonl", time.time() - began)
    file_run(run, RECORD)
    # of the largest of its processes, which is the one that trains
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    figures = {"seconds": took, "peak_resident_mib": round(peak / 1024)}
    (RECORD / "phases.json").write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
