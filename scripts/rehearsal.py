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

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from scripts.reporting.records import file_run  # noqa: E402
from train.config import FractalsConfig  # noqa: E402
from train.data import fractals  # noqa: E402
from train.main import composed  # noqa: E402

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


def phases(board: Path, began: float, ended: float) -> dict[str, float]:
    """Seconds until training begins with its first step, of the second step, and of the rest, by the event file."""
    events = EventAccumulator(str(board), size_guidance={"scalars": 0})
    events.Reload()
    steps = [event.wall_time for event in events.Scalars("train/loss")]
    rows = [event.wall_time for event in events.Scalars("validation/top1")]
    marks = {
        "start, index and step 1": steps[0] - began,
        "evaluation 1": rows[0] - steps[0],
        "step 2": steps[1] - rows[0],
        "evaluation 2": rows[1] - steps[1],
        "last checkpoint and weights": ended - rows[1],
    }
    return {name: round(seconds, 1) for name, seconds in marks.items()}


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data = composed("data=fractals", "batch.total=64", "batch.micro=64", *IMAGES).data
    assert isinstance(data, FractalsConfig)
    fractals.provide(data)
    run = ROOT / RUNS / "run"
    shutil.rmtree(run, ignore_errors=True)
    overrides = [*RUN, f"data.root={RUNS / 'images'}", f"runs_dir={RUNS}"]
    began = time.time()
    done = subprocess.run([sys.executable, "train/main.py", *overrides], cwd=ROOT)
    if done.returncode:
        return done.returncode
    took = phases(run / "tb", began, time.time())
    file_run(run, RECORD)
    # of the largest of its processes, which is the one that trains
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    figures = {"seconds": took, "peak_resident_mib": round(peak / 1024)}
    (RECORD / "phases.json").write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
