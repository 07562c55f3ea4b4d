"""The course of a run: where it stops, restarts, evaluates and ends."""

import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.helpers import SMALL, App, assert_same_run, rows, train_here
from train import app
from train import app as application
from train.config.compose import compose
from train.config.schema import Config
from train.engine.evaluation import Evaluation, Scores
from train.engine.finite import FiniteCheck
from train.engine.loop import Training
from train.engine.step import Step
from train.errors import Diverged, Stopped, UserError
from train.output import checkpoint
from train.processes.signals import StopRequest
from train.processes.world import World


def test_no_image_and_no_checkpoint_is_held_for_the_whole_run(tmp_path: Path):
    alive: list[tuple[int, int]] = []
    images: list[weakref.ref] = []
    state: list[weakref.ref] = []
    forward_backward, restore, log_step = Step._forward_backward, Training.restore, Training._log_step

    def noted(self: Step, *micro_batch: torch.Tensor) -> torch.Tensor:
        images.append(weakref.ref(micro_batch[0]))
        return forward_backward(self, *micro_batch)

    def restored(self: Training, saved: dict[str, Any]) -> None:
        state.extend(map(weakref.ref, saved["model"].values()))
        restore(self, saved)

    def logged(self: Training, *arguments: Any) -> None:
        alive.append((sum(one() is not None for one in images), sum(one() is not None for one in state)))
        log_step(self, *arguments)

    with (
        mock.patch.object(Step, "_forward_backward", noted),
        mock.patch.object(Training, "restore", restored),
        mock.patch.object(Training, "_log_step", logged),
    ):
        train_here(tmp_path, *SMALL, "epochs=2", "max_steps=3")
        train_here(tmp_path, *SMALL, "epochs=2", "max_steps=6")
    assert state and len(alive) == 6 and set(alive) == {(0, 0)}, alive


def test_a_run_ends_finished_after_the_evaluation_that_reaches_its_top1(tiny, tmp_path):
    small, _ = tiny
    chosen = [*small, "epochs=6", "stop_at_top1=1", f"runs_dir={tmp_path}", "name=run"]
    app.train(compose(*chosen), World(), StopRequest(), "test")
    result = json.loads((tmp_path / "run/result.json").read_text())
    reached = [row["val_top1"] >= 1 for row in rows(tmp_path / "run")]
    assert reached == [False] * (len(reached) - 1) + [True] and len(reached) < 6
    assert result["reached_top1"] == 1 and result["steps"] == 2 * len(reached)
    never = [*small, "epochs=1", "stop_at_top1=100", f"runs_dir={tmp_path}", "name=never"]
    app.train(compose(*never), World(), StopRequest(), "test")
    assert json.loads((tmp_path / "never/result.json").read_text())["reached_top1"] is None


class AskedAt(StopRequest):
    """Asked to stop at one look at it, and remembering that."""

    def __init__(self, look: int) -> None:
        super().__init__()
        self.looks, self.look = 0, look

    def received(self) -> bool:
        self.looks += 1
        return self.looks >= self.look


def test_a_stop_while_evaluating_is_saved_and_the_evaluation_is_made_again(tmp_path: Path):
    whole = in_process(tmp_path / "whole", "epochs=2")
    application.train(whole, World(), StopRequest(), "test")
    stopped = in_process(tmp_path / "stopped", "epochs=2")
    # 4 steps of 4 micro-batches, and a look at each; then the first of the evaluation
    with pytest.raises(Stopped, match="stopped after step 4"):
        application.train(stopped, World(), AskedAt(17), "test")
    assert rows(tmp_path / "stopped/run") == [] and (tmp_path / "stopped/run/stopped").exists()
    application.train(stopped, World(), StopRequest(), "test")
    assert_same_run(tmp_path / "whole/run", tmp_path / "stopped/run")


def test_with_evaluate_every_there_is_a_row_after_so_many_epochs_and_after_the_last(tmp_path: Path):
    every_epoch = train_here(tmp_path / "every", *SMALL, "epochs=3", "log.layers_every_epochs=1")
    chosen = [*SMALL, "epochs=3", "log.layers_every_epochs=1", "evaluate_every=2", "name=run", f"runs_dir={tmp_path}"]
    # in the middle of an epoch, at the end of one that is not evaluated, and of one that is
    for stop in (2, 4, 8):
        application.train(compose(*chosen, f"max_steps={stop}"), World(), StopRequest(), "test")
    application.train(compose(*chosen), World(), StopRequest(), "test")
    run = tmp_path / "run"
    assert [row["epoch"] for row in rows(run)] == [2, 3]
    same = ("epoch", "step", "images", "lr", "val_loss", "val_top1", "val_top5")
    expected = {row["epoch"]: row for row in rows(every_epoch)}
    for row in rows(run):
        assert all(row[key] == expected[row["epoch"]][key] for key in same)
    mean = (expected[1]["train_loss"] + expected[2]["train_loss"]) / 2
    assert rows(run)[0]["train_loss"] == pytest.approx(mean)
    assert (run / "layers.csv").read_text() == (every_epoch / "layers.csv").read_text()
    weights = [torch.load(folder / "weights.pt") for folder in (run, every_epoch)]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())
    with pytest.raises(UserError, match="evaluate_every was 2, now 1"):
        application.train(compose(*chosen, "evaluate_every=1"), World(), StopRequest(), "test")


@contextmanager
def poisoned(above: float, at: int) -> Iterator[list[float]]:
    """Gradients of step ``at`` are NaN while its lr is above ``above``; the lr of each such step."""
    record, seen = FiniteCheck.record, []

    def spoil(self, step, loss, scale):
        lr = lrs[-1]
        if step == at and lr > above:
            seen.append(lr)
            for p in self._parameters[3:5]:
                p.grad.fill_(float("nan"))
        record(self, step, loss, scale)

    call, lrs = Step.__call__, []
    with (
        mock.patch.object(FiniteCheck, "record", spoil),
        mock.patch.object(Step, "__call__", lambda self, batches, lr: lrs.append(lr) or call(self, batches, lr)),
    ):
        yield seen


def in_process(tmp_path: Path, *overrides: str) -> Config:
    return compose(*SMALL, "epochs=3", "name=run", f"runs_dir={tmp_path}", *overrides)


def test_a_restart_goes_back_with_half_the_lr_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    chosen = in_process(tmp_path, "optimizer=sgd", "optimizer.lr=0.8", "on_divergence=restart")
    with poisoned(above=0.1, at=6) as seen:
        application.train(chosen, World(), StopRequest(), "test")
    assert len(seen) == 2 and seen[1] == pytest.approx(seen[0] / 2)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert [r["diverged_at"] for r in result["restarts"]] == [6, 6]
    assert [r["lr_scale"] for r in result["restarts"]] == [0.5, 0.25]
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [1, 2, 3]
    said = capsys.readouterr().out
    assert "gradient of block1.conv1.weight, block1.bn1.weight" in said
    assert "with 0.25 of the learning rate" in said


def test_finite_weights_that_are_too_large_for_any_image_are_a_divergence(tmp_path: Path):
    """Before, the evaluation without a loss was the best one, and a restart went back to it."""
    chosen = in_process(tmp_path, "optimizer=sgd", "optimizer.lr=1e4", "schedule.warmup_epochs=0")
    with pytest.raises(Diverged, match="the validation loss is not finite"):
        application.train(chosen, World(), StopRequest(), "test")
    assert not list((tmp_path / "run/checkpoints").glob("*.pt")) and not rows(tmp_path / "run")


def test_a_run_that_diverges_again_and_again_ends_with_3(tmp_path: Path):
    chosen = in_process(tmp_path, "optimizer=sgd", "on_divergence=restart")
    with poisoned(above=0, at=6) as seen, pytest.raises(Diverged, match="at step 6"):
        application.train(chosen, World(), StopRequest(), "test")
    assert len(seen) == 1 + application.MOST_RESTARTS
    assert Diverged.exit_code == 3 and not (tmp_path / "run/result.json").exists()


def test_divergence_ends_with_exit_code_3_and_keeps_the_last_good_checkpoint(app: App, tmp_path):
    arguments = [*SMALL, "optimizer=sgd", "optimizer.lr=1e30", "epochs=3", "name=run"]
    assert app(*arguments, "max_steps=1").returncode == 0
    diverged = app(*arguments, "log.every_steps=1")
    assert diverged.returncode == 3 and "Traceback" not in diverged.stderr
    last = diverged.stderr.splitlines()[-1]
    assert "error: diverged at step 1 with lr 1" in last and "gradient of conv1.weight" in last
    run = tmp_path / "runs" / "run"
    assert checkpoint.newest_first(run / "checkpoints")[0].name.startswith("step-000000001-")
    record = json.loads((run / "diverged.json").read_text())
    assert (record["diverged_at"], f"error: {record['message']}") == (1, last) and "optimizer.lr=1e30" in record[
        "command"
    ]
    assert {"commit", "resumed_by", "versions", "hardware", "data_fingerprint"} < record.keys()


def test_a_run_resumed_before_a_due_evaluation_makes_it_and_goes_on(app: App, tmp_path):
    arguments = [*SMALL, "epochs=2", "name=run", "log.layers_every_epochs=1"]
    assert app(*arguments, "max_steps=4").returncode == 0
    run = tmp_path / "runs" / "run"
    folder = run / "checkpoints"
    # as a kill between the epoch's last step and its row leaves it
    state = checkpoint.load(checkpoint.newest_first(folder)[0])
    state["position"]["rows"] = 0
    for path in folder.iterdir():
        path.unlink()
    writer = checkpoint.CheckpointWriter(folder, keep=2)
    writer.save(4, state)
    writer.wait()
    resumed = app(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert [row["epoch"] for row in rows(run)] == [1, 2]


def test_the_best_checkpoint_is_of_the_first_evaluation_with_the_highest_top1(tmp_path: Path):
    scores = iter([Scores(top1, 100.0, 1.0, 168) for top1 in (30.0, 50.0, 50.0, 40.0, 40.0)])
    call = Evaluation.__call__
    with mock.patch.object(Evaluation, "__call__", lambda *given: (call(*given), next(scores))[1]):
        run = train_here(tmp_path, *SMALL, "epochs=4")
    (best,) = checkpoint.newest_first(run / "checkpoints", "best")
    assert best.name.startswith("best-000000008-")
    result = json.loads((run / "result.json").read_text())
    assert (result["best_top1"], result["last_top1"]) == (50.0, 40.0)


def test_a_state_that_diverged_since_the_last_logged_step_is_not_saved(tmp_path: Path):
    chosen = in_process(tmp_path, "optimizer=sgd", "log.every_steps=100", "max_steps=3")
    with poisoned(above=0, at=1), pytest.raises(Diverged, match="at step 1 .*gradient of .* is not finite"):
        application.train(chosen, World(), StopRequest(), "test")
    assert checkpoint.newest_first(tmp_path / "run" / "checkpoints") == []
