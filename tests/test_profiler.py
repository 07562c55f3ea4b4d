"""profile=true."""

import gzip
import json
from collections import Counter
from pathlib import Path

from tests.helpers import SMALL, App
from train import app as application
from train.config.compose import compose
from train.output.profiler import RECORD
from train.processes.signals import StopRequest
from train.processes.world import World


def test_a_profile_of_three_micro_batches_is_the_chiefs_alone_and_so_is_the_mlperf_log(app: App, tmp_path: Path):
    done = app(*SMALL, "epochs=3", "nproc=2", "name=run", "profile=true", "mlperf_log=true")
    run = tmp_path / "runs/run"
    assert done.returncode == 0 and done.stdout.count(f"{run}/trace.json.gz, for ui.perfetto.dev") == 1, done.stderr
    assert len(list(run.glob("*trace*"))) == 1
    trace = json.loads(gzip.decompress((run / "trace.json.gz").read_bytes()))
    names = Counter(event["name"] for event in trace["traceEvents"] if event.get("ph") == "X")
    # the last two of a step, its end, and the first of the next
    assert (names["forward"], names["backward"], names["Optimizer.step#LARS.step"]) == (RECORD, RECORD, 1)
    begins = {
        name: sorted(event["ts"] for event in trace["traceEvents"] if event.get("name") == name)
        for name in ("backward", "Optimizer.step#LARS.step")
    }
    assert (
        sorted([*begins["backward"], *begins["Optimizer.step#LARS.step"]]).index(*begins["Optimizer.step#LARS.step"])
        == 2
    )
    assert (run / "mlperf.log").read_text().count('"key": "run_start"') == 1


def test_a_run_too_short_for_a_profile_says_so(tmp_path: Path, capsys):
    # 8 micro-batches
    settings = compose(*SMALL, "epochs=1", "max_steps=2", "name=run", "profile=true", f"runs_dir={tmp_path}")
    application.train(settings, World(), StopRequest(), "test")
    assert "no profile: it takes 13 micro-batches and one more" in capsys.readouterr().out
    assert not (tmp_path / "run/trace.json.gz").exists()
