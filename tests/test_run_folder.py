"""The folder of a run: one process at a time, one configuration, finished once."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from tests.helpers import MAIN, SMALL, App, train_here
from train.config.compose import compose
from train.errors import Diverged, UserError
from train.output.run_folder import RunFolder


def test_a_finished_run_says_so_and_exits_0(app: App, tmp_path, uninterrupted):
    arguments = [*SMALL, "epochs=6", "name=run", f"runs_dir={uninterrupted.parent}"]
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file() and p.name != "lock"}
    again = app(*arguments)
    assert again.returncode == 0 and "is finished" in again.stdout
    assert before == {p: p.stat().st_mtime_ns for p in before}
    changed = app(*arguments, "seed=1", "optimizer.lr=3")
    assert changed.returncode == 2
    assert "optimizer.lr was 29.0, now 3.0; seed was 0, now 1" in changed.stderr


def test_a_folder_in_use_is_refused_naming_the_process(app: App, tmp_path):
    arguments = [*SMALL, "epochs=400", "name=run"]
    first = subprocess.Popen(
        [sys.executable, str(MAIN), *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "runs" / "run" / "log.jsonl").exists():
            time.sleep(0.05)
        second = app(*arguments)
        assert second.returncode == 2 and f"in use by process {first.pid}" in second.stderr
    finally:
        first.kill()
        first.wait()


def test_what_a_diverged_attempt_left_is_gone_when_the_run_goes_on(tmp_path):
    folder = RunFolder(compose(*SMALL, "name=run", f"runs_dir={tmp_path}"))
    folder.mark(Diverged(3, "diverged at step 3"))
    (folder.path / "diverged.json").touch()
    folder.mark(None)
    assert {path.name for path in folder.path.iterdir()} == {"lock", "config.yaml"}


@pytest.mark.parametrize(("name", "content"), [("config.yaml", "a: [1"), ("config.yaml", "[1]"), ("result.json", "{")])
def test_a_damaged_file_of_a_run_is_named_and_left_as_it_is(tmp_path, name, content):
    settings = compose(*SMALL, "name=run", f"runs_dir={tmp_path}")
    RunFolder(settings)
    (tmp_path / "run/log.jsonl").write_text("{}\n")
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UserError, match=f"{name} is damaged: "):
        _ = RunFolder(settings).result
    assert (tmp_path / "run" / name).read_text() == content


@pytest.mark.parametrize("held", ["log.jsonl", "diverged.json", "checkpoints/step-000000001-0.pt", "result.json"])
def test_a_folder_is_free_for_another_configuration_until_something_is_saved(tmp_path, held):
    """A wrong ``init=``, or too little memory, must not take the name from the command that is right."""
    first, second = (compose(*SMALL, "name=run", f"runs_dir={tmp_path}", f"seed={seed}") for seed in (0, 1))
    RunFolder(first)
    (tmp_path / "run/log.jsonl").touch()
    (tmp_path / "run/wandb.id").write_text("of the first")
    (tmp_path / "run/tb").mkdir()
    RunFolder(first)
    assert (tmp_path / "run/wandb.id").exists()
    RunFolder(second)
    assert "seed: 1" in (tmp_path / "run/config.yaml").read_text()
    assert not (tmp_path / "run/wandb.id").exists() and not (tmp_path / "run/tb").exists()
    (tmp_path / "run" / held).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / held).write_text("{}\n")
    with pytest.raises(UserError, match="seed was 1, now 0"):
        RunFolder(first)


def test_a_finished_run_is_not_that_of_other_images(app: App, tmp_path: Path):
    run = train_here(tmp_path / "runs", *SMALL, "epochs=1")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"data_fingerprint": "of others"}))
    shutil.rmtree(run / "checkpoints")
    done = app(*SMALL, "epochs=1", "name=run")
    assert done.returncode == 2 and "begun on other images" in done.stderr, done.stderr


def test_a_file_system_without_locks_is_named(tmp_path):
    refused = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    with (
        mock.patch("fcntl.flock", side_effect=refused),
        pytest.raises(UserError, match=r"run is on a file system without locks .*: mount it with flock, or"),
    ):
        RunFolder(compose(*SMALL, "name=run", f"runs_dir={tmp_path}"))
