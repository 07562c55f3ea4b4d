"""Run the experiments on fractals that the report shows; finished ones are not run again.

Usage: python scripts/experiments.py [rows] [lr] [best] [recipes] [resnet50]    (all, in this order, when none is named)
       python scripts/experiments.py rows/32k-lars lr/32k     only those runs whose names begin so

``rows``  the four presets with LARS and with linearly scaled SGD, 90 epochs, seeds 0 to 2;
``lr``    seven learning rates over three decades, smallest and largest batch, both optimizers, 30 epochs, seed 0;
``best``  both optimizers at the largest batch and the three best learning rates of ``lr``, 90 epochs, seeds 3 to 5;
``recipes``  each recipe of others at every batch that it publishes, 10 epochs, seed 0: that it runs, no more;
``resnet50``  the network of the ImageNet rows at the smallest and the largest batch, 30 epochs, seed 0.

Each run's configuration, rows and result are filed under ``results/fractals/<experiment>/<run>``. Stopped with Ctrl-C
and started again, it goes on where it was. All of them take some twelve hours on two cores, a run on each. What a
run says goes to ``runs/experiments/<run>.out``.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from scripts.reporting.records import FRACTALS as RECORDS  # noqa: E402
from scripts.reporting.records import csv_text, file_run  # noqa: E402
from train.cores import cores  # noqa: E402
from train.errors import Diverged  # noqa: E402

RUNS = Path("runs", "experiments")  # in the checkout, so that records name no folder of a machine

OPTIMIZERS = ("lars", "sgd")
# lr of the rows at the smallest and the largest batch, on fractals: the middle of each grid
MIDDLE = {("256", "lars"): 2.26, ("256", "sgd"): 0.025, ("32k", "lars"): 29.0, ("32k", "sgd"): 3.2}
DECADES = (-1.5, -0.75, -0.25, 0.0, 0.25, 0.75, 1.5)
BEST = 3  # one seed after a third of the epochs says no more than which rates are worth all of them
# of others, and the batches that they publish
RECIPES = {
    "paper": ("256", "8k", "16k", "32k"),
    "nus": ("4k", "8k", "16k", "32k"),
    "mlperf": ("4k", "8k", "16k", "32k", "48k", "64k"),
    "goyal": ("256", "4k", "8k"),
    "nesterov": ("256", "4k", "32k"),
}


@dataclass(frozen=True)
class Experiment:
    """One run: the experiment it belongs to, its name there, and what it overrides."""

    group: str
    name: str
    overrides: tuple[str, ...]

    @property
    def record(self) -> Path:
        return RECORDS / self.group / self.name

    @property
    def folder(self) -> Path:
        """Where it runs, one per name, from the checkout."""
        return RUNS / f"{self.group}-{self.name}"

    @property
    def output(self) -> Path:
        """What it says; a name may hold a dot, so that this is no suffix to be replaced."""
        return RUNS / f"{self.folder.name}.out"

    @property
    def is_done(self) -> bool:
        return any((self.record / name).exists() for name in ("result.json", "diverged"))


def rows() -> Iterator[Experiment]:
    for seed in range(3):
        for preset in ("32k", "256", "8k", "16k"):
            for optimizer in OPTIMIZERS:
                chosen = (f"batch={preset}", f"optimizer={optimizer}", f"seed={seed}")
                yield Experiment("rows", f"{preset}-{optimizer}-seed{seed}", chosen)


def learning_rates(preset: str, optimizer: str) -> list[float]:
    return [float(f"{MIDDLE[preset, optimizer] * 10**decade:.3g}") for decade in DECADES]


def lr() -> Iterator[Experiment]:
    for preset in ("32k", "256"):
        for optimizer in OPTIMIZERS:
            for rate in learning_rates(preset, optimizer):
                yield at_lr(preset, optimizer, rate)


def at_lr(preset: str, optimizer: str, rate: float) -> Experiment:
    chosen = (f"batch={preset}", f"optimizer={optimizer}", f"optimizer.lr={rate}", "epochs=30")
    return Experiment("lr", f"{preset}-{optimizer}-lr{rate:g}", chosen)


def best() -> Iterator[Experiment]:
    if lacking := [e.name for e in lr() if e.name.startswith("32k") and not e.is_done]:
        sys.exit(f"experiments: best needs lr/{lacking[0]} first")
    for seed in range(3, 6):
        for optimizer in OPTIMIZERS:
            for rate in best_lrs("32k", optimizer):
                chosen = ("batch=32k", f"optimizer={optimizer}", f"optimizer.lr={rate}", f"seed={seed}")
                yield Experiment("best", f"32k-{optimizer}-lr{rate:g}-seed{seed}", chosen)


def best_lrs(preset: str, optimizer: str) -> list[float]:
    """The learning rates of ``lr`` whose runs ended with the highest top-1, the best first."""
    ends = {}
    for rate in learning_rates(preset, optimizer):
        result = at_lr(preset, optimizer, rate).record / "result.json"
        if result.exists():
            ends[rate] = json.loads(result.read_text())["last_top1"]
    return sorted(ends, key=lambda rate: -ends[rate])[:BEST]


def recipes() -> Iterator[Experiment]:
    for recipe, presets in RECIPES.items():
        for preset in presets:
            chosen = (f"recipe={recipe}", f"batch={preset}", "epochs=10")
            yield Experiment("recipes", f"{recipe}-{preset}", chosen)


def resnet50() -> Iterator[Experiment]:
    for preset in ("32k", "256"):
        yield Experiment("resnet50", preset, ("model=resnet50", f"batch={preset}", "epochs=30"))


GROUPS = {"rows": rows, "lr": lr, "best": best, "recipes": recipes, "resnet50": resnet50}


def run(experiment: Experiment, threads: int) -> int:
    """Run it, or go on with it, and file its record; the app's exit code."""
    folder = ROOT / experiment.folder
    command = [sys.executable, str(ROOT / "train" / "main.py"), *experiment.overrides]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (ROOT / experiment.output).open("a") as said:
        done = subprocess.run(
            [*command, f"runs_dir={RUNS}", f"name={folder.name}"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    if done.returncode not in (0, Diverged.exit_code):
        return done.returncode
    file_run(folder, experiment.record)
    if text := csv_text(layers(folder / "tb")):
        (experiment.record / "layers.csv").write_text(text)
    return 0


def layers(board: Path) -> list[dict[str, object]]:
    """Trust ratio, weight norm and gradient norm of every layer whenever a LARS run logged them, by images seen."""
    events = EventAccumulator(str(board), size_guidance={"scalars": 0})
    events.Reload()
    found: dict[tuple[int, str], dict[str, object]] = {}
    for kind in ("trust_ratio", "weight_norm", "gradient_norm"):
        for tag in (tag for tag in events.Tags()["scalars"] if tag.startswith(f"{kind}/")):
            layer = tag.partition("/")[2]
            for event in events.Scalars(tag):
                row = found.setdefault((event.step, layer), {"images": event.step, "layer": layer})
                row[kind] = f"{event.value:.6g}"
    return list(found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chosen", nargs="*", metavar="group[/name]", help=f"{', '.join(GROUPS)}; by default all")
    parser.add_argument("--at-once", type=int, default=cores(), help="runs side by side; by default one a core")
    arguments = parser.parse_args()
    chosen = [text.partition("/")[::2] for text in arguments.chosen or GROUPS]
    if unknown := {group for group, _ in chosen} - set(GROUPS):
        parser.error(f"no experiment {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
    if arguments.at_once < 1:
        parser.error(f"--at-once {arguments.at_once}: at least 1")
    threads = cores(shared_by=arguments.at_once)
    pool = ThreadPoolExecutor(arguments.at_once)
    try:
        for group, name in chosen:
            experiments = [e for e in GROUPS[group]() if e.name.startswith(name)]
            if not experiments:
                parser.error(f"no run of {group} begins with {name}")
            running = {pool.submit(run, e, threads): e for e in experiments if not e.is_done}
            for done in tqdm(as_completed(running), desc=group, total=len(running)):
                if code := done.result():
                    failed = running[done]
                    print(f"experiments: {failed.folder.name} ended with {code}: see {failed.output}", file=sys.stderr)
                    return code
        return 0
    except KeyboardInterrupt:
        return 130
    finally:  # what runs has had the same signal and saves
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
