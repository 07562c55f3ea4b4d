"""Run the experiments on fractals that the report shows; finished ones are not run again.

Usage: python scripts/experiments.py [rows] [lr] [best] [recipes] [resnet50]    (all, in this order, when none is named)
       python scripts/experiments.py rows/32k-lars lr/32k     only those runs whose names begin so

``rows``  the four presets with LARS and with linearly scaled SGD, 90 epochs, seeds 0 to 2;
``lr``    seven learning rates over three decades, smallest and largest batch, both optimizers, 30 epochs, seed 0;
``best``  both optimizers at the largest batch and the three best learning rates of ``lr``, 90 epochs, seeds 3 to 5;
``recipes``  each recipe of others at every batch that it publishes, 10 epochs, seed 0: that it runs, no more;
``resnet50``  the network of the ImageNet rows at the smallest and the largest batch, 30 epochs, seed 0.

Each run's configuration, rows and result are filed under ``results/fractals/<experiment>/<run>``. Stopped with Ctrl-C
and started again, it resumes. All of them take some twelve hours on two cores, a run on each. The output of a run
goes to ``runs/experiments/<run>.out``.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from tqdm import tqdm

from scripts.matrix import GROUPS, RUNS, Experiment
from scripts.records import ROOT, file_run
from train.cores import cores
from train.errors import Diverged


def run(experiment: Experiment, threads: int) -> int:
    """Run or resume it, and file its record; the app's exit code."""
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
    return 0


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
