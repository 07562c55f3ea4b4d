"""scripts/gpu_check.py: its checks run on a CPU at toy size, and on a GPU as they are meant to."""

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scripts.gpu import claims, optimizers, runs, steps
from scripts.gpu.claims import FAILED, HELD, TOY, UNTRIED, Machine
from scripts.records import FRACTALS
from tests.helpers import ROOT, script


@pytest.fixture
def machine(tmp_path):
    return Machine("cpu", TOY, tmp_path)


def test_without_a_gpu_it_ends_in_one_line_with_exit_code_2():
    done = script("gpu_check")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: torch finds no NVIDIA GPU here: run this where it finds one, or give --toy\n"


def test_the_parts_of_one_process_run_at_toy_size(machine: Machine):
    same = list(steps.same_on_both(machine))
    assert [c.outcome for c in same] == [HELD] * len(steps.RECIPES) and all(c.figures["loss_off"] == 0 for c in same)
    # a CPU has no alarm, but what it would watch has run
    assert {c.outcome for c in steps.nothing_waits(machine)} == {UNTRIED}
    # inductor takes half a minute: the test of all parts has it
    machine.sizes = replace(TOY, compiled=[])
    timed = list(steps.speeds(machine))
    assert [c.outcome for c in timed] == [HELD, UNTRIED] and timed[0].figures["images_per_second"] > 0
    assert machine.speeds.keys() == {"eager, 4 images"}
    assert {c.outcome for c in optimizers.optimizers(machine)} <= {HELD, UNTRIED}


def test_other_weights_do_not_hold(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    connected, calls = steps.connected, []

    def other(*given):
        step = connected(*given)
        calls.append(step)
        if len(calls) == 2:
            with torch.no_grad():
                step.model.fc.weight.mul_(1.01)
        return step

    monkeypatch.setattr(steps, "connected", other)
    assert next(steps.same_on_both(machine)).outcome == FAILED


def test_the_interval_is_that_of_one_more_draw():
    values = [95.0, 95.5, 94.5, 95.2, 94.8]
    low, high = runs.interval(values)
    # n = 5: t = 4.604, from any table of Student's distribution
    assert high - statistics.mean(values) == pytest.approx(4.604 * statistics.stdev(values) * (6 / 5) ** 0.5)
    assert low + high == pytest.approx(2 * statistics.mean(values))


def test_the_row_is_not_tried_before_five_seeds_are_committed(machine: Machine):
    (claim,) = runs.row_of_the_table(machine)
    seeds = len(list((FRACTALS / "rows").glob("32k-lars-seed*")))
    assert claim.outcome == UNTRIED
    assert claim.why == (
        f"{seeds} seeds on CPUs are committed, and it takes 5" if seeds < 5 else "a toy does not train the row"
    )


def test_a_table_has_a_row_for_each_claim():
    found = [claims.judged("it holds", True, "by 3"), claims.judged("it does not", False, "by 4")]
    assert claims.table(found).splitlines()[2:] == [
        "| it holds | held | by 3 |",
        "| it does not | did not hold | by 4 |",
    ]


def gpu_check(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_all_parts_run_at_toy_size():
    done = gpu_check("--toy")
    assert done.returncode == 0 and "| did not hold |" not in done.stdout, done.stdout + done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("part", range(1, 9))
def test_on_a_gpu_what_is_promised_holds(part: int):
    if not torch.cuda.is_available():
        pytest.skip("there is no NVIDIA GPU")
    done = gpu_check(str(part))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(Path(done.stdout.splitlines()[-1]).read_text())["claims"]
