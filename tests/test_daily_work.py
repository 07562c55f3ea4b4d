"""What helps from day to day: a profile of some steps, a table at the end of a sweep, completion in the shell."""

import gzip
import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL, App
from train import app as application
from train.main import composed
from train.profiler import RECORD
from train.signals import StopRequest
from train.sweep import Job, summary
from train.world import World


def test_a_profile_of_three_steps_is_the_chiefs_alone_and_so_is_the_mlperf_log(app: App, tmp_path: Path):
    done = app(*SMALL, "epochs=3", "nproc=2", "name=run", "profile=true", "mlperf_log=true")
    run = tmp_path / "runs/run"
    assert done.returncode == 0 and done.stdout.count(f"{run}/trace.json.gz, for ui.perfetto.dev") == 1, done.stderr
    assert len(list(run.glob("*trace*"))) == 1
    trace = json.loads(gzip.decompress((run / "trace.json.gz").read_bytes()))
    names = Counter(event["name"] for event in trace["traceEvents"] if event.get("ph") == "X")
    # two micro-batches a step and process
    assert (names["forward"], names["backward"]) == (2 * RECORD, 2 * RECORD)
    assert names["Optimizer.step#LARS.step"] == RECORD
    assert (run / "mlperf.log").read_text().count('"key": "run_start"') == 1


def test_a_run_too_short_for_a_profile_says_so(tmp_path: Path, capsys):
    settings = composed(*SMALL, "epochs=1", "name=run", "profile=true", f"runs_dir={tmp_path}")
    application.train(settings, World(), StopRequest(), "test")
    assert "no profile: it takes 10 steps" in capsys.readouterr().out
    assert not (tmp_path / "run/trace.json.gz").exists()


@pytest.mark.slow
def test_a_sweep_ends_in_a_table_with_mean_and_deviation_over_its_seeds(app: App, tmp_path: Path):
    """Also one that ends early: the fifth job is refused."""
    done = app("-m", *SMALL, "epochs=1", "optimizer.lr=2,5,-1", "seed=0,1")
    assert done.returncode == 2 and "optimizer.lr=-1.0 must not be negative" in done.stderr
    top1 = {}
    for path in (tmp_path / "runs").glob("*/result.json"):
        seed, lr = path.parent.name.split("-seed")[1][0], path.parent.name.split("optimizer.lr=")[1][0]
        top1[lr, seed] = json.loads(path.read_text())["last_top1"]
    table = [re.split("  +", line) for line in done.stdout.splitlines()[-7:]]
    assert table[0] == ["optimizer.lr", "seed", "last top-1 %", "best top-1 %"]
    assert table[1:5] == [[lr, seed, *[f"{top1[lr, seed]:.2f}"] * 2] for lr in "25" for seed in "01"]
    for row, lr in zip(table[5:], "25", strict=True):
        runs = [top1[lr, "0"], top1[lr, "1"]]
        assert row == [lr, "all", *[f"{statistics.mean(runs):.2f} +- {statistics.stdev(runs):.2f}"] * 2]
    assert not list(tmp_path.rglob("multirun.yaml"))


def test_a_run_that_did_not_finish_has_no_figures_in_the_table(tmp_path: Path):
    jobs = [Job({"batch": "8k", "seed": seed}, tmp_path / seed) for seed in "01"]
    jobs[0].folder.mkdir()
    (jobs[0].folder / "result.json").write_text('{"last_top1": 73.5, "best_top1": 74.0}')
    assert summary(jobs).splitlines()[1:] == ["0     73.50         74.00", "1     -             -"]


@pytest.mark.parametrize(("typed", "offered"), [("recipe=p", "recipe=paper"), ("mlperf", "mlperf_log=")])
def test_bash_completes_groups_and_keys(typed: str, offered: str):
    """As bash does on the tab key after Hydra's completion was installed with the documented line."""
    lines = (ROOT / "docs/daily_work.md").read_text().splitlines()
    (install,) = [line for line in lines if line.startswith("eval ")]
    script = f"""{install}
        COMP_LINE='python train/main.py {typed}' COMP_POINT=100 COMP_CWORD=2
        hydra_bash_completion
        echo "${{COMPREPLY[@]}}"
    """
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=path, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == offered.split(), done.stderr
