"""Break runs in every way that a cluster does, for a given time, and count what was lost.

Usage: python scripts/soak.py [--minutes 30] [--out results/reliability.md]

Every fault hits a real run of small size. It is started again until it ends, and then compared with an
undisturbed run: ``weights.pt`` byte for byte, ``log.jsonl`` except for times.
"""

import argparse
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.command import exit_with
from scripts.records import ROOT
from train.errors import Stopped
from train.output import checkpoint, environment

MAIN = ROOT / "train" / "main.py"
STEPS_AN_EPOCH = 4
SMALL = [
    "data.classes=8", "data.train_per_class=64", "data.val_per_class=21", "batch.total=128", "batch.micro=32",
    "precision=fp32", "epochs=5", "checkpoint.every_minutes=0", "name=run",
]  # fmt: skip
TIMES = {"images_per_second", "seconds"}
KILLS = 8  # of one run, before it is left to end
PATIENCE = 180  # seconds that any run may take
GRACE = 30  # seconds that torchrun gives a worker after SIGTERM


@dataclass
class Tally:
    """The outcome of the faults of one kind."""

    injected: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)


class Lost(Exception):
    """A run that lost something, and what it printed."""

    def __str__(self) -> str:
        return "\n".join(self.args)


def start(folder: Path, cache: Path, *arguments: str, torchrun: list[str] | None = None) -> subprocess.Popen:
    launcher = [] if torchrun is None else ["-m", "torch.distributed.run", "--standalone", *torchrun]
    return program(folder, cache, *launcher, str(MAIN), *arguments)


def program(folder: Path, cache: Path, *arguments: str) -> subprocess.Popen:
    """Python with ``arguments``, in a process group of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen, expected: tuple[int, ...] = (0,)) -> str:
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise Lost(f"still running after {PATIENCE} s") from None
    if process.returncode not in expected:
        raise Lost(f"exit code {process.returncode}", said)
    if "Traceback" in said and process.returncode == 0:
        raise Lost("a traceback", said)
    return said


def killed_until_through(launched: Callable[[], subprocess.Popen], latest: float, check: Callable[[], None]) -> int:
    """Start it again after each SIGKILL, within ``latest`` seconds (those of an undisturbed one); how many it took."""
    for kills in range(KILLS):
        process = launched()
        try:
            process.wait(timeout=random.uniform(0.3, latest))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            check()
        else:
            finish(process)
            return kills
    finish(launched())
    return KILLS


def rows(run: Path) -> list[dict[str, float]]:
    path = run / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def compare(run: Path, whole: Path) -> None:
    if (run / "weights.pt").read_bytes() != (whole / "weights.pt").read_bytes():
        raise Lost("other weights")
    if rows(run) != rows(whole):
        raise Lost("another log")
    for path in (run / "checkpoints").iterdir():
        checkpoint.load(path)


def whole_run(folder: Path, cache: Path, torchrun: list[str] | None = None) -> tuple[Path, float]:
    """An undisturbed run, and the seconds that it took."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    finish(start(folder, cache, *SMALL, torchrun=torchrun))
    return folder / "runs" / "run", time.monotonic() - began


class Soak:
    """The faults, each a method that injects one or a few into a run in a fresh folder."""

    def __init__(self, base: Path) -> None:
        self.base, self.cache = base, base / "cache"
        self.number = 0
        self.whole, self.seconds = whole_run(base / "whole", self.cache)  # it draws the images, too

    @cached_property
    def whole_of_two(self) -> Path:
        return whole_run(self.base / "whole2", self.cache, torchrun=["--nproc-per-node", "2"])[0]

    def fresh(self) -> Path:
        self.number += 1
        folder = self.base / f"run{self.number}"
        folder.mkdir()
        return folder

    def sigkill(self) -> int:
        """Kills of one run at random instants, until it is through, data and index made on the way."""
        folder = self.fresh()
        run = folder / "runs" / "run"
        kills = killed_until_through(
            lambda: start(folder, folder / "cache", *SMALL), self.seconds, lambda: self._lost_no_more_than_a_step(run)
        )
        compare(run, self.whole)
        return kills

    def _lost_no_more_than_a_step(self, run: Path) -> None:
        done = STEPS_AN_EPOCH * len(rows(run)) if run.exists() else 0
        state, damaged = checkpoint.load_newest(run / "checkpoints")
        saved = state["position"]["step"] if state else 0
        if damaged:
            raise Lost(f"unreadable: {damaged}")
        if saved < done - 1:
            raise Lost(f"step {saved} saved, {done} done")

    def archives(self) -> int:
        """Kills while an index is made and a pack is written."""
        folder = self.fresh()
        source = next((self.cache / "lars-imagenet").glob("fractals-*"))
        root, out = folder / "root", folder / "out"
        root.mkdir()
        for split in ("train", "val"):
            with tarfile.open(root / f"{split}-0.tar", "w") as tar:
                for path in sorted((source / split).rglob("*.jpg")):
                    name = f"{path.parent.name}-{path.stem}"
                    tar.add(path, f"{name}.jpg")
                    label = folder / "label"
                    label.write_text(str(int(path.parent.name)))
                    tar.add(label, f"{name}.cls")

        def pack(to: Path) -> subprocess.Popen:
            arguments = (str(ROOT / "scripts" / "pack.py"), str(root), str(to), "--workers", "1")
            return program(folder, self.cache, *arguments)

        whole = folder / "whole"
        began = time.monotonic()
        finish(pack(whole))
        kills = killed_until_through(lambda: pack(out), time.monotonic() - began, lambda: None)
        for path in whole.glob("*.tar"):
            if path.read_bytes() != (out / path.name).read_bytes():
                raise Lost(f"another {path.name}")
        return kills

    def signals(self) -> int:
        """One of the three signals, to the launcher or to a single worker of two, at a random instant."""
        folder = self.fresh()
        run = folder / "runs" / "run"
        process = start(folder, self.cache, *SMALL, "nproc=2")
        time.sleep(random.uniform(2, 12))
        number = random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
        workers = children(process.pid)
        target = random.choice([process.pid, *workers])
        if process.poll() is None:
            os.kill(target, number)
        began = time.monotonic()
        finish(process, (0, Stopped.exit_code))
        if time.monotonic() - began > GRACE + 10:
            raise Lost(f"{time.monotonic() - began:.0f} s after {number}")
        if process.returncode == 0:
            compare(run, self.whole_of_two)
            return 1
        # until training begins there is nothing to mark
        if (run / "log.jsonl").exists() and not (run / "stopped").exists() and checkpoints(run):
            raise Lost("no marker")
        finish(start(folder, self.cache, *SMALL, "nproc=2"))
        compare(run, self.whole_of_two)
        return 1

    def max_restarts(self) -> int:
        """SIGKILL of one worker of two under torchrun --max-restarts, which restarts the job."""
        folder = self.fresh()
        run = folder / "runs" / "run"
        process = start(folder, self.cache, *SMALL, torchrun=["--nproc-per-node", "2", "--max-restarts", "3"])
        while process.poll() is None and not rows(run):
            time.sleep(0.05)
        time.sleep(random.uniform(0, 0.5))
        workers = children(process.pid)
        if not workers:
            finish(process)
            return 0
        os.kill(random.choice(workers), signal.SIGKILL)
        finish(process)
        compare(run, self.whole_of_two)
        return 1

    def damage(self) -> int:
        """A newest checkpoint that is cut short or has a wrong bit."""
        folder = self.fresh()
        run = folder / "runs" / "run"
        finish(start(folder, self.cache, *SMALL, f"max_steps={random.randrange(2, 19)}"))
        newest = checkpoint.newest_first(run / "checkpoints")[0]
        content = bytearray(newest.read_bytes())
        if random.random() < 0.5:
            content = content[: random.randrange(len(content))]
        else:
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        newest.write_bytes(content)
        if "damaged" not in finish(start(folder, self.cache, *SMALL)):
            raise Lost("not reported")
        compare(run, self.whole)
        return 1

    def leavings(self) -> list[str]:
        """Processes that still work in our folders."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and str(self.base) in os.readlink(entry / "cwd"):
                    found.append(f"{entry.name} {(entry / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
            except OSError:
                continue
        return found


def checkpoints(run: Path) -> bool:
    return bool(checkpoint.newest_first(run / "checkpoints"))


def children(pid: int) -> list[int]:
    """The workers of a launcher."""
    try:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    commands = {child: Path(f"/proc/{child}/cmdline") for child in found}
    return [child for child, path in commands.items() if path.exists() and b"main.py" in path.read_bytes()]


FAULTS: dict[str, Callable[[Soak], int]] = {
    "SIGKILL at a random instant: start, making the data, training, evaluating, writing a checkpoint": Soak.sigkill,
    "SIGKILL at a random instant: making an index, packing": Soak.archives,
    "SIGTERM, SIGINT or SIGUSR1 to the launcher or to one of two workers": Soak.signals,
    "SIGKILL of one of two workers under `torchrun --max-restarts`": Soak.max_restarts,
    "newest checkpoint cut short or with one wrong bit": Soak.damage,
}


def soak(minutes: float, base: Path) -> tuple[dict[str, Tally], int]:
    """The outcome of each kind of fault in ``minutes``, and how many files they left in shared memory."""
    shm = set(os.listdir("/dev/shm"))
    tallies = {fault: Tally() for fault in FAULTS}
    soaking = Soak(base)
    until = time.monotonic() + 60 * minutes
    try:
        while time.monotonic() < until:
            for fault, tally in tallies.items():
                _inject(soaking, fault, tally)
            print([(tally.injected, tally.survived) for tally in tallies.values()], flush=True)
    except KeyboardInterrupt:
        for process in soaking.leavings():
            os.kill(int(process.split()[0]), signal.SIGKILL)
    return tallies, len(set(os.listdir("/dev/shm")) - shm)


def _inject(soaking: Soak, fault: str, tally: Tally) -> None:
    before = soaking.number
    try:
        count = FAULTS[fault](soaking)
        tally.injected += count
        tally.survived += count
    except (Lost, subprocess.TimeoutExpired, OSError) as error:
        tally.injected += 1
        tally.lost.append(str(error).partition("\n")[0])
        print(f"LOST: {fault}: {error} (run{before + 1})", flush=True)
    else:
        shutil.rmtree(soaking.base / f"run{before + 1}", ignore_errors=True)
    if left := soaking.leavings():
        tally.lost.append(f"left behind: {left}")
        print(f"LEFT BEHIND: {fault}: {left}", flush=True)


def markdown(tallies: dict[str, Tally], left: int, minutes: float) -> str:
    hardware, versions = environment.hardware(1), environment.versions()
    lines = [
        "# Reliability",
        "",
        "Faults put into real, small runs, which are then started again until they end and compared with an",
        "undisturbed run: `weights.pt` byte for byte, `log.jsonl` except for times, every checkpoint readable, no",
        "more lost than the last step (a checkpoint is written after each), no process left behind.",
        "",
        "| fault | injected | survived | lost |",
        "|---|---|---|---|",
        *(f"| {fault} | {t.injected} | {t.survived} | {len(t.lost)} |" for fault, t in tallies.items()),
        "",
        *(f"- {fault}: {text}" for fault, tally in tallies.items() for text in tally.lost),
        f"Left in /dev/shm: {left} named semaphores of 32 bytes. A run that ends, or whose first process alone is",
        "killed, leaves none: Python's resource tracker removes them. These are of runs that were killed with it.",
        "",
        f"`python scripts/soak.py`, {minutes:.0f} minutes on {datetime.date.today()}, commit {environment.commit()};",
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB, Python {versions['python']},",
        f"torch {versions['torch']}, gloo.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--out", type=Path, help="write the table there, too")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        tallies, left = soak(arguments.minutes, Path(folder))
    text = markdown(tallies, left, (time.monotonic() - began) / 60)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    return 1 if any(tally.lost for tally in tallies.values()) else 0


if __name__ == "__main__":
    exit_with(main)
