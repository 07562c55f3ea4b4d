"""Train the first epochs of a record again, at its own commit, and compare them with its log."""

import json
import os
import platform
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from scripts.verification.reference import LEAST, predicted
from scripts.verification.runs import RESULTS, ROOT, load
from train.errors import UserError

EPOCHS = 2  # at least: until the first evaluation after so many
FRACTALS = RESULTS / "fractals"


def rerun(named: str) -> int:
    """Rerun the record in the folder ``named``, or any; 0 when its first epochs are confirmed, else 1."""
    folder = Path(named).resolve() if named else random.choice(records())
    if not (folder / "result.json").is_file():
        raise UserError(f"--rerun {named}: {folder} is not the record of a finished run, such as {records()[0]}")
    config, rows, result = load(folder)
    assert result is not None
    if "threads" not in result["hardware"]:
        raise UserError(f"--rerun {named}: the record does not say with how many threads it ran: give another one")
    expected = first_rows(rows)
    commit, steps = result["commit"], int(expected[-1]["step"])
    epochs = expected[-1]["epoch"]
    print(f"{folder}: {epochs:g} epochs, {steps} steps, at {commit[:7]}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        got = train(Path(temporary), commit, result["command"], steps, result["hardware"]["threads"])
    for then, now in zip(expected, got, strict=True):
        print(
            f"epoch {then['epoch']}: training loss {then['train_loss']:.6f} then, {now['train_loss']:.6f} now; "
            f"top-1 {then['val_top1']:.3f} then, {now['val_top1']:.3f} now"
        )
    if all(t[k] == n[k] for t, n in zip(expected, got, strict=True) for k in ("train_loss", "val_loss", "val_top1")):
        print("equal bit for bit")
        return 0
    if (result["hardware"]["cpu"].partition(" (")[0], result["versions"]["torch"]) == (cpu(), version_of("torch")):
        print("NOT what the record says, on the same CPU and torch")
        return 1
    return 0 if is_close(folder, got) else 1


def first_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Up to the first evaluation after ``EPOCHS`` epochs or more."""
    last = next((n for n, row in enumerate(rows) if row["epoch"] >= EPOCHS), len(rows) - 1)
    return rows[: last + 1]


def is_close(folder: Path, got: list[dict[str, Any]]) -> bool:
    """Whether rows of another CPU or torch are within what the seeds of that record's setting let one expect."""
    siblings = [load(p)[1] for p in folder.parent.glob(f"{folder.name.rpartition('-seed')[0]}-seed*")]
    if len(siblings) < LEAST:
        raise UserError(
            f"--rerun: not equal, on another CPU or torch, and its setting has {len(siblings)} seeds, "
            f"which give no spread: name a record of one that has {LEAST} or more"
        )
    for now in got:
        for key in ("train_loss", "val_top1"):
            low, high = predicted([row[key] for rows in siblings for row in rows if row["epoch"] == now["epoch"]])
            if not low <= now[key] <= high:
                print(f"NOT close: {key} {now[key]:.4f} at epoch {now['epoch']}, expected {low:.4f} to {high:.4f}")
                return False
    print(f"not equal, on another CPU or torch, and within what {len(siblings)} seeds let one expect")
    return True


def records() -> list[Path]:
    found = sorted(path.parent for path in FRACTALS.rglob("result.json"))
    if not found:
        raise UserError("--rerun: there are no records under results/fractals yet")
    return found


def train(temporary: Path, commit: str, command: str, steps: int, threads: int) -> list[dict[str, Any]]:
    """The rows of a run of so many ``steps`` by the code of ``commit``."""
    checkout = temporary / "checkout"
    cloned = subprocess.run(
        ["git", "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(checkout)], check=False
    )
    if (
        cloned.returncode
        or subprocess.run(["git", "checkout", "--quiet", commit], cwd=checkout, check=False).returncode
    ):
        raise UserError(f"--rerun: commit {commit} cannot be checked out; fetch the whole history first")
    words = [w for w in shlex.split(command)[2:] if not w.startswith(("runs_dir=", "name="))]
    ran = subprocess.run(
        [sys.executable, "train/main.py", *words, f"runs_dir={temporary}", "name=again", f"max_steps={steps}"],
        cwd=checkout,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    log = temporary / "again" / "log.jsonl"
    if ran.returncode or not log.exists():
        *_, last = ["it said nothing", *ran.stdout.strip().splitlines()]
        raise UserError(f"--rerun: the run ended with {ran.returncode}: {last}")
    shutil.rmtree(checkout)
    return [json.loads(line) for line in log.read_text().splitlines()]


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
