"""Checkpoints: complete or absent, verified, and written while training continues."""

import os
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
import torch

from tests.helpers import SMALL, App, assert_same_run, rows, train_here
from train.errors import Stopped, UserError
from train.output import checkpoint


def test_the_last_two_and_the_best_are_kept(tmp_path: Path):
    run = train_here(tmp_path, *SMALL, "epochs=3", "checkpoint.every_minutes=0")
    kinds = [path.name[:14] for path in checkpoint.newest_first(run / "checkpoints")]
    best = max(rows(run), key=lambda row: (row["val_top1"], -row["step"]))["step"]
    assert sorted(kinds) == [f"best-{best:09d}", "step-000000011", "step-000000012"]
    state = checkpoint.load(checkpoint.newest_first(run / "checkpoints", "best")[0])
    assert state["position"]["best_top1"] == max(row["val_top1"] for row in rows(run))
    torch.load(checkpoint.newest_first(run / "checkpoints")[0], weights_only=True)


def test_training_goes_on_while_a_checkpoint_is_written_and_later_changes_are_not_in_it(tmp_path: Path):
    writer, weights = checkpoint.CheckpointWriter(tmp_path, keep=2), torch.zeros(1000)
    with mock.patch.object(checkpoint, "to_bytes", side_effect=lambda s: time.sleep(0.3) or real(s)):
        began = time.monotonic()
        writer.save(1, {"model": {"w": weights}})
        held = time.monotonic() - began
        weights += 1
        writer.wait()
    assert held < 0.2
    assert checkpoint.load_newest(tmp_path)[0]["model"]["w"].sum() == 0


def test_a_save_never_waits_for_the_one_before_and_the_latest_best_is_kept(tmp_path: Path):
    writer, disk = checkpoint.CheckpointWriter(tmp_path, keep=2), threading.Event()
    with mock.patch.object(checkpoint, "write_whole", lambda *given: (disk.wait(60), write_whole(*given))):
        for step in range(1, 4):
            # in a thread of its own, so that a wait is a failure and not a hang
            saving = threading.Thread(target=lambda step=step: writer.save(step, {"step": step}, best=True))
            saving.start()
            saving.join(20)
            assert not saving.is_alive()
        disk.set()
        writer.wait()
    (best,) = checkpoint.newest_first(tmp_path)
    assert checkpoint.load(best) == {"step": 3}


def test_a_signal_while_a_checkpoint_is_read_does_not_make_it_a_damaged_one(tmp_path: Path):
    writer = checkpoint.CheckpointWriter(tmp_path, keep=2)
    for step in (1, 2):
        writer.save(step, {"step": step})
        writer.wait()
    with mock.patch.object(torch, "load", side_effect=Stopped("stopped by SIGTERM")), pytest.raises(Stopped):
        checkpoint.load_newest(tmp_path)


def test_a_run_of_which_no_checkpoint_can_be_read_does_not_begin_anew(tmp_path: Path):
    run = train_here(tmp_path, *SMALL, "epochs=2", "max_steps=3")
    (saved,) = (run / "checkpoints").glob("*.pt")
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(UserError, match="no checkpoint can be read .* is damaged"):
        train_here(tmp_path, *SMALL, "epochs=2")
    assert saved.exists()


def test_an_error_of_the_disk_is_raised_by_the_next_call(tmp_path: Path):
    writer = checkpoint.CheckpointWriter(tmp_path, keep=2)
    with mock.patch.object(checkpoint, "write_whole", side_effect=OSError(28, "No space left on device")):
        writer.save(1, {"step": 1})
        with pytest.raises(OSError, match="No space left"):
            writer.wait()
    writer.save(2, {"step": 2})
    writer.wait()
    assert checkpoint.load_newest(tmp_path)[0] == {"step": 2}


real, write_whole = checkpoint.to_bytes, checkpoint.write_whole


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path: Path):
    (tmp_path / ".step-000000001-0123456789abcdef.pt.tmp").write_text("half")
    checkpoint.CheckpointWriter(tmp_path, keep=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_or_abandoned_checkpoint_of_a_later_step_does_not_displace_a_new_one(tmp_path: Path, keep: int):
    writer = checkpoint.CheckpointWriter(tmp_path, keep)
    for step in (300, 450):
        writer.save(step, {"step": step})
        writer.wait()
    one_bit(checkpoint.newest_first(tmp_path)[0])
    writer.save(310, {"step": 310})
    writer.wait()
    steps = [torch.load(path)["step"] for path in checkpoint.newest_first(tmp_path)]
    assert steps == [310, 300][:keep]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut_short, one_bit])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(app: App, tmp_path, uninterrupted, harm):
    arguments = [*SMALL, "epochs=6", "name=run", "checkpoint.every_minutes=0"]
    train_here(tmp_path / "runs", *arguments, "max_steps=6")
    newest, before = checkpoint.newest_first(tmp_path / "runs" / "run" / "checkpoints")[:2]
    step = checkpoint.NAME.fullmatch(before.name)[2]
    harm(newest)
    resumed = app(*arguments)
    assert resumed.returncode == 0 and f"{newest} is damaged" in resumed.stderr
    assert f"after step {int(step)}\n" in resumed.stdout
    assert_same_run(uninterrupted, tmp_path / "runs" / "run")


def test_a_checkpoint_executes_nothing(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"model": Payload()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="bad.pt is damaged or not a checkpoint"):
        checkpoint.load(tmp_path / "bad.pt")
    assert not (tmp_path / "executed").exists()
