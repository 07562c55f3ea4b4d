"""The matrix of experiments."""

import subprocess
import sys

import pytest

from tests.helpers import ROOT


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
