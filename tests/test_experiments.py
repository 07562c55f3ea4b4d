"""The experiments on fractals: which runs are asked for, and how they are run and filed."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import matrix
from scripts.matrix import Experiment
from tests.helpers import ROOT
from train.config.compose import compose


@pytest.mark.parametrize("chosen, said", [("cols", "no experiment cols"), ("rows/1m", "no run of rows begins with 1m")])
def test_an_experiment_that_does_not_exist_is_told_before_anything_runs(chosen: str, said: str):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "experiments.py"), chosen],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1]


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(matrix, "RECORDS", tmp_path)
    return tmp_path


def end(experiment: Experiment, **result: float | None) -> None:
    experiment.record.mkdir(parents=True, exist_ok=True)
    (experiment.record / ("result.json" if result else "diverged.json")).write_text(json.dumps(result))


# lr of a search whose middle is 1, and the steps to the target that a run there takes
VALLEYS = [
    ("in the middle", {0.316: 90, 1: 50, 3.16: 80}, 1),
    ("beyond the upper edge", {0.316: 90, 1: 50, 3.16: 40, 10: 60}, 3.16),
    ("beyond the lower edge, where the highest diverged", {0.0316: 80, 0.1: 30, 0.316: 40, 1: 50, 3.16: None}, 0.1),
    ("where the search ends", {0.316: 90, 1: 50, 3.16: 40, 10: 30, 31.6: 20}, 31.6),
]


@pytest.mark.parametrize("steps, best", [v[1:] for v in VALLEYS], ids=[v[0] for v in VALLEYS])
def test_a_search_goes_on_until_its_best_lr_has_neighbours_on_both_sides(records, steps, best):
    asked: set[str] = set()

    def at(lr: float) -> Experiment:
        return Experiment("target", f"lr{lr:g}", ())

    while True:
        tried, found = matrix.search(at, 1.0, matrix.slowness)
        if found:
            break
        for run in tried:
            if not run.is_done:
                asked.add(run.name)
                taken = steps[float(run.name[2:])]
                end(run, **({"reached_top1": 75.0, "steps": taken, "best_top1": 75.1} if taken else {}))
    assert found == at(best) and asked == {at(lr).name for lr in steps}


def test_runs_that_missed_the_target_are_ordered_by_top1_behind_those_that_reached_it(records):
    runs = [Experiment("target", name, ()) for name in ("far", "reached", "near", "diverged")]
    end(runs[0], reached_top1=None, steps=100, best_top1=20.0)
    end(runs[1], reached_top1=75.0, steps=5000, best_top1=75.0)
    end(runs[2], reached_top1=None, steps=100, best_top1=74.0)
    end(runs[3])
    assert [r.name for r in sorted(runs, key=matrix.slowness)] == ["reached", "near", "far", "diverged"]


def test_each_kind_has_equally_many_trials_and_its_best_is_repeated_on_seeds_that_chose_nothing(records):
    def of_each(trials: list[Experiment]) -> dict[str, int]:
        return {kind: sum(e.name.startswith(kind) for e in trials) for kind in matrix.KINDS}

    trials = list(matrix.baseline())
    assert of_each(trials) == dict.fromkeys(matrix.KINDS, 6)
    for trial in trials:
        assert not list(matrix.fresh()) and not list(matrix.longer()), "nothing is chosen before all trials are done"
        end(trial, last_top1=50.0 if "lr1.8-" in trial.name else 40.0 if "lr163-" in trial.name else 30.0)
    # the best of LARS is at an edge
    more = [e for e in matrix.baseline() if e not in trials]
    assert of_each(more) == dict.fromkeys(matrix.KINDS, 2) and not list(matrix.fresh())
    for trial in more:
        end(trial, last_top1=20.0)
    trials = list(matrix.baseline())
    assert of_each(trials) == dict.fromkeys(matrix.KINDS, 8)
    for kind in matrix.KINDS:
        end(matrix.tuned(kind)[1], last_top1=60.0)  # neither the middle nor an edge
    fresh = list(matrix.fresh())
    assert len(fresh) == 25 and len(set(fresh)) == 25
    seeds = {compose(*e.overrides).seed for e in fresh}
    assert seeds == set(matrix.FRESH_SEEDS) and not seeds & {compose(*e.overrides).seed for e in trials}
    best = {kind: compose(*matrix.tuned(kind)[1].overrides) for kind in matrix.KINDS}
    for run in fresh:
        name = run.name.rpartition("-seed")[0]
        config = compose(*run.overrides)
        assert config.optimizer.lr == best["lars" if name in matrix.VARIANTS else name].optimizer.lr
        assert (name == "larc") == getattr(config.optimizer, "clip", False)
    longer = [compose(*e.overrides) for e in matrix.longer()]
    assert {c.epochs for c in longer} == {180} and {c.optimizer.name for c in longer} == {"sgd", "lars"}
    end(matrix.tuned("nesterov")[1], last_top1=61.0)
    assert {e.name.partition("-")[0] for e in matrix.longer()} == {"nesterov", "lars"}


def test_a_kind_all_of_whose_trials_diverged_has_no_best(records):
    for trial in matrix.baseline():
        end(trial, **({} if trial.name.startswith("nesterov") else {"last_top1": 50.0}))
    assert matrix.best_of("nesterov") is None and matrix.best_of("lars")


def test_every_point_of_steps_to_target_differs_in_batch_optimizer_and_lr_alone():
    def kept(config):
        return replace(
            config, ema=0, epochs=0, batch=replace(config.batch, total=0), optimizer=replace(config.optimizer, lr=0)
        )

    for optimizer in matrix.OPTIMIZERS:
        points = [compose(*matrix.steps_to_target(n, optimizer, 1.0, 0).overrides) for n in matrix.EPOCHS]
        assert len({str(kept(p)) for p in points}) == 1
        # the average reaches back over as many images at each batch
        assert {round(p.batch.total / (1 - p.ema)) for p in points} == {2 * 20480}
        assert all(p.batch.micro == 32 and p.schedule.power == 0 for p in points)


def test_the_noise_scale_is_measured_on_the_best_runs_to_the_target_and_changes_nothing_else(records):
    rows = list(matrix.noise())
    assert [run.name for run in rows] == [f"32k-lars-seed{seed}" for seed in range(3)], "lr of others is not chosen yet"
    for images in matrix.NOISE_IMAGES:
        for optimizer in matrix.OPTIMIZERS:
            for k, steps in zip((-1, 0, 1), (90, 50, 80), strict=True):
                lr = matrix.rate(matrix.middle_lr(images, optimizer), k)
                end(matrix.steps_to_target(images, optimizer, lr, 0), reached_top1=75.0, steps=steps, best_top1=75.1)
    measured = list(matrix.noise())
    without = {run.name: run for run in (*matrix.target(), *matrix.rows())}
    assert len(measured) == len(rows) + 2 * 2 * 3
    for run in measured:
        assert run.overrides == (*without[run.name].overrides, "noise_scale=true")
    assert compose(*measured[0].overrides).noise_scale


def test_a_growing_batch_is_compared_at_the_lr_and_schedule_of_its_first(records):
    runs = list(matrix.growth())
    configs = [compose(*run.overrides) for run in runs[:2]]
    small = compose("batch=8k", "optimizer=lars")
    assert len(runs) == 10 and {tuple(c.batch.totals) for c in configs} == {(1024, 4096), (4096,)}
    assert all((c.optimizer, c.schedule, c.epochs) == (small.optimizer, small.schedule, small.epochs) for c in configs)


def test_vr_lars_and_lars_have_the_same_trials_and_five_seeds_that_chose_nothing(records):
    trials = list(matrix.variance())
    assert len(trials) == 2 * 2 * 3
    for top1, trial in enumerate(trials):
        end(trial, last_top1=float(top1))
    fresh = [run for run in matrix.variance() if run not in trials]
    assert len(fresh) == 20 and all("optimizer.lr=64" in run.overrides for run in fresh)
    assert {run.overrides[-1] for run in fresh} == {f"seed={seed}" for seed in range(5)}
    assert sum("optimizer.variance_reduction=true" in run.overrides for run in fresh) == 10
    assert compose(*fresh[0].overrides).optimizer.variance_reduction
