"""The table at the end of a sweep."""

import json
import re
import statistics
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.helpers import SMALL, App
from train.output.sweep import scores, table


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


@pytest.mark.slow
@pytest.mark.parametrize(("allowed", "code"), [(1, 0), (0, 3)])
def test_hydras_optuna_sweeper_maximises_the_last_top1(app: App, tmp_path: Path, allowed: int, code: int):
    """Of three trials one diverges, which fails the search unless it allows that; one is tried twice."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1",
              "hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=1",
              f"hydra.sweeper.max_failure_rate={allowed}"]  # fmt: skip
    done = app("-m", *SMALL, "epochs=1", "optimizer=sgd", "optimizer.lr=choice(1e30,0.1)", *search)
    assert done.returncode == code, done.stderr
    assert "error: diverged at step" in done.stderr and "Traceback" not in done.stderr
    table = [line.split()[0] for line in done.stdout.splitlines()[-3:]]
    assert table == ["optimizer.lr", "0.1", "1e+30"]
    if not code:
        best = OmegaConf.load(tmp_path / "runs/optimization_results.yaml")
        (result,) = (tmp_path / "runs").glob("*/result.json")
        assert best.best_params == {"optimizer.lr": 0.1}
        assert best.best_value == json.loads(result.read_text())["last_top1"]


@pytest.mark.slow
def test_submitits_local_executor_runs_the_jobs_of_a_sweep(app: App, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
    done = app("-m", *SMALL, "epochs=1", "seed=0,1", *launcher)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2


def test_a_damaged_result_has_no_figures_in_the_table(tmp_path: Path):
    (tmp_path / "result.json").write_text("{")
    assert scores(tmp_path) is None


def test_a_run_that_did_not_finish_has_no_figures_in_the_table(tmp_path: Path):
    jobs = {tmp_path / seed: {"batch": "8k", "seed": seed} for seed in "01"}
    (tmp_path / "0").mkdir()
    (tmp_path / "0/result.json").write_text('{"last_top1": 73.5, "best_top1": 74.0}')
    assert table(jobs).splitlines()[1:] == ["0     73.50         74.00", "1     -             -"]
