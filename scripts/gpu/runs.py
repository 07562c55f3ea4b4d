"""Whole runs of the app on one device: against the bare step, against CPU seeds, in groups, stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from scripts.benchmarks.data import make_files
from scripts.gpu.claims import UNTRIED, Claim, Machine, judged
from scripts.gpu.steps import bare_speed
from scripts.records import FRACTALS, ROOT, read
from train.config.compose import compose
from train.data.kinds import open_data
from train.plan import Plan
from train.processes.world import World

MAIN = ROOT / "train" / "main.py"
LIMIT = 400  # seconds of one run
SHARE = 0.97  # of the bare step's speed that the whole app is to have
# t of Student's distribution at 0.995, by degrees of freedom: for a 99 % interval
T_995 = {4: 4.604, 5: 4.032, 6: 3.707, 7: 3.499, 8: 3.355, 9: 3.250}
SEEDS = 5
SMALL = [
    "data.classes=8", "data.train_per_class=64", "data.val_per_class=21", "batch=32k", "batch.total=128",
    "batch.micro=32", "precision=fp32", "epochs=3", "optimizer.lr=0.5",
]  # fmt: skip


def environment(machine: Machine) -> dict[str, str]:
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if machine.device == "cpu" else {}
    return {**os.environ, **hidden, "PYTHONPATH": str(ROOT)}


def run(machine: Machine, name: str, *overrides: str, launcher: tuple[str, ...] = (str(MAIN),)) -> Path:
    """The folder of a run of the app; raises RuntimeError with its last words when it does not end with 0."""
    command = [sys.executable, *launcher, *overrides, f"runs_dir={machine.folder / 'runs'}", f"name={name}"]
    done = subprocess.run(command, env=environment(machine), capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {(done.stderr.splitlines() or [''])[-1]}")
    return machine.folder / "runs" / name


# Parts 4 and 5: images from files


def image_files(machine: Machine) -> Path:
    """An ImageFolder of JPEG files of 500x375 pixels, of which few differ: the others are links to them."""
    root = machine.folder / "images"
    if not root.exists():
        make_files(root, *machine.sizes.images)
    return root


def loader(machine: Machine) -> Iterator[Claim]:
    """Images/s that reach the device, by the number of workers; no model runs."""
    root = image_files(machine)
    for workers in machine.sizes.workers:
        config = compose(f"data.root={root}", f"data.workers={workers}", *pixels_of(machine))
        data, world = open_data(config.data), World()
        world.device = torch.device(machine.device)
        micro = machine.sizes.eager[0]
        loading = data.make_loader(world, 0)
        began, first, images = time.perf_counter(), 0.0, 0
        for _images, labels in loading.training_batches(Plan(micro, micro, 1, 1, data.train_images, 1), 0, 0):
            if not first:
                # the pipeline is empty before: what comes after is its speed
                first = time.perf_counter()
            else:
                images += len(labels)
        if machine.device == "cuda":
            torch.cuda.synchronize()
        rate = images / max(time.perf_counter() - first, 1e-9)
        loading.close()
        yield judged(
            f"{workers} workers decode", images > 0, f"{rate:,.0f} images/s, the first after {first - began:.1f} s",
            images_per_second=rate, first_batch_seconds=first - began,
        )  # fmt: skip


def pixels_of(machine: Machine) -> list[str]:
    return [f"data.size={machine.sizes.pixels}", f"data.resize={machine.sizes.pixels + 32}"]


def end_to_end(machine: Machine) -> Iterator[Claim]:
    """The app on JPEG files against the bare step of part 3, which is timed now if it was not."""
    root, sizes = image_files(machine), machine.sizes
    micro = 64 if 64 in sizes.eager else sizes.eager[0]
    for kind, is_compiled in (("eager", False), ("compiled", True)):
        name = f"{kind}, {micro} images"
        if name not in machine.speeds:
            bare_speed(machine, micro, is_compiled)
        bare = machine.speeds[name]
        folder = run(
            machine, f"jpeg-{kind}", f"data.root={root}", "batch=8k", f"batch.total={micro * sizes.accumulation}",
            f"batch.micro={micro}", f"epochs={sizes.epochs}", "optimizer.lr=0.1", f"model={sizes.model}",
            f"compile={str(is_compiled).lower()}", *pixels_of(machine),
        )  # fmt: skip
        logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        speeds = [row["images_per_second"] for row in logged[1:]]
        share = statistics.median(speeds) / bare
        sentence = f"the app, {kind}, from JPEG files has {SHARE:.0%} of the bare step's speed"
        why = f"{statistics.median(speeds):,.0f} of {bare:,.0f} images/s, {share:.0%}"
        if sizes.is_toy:
            yield Claim(sentence, UNTRIED, "a toy is no measurement")
        else:
            yield judged(sentence, share >= SHARE, why, app=speeds, bare=bare, share=share)


# Part 6


def interval(values: list[float]) -> tuple[float, float]:
    """Where one more of the same distribution lies with 99 %: mean -+ t s sqrt(1 + 1/n)."""
    half = T_995[len(values) - 1] * statistics.stdev(values) * (1 + 1 / len(values)) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


def row_of_the_table(machine: Machine) -> Iterator[Claim]:
    """``batch=32k`` on fractals, all of its epochs, against the seeds of the same row on CPUs."""
    sentence = "batch=32k on fractals ends where one more seed on a CPU would, with 99 %"
    filed = sorted((FRACTALS / "rows").glob("32k-lars-seed*"))
    if len(filed) < SEEDS:
        yield Claim(sentence, UNTRIED, f"{len(filed)} seeds on CPUs are committed, and it takes {SEEDS}")
        return
    if machine.sizes.is_toy:
        yield Claim(sentence, UNTRIED, "a toy does not train the row")
        return
    seeds = [read(path) for path in filed]
    precision = f"precision={seeds[0].config.precision}"
    folder = run(machine, "row", "batch=32k", precision, f"epochs={machine.sizes.row_epochs}")
    low, high = interval([seed.last for seed in seeds])
    ended = float(json.loads((folder / "result.json").read_text())["last_top1"])
    yield judged(
        sentence, low <= ended <= high, f"{ended:.2f} %, of {low:.2f} to {high:.2f}", top1=ended, of=[low, high]
    )


# Part 7


def groups(machine: Machine) -> Iterator[Claim]:
    """A group of one process over NCCL, and of two over gloo that share the GPU, against no group."""
    alone = torch.load(run(machine, "one", *SMALL) / "weights.pt", map_location="cpu")
    backend = "gloo" if machine.device == "cpu" else "nccl"
    for name, processes, how, off in (("ddp", 1, backend, 1e-6), ("two", 2, "gloo", 1e-4)):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
        program = str(ROOT / "scripts" / "gpu" / "in_a_group.py")
        folder = run(machine, name, how, *SMALL, launcher=(*launcher, program))
        weights = torch.load(folder / "weights.pt", map_location="cpu")
        apart = {
            k: float((w.double() - alone[k].double()).norm() / alone[k].double().norm().clamp(min=1e-12))
            for k, w in weights.items()
        }
        worst = max(apart, key=lambda name: apart[name])
        yield judged(
            f"DDP over {how} with {processes} process{'es' if processes > 1 else ''} ends with one process's weights",
            apart[worst] < off,
            f"off by {apart[worst]:.0e} at most ({worst})",
            off=apart[worst],
        )


# Part 8


def stops(machine: Machine) -> Iterator[Claim]:
    """A run that is stopped by a signal, one that is compiled and averaged, and one whose images grow: all resume."""
    arguments = [*SMALL, "epochs=200"]
    folder, ended = signalled(machine, "stopped", *arguments)
    yield judged("a run that SIGTERM stops says that it saved everything", ended == 75, f"exit code {ended}")
    is_saved = (folder / "stopped").exists() and any((folder / "checkpoints").iterdir())
    yield judged("it leaves a checkpoint and the file 'stopped'", is_saved, str(folder.name))
    done = run(machine, "stopped", *arguments, "max_steps=40")
    yield judged("the same command goes on from there", not (done / "stopped").exists(), "")
    both = [*SMALL, "compile=true", "ema=0.9"]
    run(machine, "compiled", *both, "max_steps=5")
    finished = run(machine, "compiled", *both)
    yield judged("compile=true with ema resumes and finishes", (finished / "result.json").exists(), "")
    grown = run(machine, "grown", *SMALL, "compile=true", "data.progressive.start=16", "data.progressive.epochs=[0,2]")
    yield judged("compile=true with images that grow finishes", (grown / "result.json").exists(), "")


def signalled(machine: Machine, name: str, *overrides: str) -> tuple[Path, int]:
    """The folder and the exit code of a run that gets SIGTERM once it has logged a row."""
    folder = machine.folder / "runs" / name
    command = [sys.executable, str(MAIN), *overrides, f"runs_dir={folder.parent}", f"name={name}"]
    process = subprocess.Popen(
        command, env=environment(machine), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    log, deadline = folder / "log.jsonl", time.monotonic() + LIMIT
    while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    return folder, process.wait(LIMIT)
