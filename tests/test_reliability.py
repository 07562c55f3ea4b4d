"""What a run survives: other process counts, dead workers, lost neighbours, NaN, bad files, bad keys."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from scripts import soak
from tests.conftest import MAIN, ROOT, SMALL, App
from tests.test_layouts import content, image_folder
from tests.test_resume import assert_same_run, rows
from train import app as application
from train import checkpoint, config, loop
from train.bands import Bands
from train.errors import Diverged, Stopped, UserError
from train.main import composed
from train.signals import StopRequest
from train.watch import Watch
from train.world import World

# Processes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_one_and_two_processes_end_as_one(app: App, tmp_path: Path):
    # at larger learning rates rounding alone grows to more in 20 steps
    arguments = [*SMALL, "epochs=5", "optimizer.lr=0.1", "name=run"]
    for name, stops in (("moved", ((2, 7), (1, 14), (2, 20))), ("still", ((1, 20),))):
        for processes, stop in stops:
            done = app(*arguments, f"runs_dir={name}", f"nproc={processes}", f"max_steps={stop}")
            assert done.returncode == 0, done.stderr
    ends = [torch.load(tmp_path / name / "run/weights.pt") for name in ("moved", "still")]
    for key, a in ends[0].items():
        b = ends[1][key]
        assert (a.double() - b.double()).norm() <= 1e-4 * b.double().norm(), key
    assert [row["step"] for row in rows(tmp_path / "moved/run")] == [4, 8, 12, 16, 20]


def test_torchrun_brings_back_a_killed_worker(tmp_path: Path):
    tally = soak.Soak(tmp_path)
    assert tally.max_restarts() == 1
    assert not tally.leavings()


def test_a_process_that_waits_in_vain_says_for_what(tmp_path: Path):
    command = [sys.executable, str(MAIN), *SMALL, "epochs=400", "nproc=2", "timeout_minutes=0.1", "name=run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "runs/run/log.jsonl").exists() or not rows(tmp_path / "runs/run"):
        assert process.poll() is None
        time.sleep(0.05)
    stopped = soak.children(process.pid)[1]
    os.kill(stopped, signal.SIGSTOP)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "of 2 lost the others while" in line and "start the same command again" in line and "Traceback" not in said


def test_a_second_interrupt_leaves_at_once_and_the_last_checkpoint_is_intact(tmp_path: Path):
    # a micro-batch of some seconds
    arguments = [*SMALL, "model=resnet50", "data.size=128", "batch.micro=128", "epochs=3", "name=run"]
    process = subprocess.Popen([sys.executable, str(MAIN), *arguments, "checkpoint.every_minutes=0"], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    while not checkpoint.newest_first(tmp_path / "runs/run/checkpoints"):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 75 and "leaving at once; the last checkpoint is intact" in said
    assert checkpoint.load_newest(tmp_path / "runs/run/checkpoints")[1] == []


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


# as SLURM does: the command once on each node, here side by side. srun takes SIGTERM for the order to kill them
# (src/srun/libsrun/srun_job.c, launch_g_fwd_signal(SIGKILL)); scancel signals every process of the step
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for node in $(seq "${SLURM_NNODES:-1}"); do "$@" & tasks="$tasks $!"; done
echo $tasks > "$STUBS/tasks"
trap 'kill -KILL $tasks' TERM
code=0
for task in $tasks; do
    while kill -0 "$task" 2>/dev/null; do wait "$task"; done
    wait "$task" || code=$?
done
exit $code
"""
SCANCEL = """#!/bin/bash
[ "$*" = "--signal=TERM 77.0" ] || exit 1
signal() { for child in $(pgrep -P $1); do signal $child; done; kill -TERM $1; }
for task in $(cat "$STUBS/tasks"); do signal $task; done
"""
STUBS = {
    "srun": SRUN,
    "scancel": SCANCEL,
    "scontrol": '#!/bin/sh\nif [ "$1" = show ]; then echo localhost; else echo "$@" >> "$STUBS/requeued"; fi\n',
}


@pytest.mark.slow
def test_a_slurm_job_requeues_itself_when_it_was_stopped_and_not_when_it_is_through(tmp_path: Path):
    """On two nodes with a process each, then on one node with two."""
    for name, text in STUBS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    from tests.test_processes import free_port

    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ, "PATH": path, "STUBS": str(tmp_path), "SLURM_JOB_ID": "77", "SLURM_NNODES": "2",
        "PROCESSES_PER_NODE": "1", "SLURM_SUBMIT_DIR": str(ROOT), "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    command = ["bash", str(ROOT / "scripts/slurm.sbatch"), *SMALL, "epochs=30", "name=run", f"runs_dir={tmp_path}/runs"]
    job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (tmp_path / "runs/run/log.jsonl").exists() or not rows(tmp_path / "runs/run"):
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0 and "stopped and saved: back into the queue" in said, said
    assert "x 2 processes" in said and said.count("finished") == 0
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    environment |= {"SLURM_NNODES": "1", "PROCESSES_PER_NODE": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "after step" in done.stdout and "finished" in done.stdout, done.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    # the marker of an earlier attempt is not this one's
    (tmp_path / "runs/run/stopped").touch()
    (tmp_path / "requeued").unlink()
    failed = subprocess.run([*command, "epochs=0"], env=environment, capture_output=True, text=True, timeout=200)
    assert failed.returncode != 0 and not (tmp_path / "requeued").exists(), failed.stdout
    refused = subprocess.run(command[:3], env=environment, capture_output=True, text=True)
    assert refused.returncode == 2 and "give name=NAME" in refused.stderr


# Checkpoints -----------------------------------------------------------------------------------------------------


def test_the_last_two_and_the_best_are_kept(app: App, tmp_path: Path):
    assert app(*SMALL, "epochs=3", "name=run", "checkpoint.every_minutes=0").returncode == 0
    run = tmp_path / "runs/run"
    kinds = [path.name[:14] for path in checkpoint.newest_first(run / "checkpoints")]
    best = max(rows(run), key=lambda row: (row["val_top1"], -row["step"]))["step"]
    assert sorted(kinds) == [f"best-{best:09d}", "step-000000011", "step-000000012"]
    state = checkpoint.load(checkpoint.newest_first(run / "checkpoints", "best")[0])
    assert state["position"]["best_top1"] == max(row["val_top1"] for row in rows(run))
    torch.load(checkpoint.newest_first(run / "checkpoints")[0], weights_only=True)


def test_training_goes_on_while_a_checkpoint_is_written_and_later_changes_are_not_in_it(tmp_path: Path):
    writer, weights = checkpoint.Writer(tmp_path, keep=2), torch.zeros(1000)
    with mock.patch.object(checkpoint, "to_bytes", side_effect=lambda s: time.sleep(0.3) or real(s)):
        began = time.monotonic()
        writer.save(1, {"model": {"w": weights}})
        held = time.monotonic() - began
        weights += 1
        writer.wait()
    assert held < 0.2
    assert checkpoint.load_newest(tmp_path)[0]["model"]["w"].sum() == 0


real = checkpoint.to_bytes


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path: Path):
    (tmp_path / ".step-000000001-0123456789abcdef.pt.tmp").write_text("half")
    checkpoint.Writer(tmp_path, keep=2)
    assert not list(tmp_path.iterdir())


# Divergence ------------------------------------------------------------------------------------------------------


def test_the_first_bad_step_and_its_layers_are_remembered():
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(3)]
    sgd, watch = torch.optim.SGD(params, lr=0.1), Watch(params, torch.device("cpu"))
    for step, bad in enumerate(([], [1], [0, 1, 2])):
        for i, p in enumerate(params):
            p.grad = torch.full((3,), float("nan") if i in bad else 1.0)
        watch.note(step, sgd, torch.tensor(1.0))
        assert watch.read() == (None if step == 0 else (1, [1]))
    watch = Watch(params, torch.device("cpu"))
    for p in params:
        p.grad = torch.ones(3)
    watch.note(7, sgd, torch.tensor(float("inf")))
    assert watch.read() == (7, [])


def test_watching_never_waits_for_the_device():
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.empty(3, device="cuda"))]
        params[0].grad = torch.empty(3, device="cuda")
        watch = Watch(params, torch.device("cuda"))
        watch.note(0, torch.optim.SGD(params, lr=0.1), torch.empty((), device="cuda"))


def poisoned(above: float, at: int):
    """``train_step``, but gradients of step ``at`` are NaN while lr is above ``above``."""
    whole, seen = loop.train_step, []

    def step(model, optimizer, batches, count, *rest, lr, watch, **options):
        def spoil(loss):
            if watch.args[0] == at and lr > above:
                seen.append(lr)
                for p in list(model.parameters())[3:5]:
                    p.grad.fill_(float("nan"))
            watch(loss)

        return whole(model, optimizer, batches, count, *rest, lr=lr, watch=spoil, **options)

    return step, seen


def in_process(tmp_path: Path, *overrides: str) -> config.Config:
    return composed(*SMALL, "epochs=3", "name=run", f"runs_dir={tmp_path}", *overrides)


def test_a_restart_goes_back_with_half_the_lr_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    chosen = in_process(tmp_path, "optimizer=sgd", "optimizer.lr=0.8", "on_divergence=restart")
    step, seen = poisoned(above=0.1, at=6)
    with mock.patch.object(loop, "train_step", step):
        application.train(chosen, World(), StopRequest(), "test")
    assert len(seen) == 2 and seen[1] == pytest.approx(seen[0] / 2)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert [r["diverged_at"] for r in result["restarts"]] == [6, 6]
    assert [r["lr_scale"] for r in result["restarts"]] == [0.5, 0.25]
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [1, 2, 3]
    said = capsys.readouterr().out
    assert "no finite gradient of block1.conv1.weight, block1.bn1.weight" in said
    assert "with 0.25 of the learning rate" in said


def test_a_run_that_diverges_again_and_again_ends_with_3(tmp_path: Path):
    chosen = in_process(tmp_path, "optimizer=sgd", "on_divergence=restart")
    step, seen = poisoned(above=0, at=6)
    with mock.patch.object(loop, "train_step", step), pytest.raises(Diverged, match="at step 6"):
        application.train(chosen, World(), StopRequest(), "test")
    assert len(seen) == 1 + application.MOST_RESTARTS
    assert Diverged.exit_code == 3 and not (tmp_path / "run/result.json").exists()


# Expectations ----------------------------------------------------------------------------------------------------


def test_published_curves_pass_and_a_run_far_below_them_is_told_once():
    import csv

    with open(ROOT / "results/published/torchlars-figure.csv", newline="") as file:
        curves = [(row["batch"], int(row["epoch"]), float(row["top1"])) for row in csv.DictReader(file)]
    bands = {batch: Bands({"8192": "8k", "16384": "16k", "32768": "32k"}.get(batch, batch)) for batch, _, _ in curves}
    said = [line for batch, epoch, top1 in curves if (line := bands[batch].remark(epoch, top1))]
    assert said and all("is normal at batch=16k" in line or "is normal at batch=32k" in line for line in said)
    low = Bands("32k")
    lines = [low.remark(epoch, 20.0) for epoch in (40, 41, 42)]
    assert "20.0 % after epoch 40 is under the published range of batch=32k" in lines[0] and lines[1:] == [None, None]


# Images ----------------------------------------------------------------------------------------------------------


def spoil(root: Path) -> list[Path]:
    folder = root / "train" / "n00000042"
    bad = sorted(folder.iterdir())[:3]
    bad[0].write_bytes(b"")
    bad[1].write_text("<html>404</html>")
    bad[2].write_bytes(bad[2].read_bytes()[:400])
    return bad


def test_bad_images_stop_the_run_or_their_neighbours_stand_in_and_are_listed(app: App, tmp_path: Path):
    image_folder(tmp_path / "root")
    bad = spoil(tmp_path / "root")
    arguments = [
        f"data.root={tmp_path}/root", "model=resnet8", "data.size=32", "data.resize=40", "batch.total=12",
        "batch.micro=6", "epochs=2", "name=run", "precision=fp32",
    ]  # fmt: skip
    stopped = app(*arguments, "data.workers=2")
    assert stopped.returncode == 2 and "mend or remove the file" in stopped.stderr.splitlines()[-1]
    ends = []
    for workers in (0, 2):
        done = app(*arguments, "data.on_bad_image=skip", f"data.workers={workers}", f"runs_dir=w{workers}")
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("skipped, their neighbours stand in")]
        # once each, at the end of the epoch in which they came first
        assert all(sum(str(path) in line for line in lines) == 1 for path in bad)
        ends.append((tmp_path / f"w{workers}/run/weights.pt").read_bytes())
    assert ends[0] == ends[1]


class One:
    """A source of one image."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, index: int) -> bytes:
        return self.data

    def name(self, index: int) -> str:
        return "the image"


def test_a_thousand_mutated_files_are_pillows_or_refused(tmp_path: Path):
    from train.data.decode import training_image

    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    seeds = [content(1, 2)]
    for kind, options in (("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {})):
        out = io.BytesIO()
        noise.save(out, kind, **options)
        seeds.append(out.getvalue())
    data = config.ImageNetConfig(size=32, resize=40, train_crop="minimal")
    used = 0
    for i in range(1000):
        mutated = bytearray(seeds[i % len(seeds)])
        for _ in range(1 + i % 4):
            at = int(generator.integers(len(mutated)))
            kind = int(generator.integers(3))
            if kind == 0:
                mutated[at] = int(generator.integers(256))
            elif kind == 1:
                del mutated[at : at + int(generator.integers(1, 200))]
            else:
                mutated = mutated[: max(at, 1)]
        source = One(bytes(mutated))
        try:
            got, _ = training_image(source, 0, data, np.array([3, 4]))  # type: ignore[arg-type]
        except UserError as error:
            assert "cannot decode the image" in str(error) and "\n" not in str(error)
            continue
        used += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = Image.open(io.BytesIO(source.data)).convert("RGB").resize((40, 40), Image.Resampling.BILINEAR)
        wanted = np.asarray(whole.crop((3, 4, 35, 36))).astype(int)
        assert np.abs(got.astype(int) - wanted).max() <= 1
    assert 100 < used < 900


# Leavings --------------------------------------------------------------------------------------------------------


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def family(pid: int) -> list[int]:
    found = [pid]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += family(int(child))
    return found


def test_memory_is_flat_and_nothing_is_left_behind(tmp_path: Path):
    image_folder(tmp_path / "root")
    command = [
        sys.executable, str(MAIN), f"data.root={tmp_path}/root", "model=resnet8", "data.size=32", "data.resize=40",
        "batch.total=12", "batch.micro=6", "epochs=400", "name=run", "precision=fp32", "data.workers=2",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, sizes = tmp_path / "runs/run/log.jsonl", {}
    while len(sizes) < 6:
        assert process.poll() is None
        epochs = len(log.read_text().splitlines()) if log.exists() else 0
        if epochs >= 15 + 8 * len(sizes):
            sizes[epochs] = {pid: resident(pid) for pid in family(process.pid)}
        time.sleep(0.02)
    members = family(process.pid)
    first, *later = sizes.values()
    for size in later:
        assert size.keys() == first.keys()
        assert all(size[pid] <= 1.02 * first[pid] + 256 for pid in size), (first, size)
    shared = set().union(*(shared_memory(pid) for pid in members))
    assert shared
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/statm").exists() and resident(pid) for pid in members[1:]):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)
    assert not shared & set(os.listdir("/dev/shm"))


def shared_memory(pid: int) -> set[str]:
    """Names in /dev/shm that the process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split("/dev/shm/")[1] for line in lines if "/dev/shm/" in line and "(deleted)" not in line}


# Configuration ---------------------------------------------------------------------------------------------------

NASTY = ["", "null", "-1", "0", "1e99", "nan", "inf", "-inf", "[]", "{}", "[1,2]", "{a:1}", "true", "x", "'", "${x}",
         "1.5", "é", "../..", "99999999999999999999", "${oc.env:HOME}", "\\", "a=b", "@", "??"]  # fmt: skip


def keys() -> list[str]:
    from dataclasses import asdict

    return sorted({*config.flatten(asdict(composed())), *config.flatten(asdict(composed("data.root=/x")))})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(chosen=st.lists(st.tuples(st.sampled_from(keys()), st.sampled_from(NASTY)), min_size=1, max_size=2))
def test_any_value_of_any_key_is_taken_or_told_in_one_line(chosen, capsys):
    from hydra.core.global_hydra import GlobalHydra

    from train import main

    GlobalHydra.instance().clear()
    capsys.readouterr()
    argv = ["main.py", *(f"{key}={value}" for key, value in chosen)]
    with mock.patch.object(main, "start", return_value=0) as start, mock.patch.object(sys, "argv", argv):
        code: object = 0
        try:
            main.main()
        except SystemExit as ended:
            code = ended.code
    said = capsys.readouterr().err.strip()
    if code == 2:
        assert not start.called and said.startswith("error: ") and "\n" not in said
    else:
        assert code == 0 and start.called


def test_same_run_helper_sees_a_difference(tmp_path: Path, app: App):
    for seed in (0, 1):
        app(*SMALL, "epochs=1", f"seed={seed}", f"name=run{seed}")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "runs/run0", tmp_path / "runs/run1")
