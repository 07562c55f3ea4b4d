"""Run the experiments on fractals that the report shows; finished ones are not run again.

Usage: python scripts/experiments.py [GROUP] ...                                 (all, in this order, by default)
       python scripts/experiments.py rows/32k-lars target/64     only those runs whose names begin so

``rows``    each preset as published and with the other optimizer, 90 epochs, five seeds;
``target``  steps to 75 % top-1 at six batches, both optimizers, lr searched at each, three seeds at the best;
``tuned``   SGD, Nesterov SGD and LARS at the largest preset, six trials of lr and warm-up each or more;
``fresh``   the best of each, LARC, and LARS on weights alone, five fresh seeds;
``longer``  the best SGD and LARS for twice as many epochs, three seeds;
``noise``   a row, and runs of ``target`` at the best lr, with ``noise_scale=true``, three seeds each;
``growth``  a batch that grows from 1,024 to 4,096 images, and 4,096 throughout, five seeds;
``variance``  VR-LARS and LARS at the two largest presets, three trials of lr, five fresh seeds at the best;
``learn``  the three experiments of ``docs/learn.md``.

Each run's configuration, rows and result are filed under ``results/fractals/<group>/<run>``. Later runs depend on what
earlier ones found. Stopped with Ctrl-C and started again, it resumes. The output of a run goes to
``runs/experiments/<run>.out`` of the checkout that trains. All of them take some fifteen hours on two cores.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.command import exit_with
from scripts.matrix import GROUPS, RUNS, Experiment
from scripts.records import ROOT, file_run
from train.cores import cores
from train.errors import Diverged


def run(experiment: Experiment, checkout: Path, threads: int) -> int:
    """Run or resume it with the code of ``checkout``, and file its record here; the app's exit code."""
    folder = checkout / experiment.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (checkout / RUNS / f"{folder.name}.out").open("a") as said:
        done = subprocess.run(
            [sys.executable, "train/main.py", *experiment.overrides, f"runs_dir={RUNS}", f"name={folder.name}"],
            cwd=checkout,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(checkout)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    if done.returncode not in (0, Diverged.exit_code):
        return done.returncode
    file_run(folder, experiment.record)
    return 0


def asked_for(chosen: list[tuple[str, str]]) -> Iterator[Experiment]:
    """The runs that are chosen and known by now; what is done may ask for more."""
    for group, name in chosen:
        yield from (e for e in GROUPS[group]() if e.name.startswith(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chosen", nargs="*", metavar="group[/name]", help=f"{', '.join(GROUPS)}; by default all")
    parser.add_argument("--at-once", type=int, default=cores(), help="runs side by side; by default one a core")
    parser.add_argument(
        "--checkout", type=Path, default=ROOT, metavar="DIR",
        help="train with the code of DIR, whose commit the records name: a clean clone that nobody works in",
    )  # fmt: skip
    arguments = parser.parse_args()
    chosen = [text.partition("/")[::2] for text in arguments.chosen or GROUPS]
    if unknown := {group for group, _ in chosen} - set(GROUPS):
        parser.error(f"no experiment {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
    for group, name in chosen:
        if not any(asked_for([(group, name)])) and name:
            parser.error(f"no run of {group} begins with {name}")
    if arguments.at_once < 1:
        parser.error(f"--at-once {arguments.at_once}: at least 1")
    checkout = arguments.checkout.resolve()
    if not (checkout / "train" / "main.py").is_file():
        parser.error(f"--checkout {checkout}: no checkout of this project")
    pool = ThreadPoolExecutor(arguments.at_once)
    try:
        return run_all(chosen, checkout, arguments.at_once, pool)
    except KeyboardInterrupt:
        return 130
    finally:  # what runs has had the same signal and saves
        pool.shutdown(cancel_futures=True)


def run_all(chosen: list[tuple[str, str]], checkout: Path, at_once: int, pool: ThreadPoolExecutor) -> int:
    """Keep ``at_once`` of the chosen runs going until none is left; 0, or the exit code of one that failed."""
    running: dict[Future[int], Experiment] = {}
    while True:
        for experiment in asked_for(chosen):
            if len(running) == at_once:
                break
            if not experiment.is_done and experiment not in running.values():
                print(f"{experiment.group}/{experiment.name}: begins", flush=True)
                running[pool.submit(run, experiment, checkout, cores(shared_by=at_once))] = experiment
        if not running:
            return 0
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            ended = running.pop(future)
            if code := future.result():
                said = RUNS / f"{ended.folder.name}.out"
                print(f"experiments: {ended.folder.name} ended with {code}: see {said}", file=sys.stderr)
                return code
            print(f"{ended.group}/{ended.name}: {told(ended)}", flush=True)


def told(ended: Experiment) -> str:
    result = ended.result
    return f"{result['last_top1']:.2f} % after {result['steps']:,} steps" if result else "diverged"


if __name__ == "__main__":
    exit_with(main)
