"""Images/s of training: what is counted and what is not."""

from pathlib import Path
from unittest import mock

import pytest

from tests.helpers import SMALL, train_here
from train.engine import speed
from train.engine.step import Step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    return now


def test_the_start_of_a_process_is_not_in_it_nor_what_lies_between_epochs(clock: list[float]):
    measured = speed.Speed()
    measured.begin(0)
    clock[0] = 60.0  # a minute to start, compile and take the first step
    measured.reach(100)
    assert measured.per_second() is None
    clock[0] = 62.0
    measured.reach(1100)
    clock[0] = 90.0  # an evaluation
    measured.begin(1100)
    clock[0] = 91.0
    measured.reach(1600)
    # 15 steps of 100 images in 3 s
    assert measured.per_second() == 500.0
    measured.restart()
    assert measured.per_second() is None and measured.has_started


@pytest.mark.parametrize("max_steps", [3, 4], ids=["in an epoch", "at its end"])
def test_a_run_stopped_by_max_steps_says_its_speed_without_its_first_step(tmp_path: Path, capsys, max_steps: int):
    call, taken = Step.__call__, []

    def slow(self, batches, lr):
        loss = call(self, batches, lr)
        # by the clock that is read: the first step takes an hour, the others a second
        taken.append(3600.0 if not taken else 1.0)
        return loss

    real = speed.time.perf_counter
    with (
        mock.patch.object(Step, "__call__", slow),
        mock.patch.object(speed, "time", mock.Mock(perf_counter=lambda: 1e-9 * real() + sum(taken))),
    ):
        train_here(tmp_path, *SMALL, "epochs=2", f"max_steps={max_steps}")
    assert f"stopped at max_steps={max_steps} at 128 images/s" in capsys.readouterr().out
