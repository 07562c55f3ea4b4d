"""What the tests share: the app as a user starts it, small runs and data, and processes."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from lars.tests.reference import free_port as free_port
from lars.tests.reference import spawn as spawn
from train import app
from train.config.compose import compose, default_name
from train.config.groups import CONFIGS
from train.config.overrides import parse
from train.config.schema import Config
from train.data import fractals
from train.data.dataset import Data, ProgressiveConfig
from train.data.kinds import open_data
from train.data.sources import Source
from train.engine.batchnorm import RunningStatistics
from train.engine.precision import Precision
from train.engine.step import Step
from train.engine.stop import StopVotes
from train.plan import Plan, make_plan
from train.processes.signals import StopRequest
from train.processes.world import World
from train.schedule import ScheduleConfig, make_schedule

ROOT = Path(__file__).parents[1]
MAIN = ROOT / "train" / "main.py"

# 512 training and 168 validation images of 8 classes: 4 steps an epoch
SMALL = [
    "data.classes=8", "data.train_per_class=64", "data.val_per_class=21", "data.report_per_class=3",
    "batch.total=128", "batch.micro=32", "precision=fp32",
]  # fmt: skip

SMOOTHING = 0.1  # of the labels, in steps without the app

App = Callable[..., subprocess.CompletedProcess]


def plan_for(config: Config, train_images: int, processes: int = 1) -> Plan:
    return make_plan(config.batch, config.epochs, train_images, processes)


def name_of(*overrides: str) -> str:
    """The default name of a run."""
    config = compose(*overrides)
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return default_name(config, parse(overrides).overrides)


def train_here(folder: Path, *overrides: str) -> Path:
    """Train in this process; the run's folder."""
    config = compose(f"runs_dir={folder}", "name=run", *overrides)
    app.train(config, World(), StopRequest(), "test")
    return folder / "run"


def build(rank: int, size: int, port: int, *overrides: str) -> tuple[World, Data, Plan, nn.Module, Config]:
    """The app's own parts on one of ``size`` processes."""
    world = join(rank, size, port)
    return world, *parts(world, *overrides)


def parts(world: World, *overrides: str) -> tuple[Data, Plan, nn.Module, Config]:
    """The app's own parts on a process that has joined its group."""
    config = compose(*SMALL, *overrides)
    data = open_data(config.data)
    plan = plan_for(config, data.train_images, world.size)
    return data, plan, app.build_model(config, data.classes, world), config


def join(rank: int, size: int, port: int) -> World:
    """The process group of ``size`` processes on this machine, each with one thread."""
    if size > 1:
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size),
            MASTER_ADDR="localhost", MASTER_PORT=str(port),
        )  # fmt: skip
    torch.set_num_threads(1)
    return World.join() if size > 1 else World()


class Contents:
    """A source of images in memory."""

    def __init__(self, contents: list[bytes]) -> None:
        self._contents = contents

    def read(self, index: int) -> bytes:
        return self._contents[index]

    def name(self, index: int) -> str:
        return f"image {index}"


def fractals_config(**changes: object) -> fractals.Config:
    """A tiny data set: 3 classes of 4 and 2 images."""
    small = {
        "name": "fractals", "root": None, "batch_divisor": 8, "micro": 32, "workers": 0,
        "mean": [0.5] * 3, "std": [0.25] * 3,
        "classes": 3, "train_per_class": 4, "val_per_class": 2, "report_per_class": 2, "split": "selection",
        "size": 32, "shift": 2,
        "progressive": ProgressiveConfig(start=None, epochs=[0, 60], multiple=8),
    }  # fmt: skip
    return fractals.Config(**{**small, **changes})  # type: ignore[arg-type]


def poly2(step: int, steps_per_epoch: int = 10, epochs: int = 90, lr: float = 29.0, **changes: object) -> float:
    """poly(2) after a warm-up of 5 epochs, with ``changes`` to the schedule."""
    defaults = {
        "decay": "poly", "power": 2, "end_lr": 0.0, "milestones": [], "factor": 1.0, "origin": "start",
        "warmup_lr": 0.0, "warmup_epochs": 5,
    }  # fmt: skip
    plan = Plan(1, 1, 1, 1, train_images=steps_per_epoch, epochs=epochs)
    return make_schedule(ScheduleConfig(**{**defaults, **changes}), lr, plan)(step)  # type: ignore[arg-type]


TIMES = {"images_per_second", "seconds"}


def rows(run: Path) -> list[dict]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def assert_same_run(a: Path, b: Path) -> None:
    first, second = torch.load(a / "weights.pt"), torch.load(b / "weights.pt")
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    assert rows(a) == rows(b)
    results = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    for key in ("best_top1", "last_top1", "steps", "data_fingerprint", "parameters"):
        assert results[0][key] == results[1][key]


def start_and_signal(folder: Path, number: int, *arguments: str) -> tuple[int, str]:
    """Start a run, send ``number`` once it has logged a row, and return its exit code and its stderr."""
    process = subprocess.Popen(
        [sys.executable, str(MAIN), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.time() + 120
    while not any(log.stat().st_size for log in folder.glob("runs/*/log.jsonl")):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


WNIDS = ["n01440764", "n02100735", "n02119789"]  # of ILSVRC 2012, where their numbers are 449, 2 and 1


Image_ = tuple[str, str, int, bytes]  # split, file name, label, content


def images() -> Iterator[Image_]:
    """24 training and 9 validation images; class 1 has one whose name sorts elsewhere with its ending than without."""
    number = 0
    for label, wnid in enumerate(WNIDS):
        for i in range(8):
            name = f"{wnid}_{i}.JPEG" if (label, i) != (1, 3) else f"{wnid}_2-1.JPEG"
            yield "train", name, label, content(label, i)
    for i in range(3):
        for label in (2, 0, 1):
            number += 1
            yield "val", f"ILSVRC2012_val_{number:08d}.JPEG", label, content(label, 50 + i)


def content(label: int, number: int) -> bytes:
    generator = np.random.default_rng(100 * label + number)
    pixels = generator.integers(80 * label, 80 * label + 80, (40 + number % 9, 60, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def image_folder(root: Path) -> None:
    for split, name, label, data in images():
        path = root / split / WNIDS[label] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return out.getvalue()


def shards(root: Path) -> None:
    """As timm/imagenet-1k-wds: shuffled over shards, a class number in .cls, the rest in .json."""
    for split, word in (("train", "train"), ("val", "validation")):
        mine = [image for image in images() if image[0] == split]
        for i in range(3):
            files = {}
            for _, name, label, data in mine[i::3]:
                stem = Path(name).stem
                files |= {f"{stem}.cls": str(label).encode(), f"{stem}.jpg": data}
                files[f"{stem}.json"] = json.dumps({"label": label, "filename": name}).encode()
            (root / f"imagenet1k-{word}-{i:04d}.tar").write_bytes(tar_of(files))


def parquet(root: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (root / "data").mkdir()
    features = {"info": {"features": {"label": {"names": ["zebra", "ant", "mole"], "_type": "ClassLabel"}}}}
    for split, word in (("train", "train"), ("val", "validation")):
        mine = [image for image in images() if image[0] == split]
        for i in range(2):
            part = mine[i::2]
            paths = [f"{Path(n).stem}_{WNIDS[label]}.JPEG" for _, n, label, _ in part]
            pictures = [{"bytes": d, "path": p} for (_, _, _, d), p in zip(part, paths, strict=True)]
            table = pa.table({"image": pictures, "label": [label for _, _, label, _ in part]})
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
            pq.write_table(table, root / "data" / f"{word}-{i:05d}-of-00002.parquet", row_group_size=3)


def script(name: str, *arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Run a program of ``scripts`` and wait for its end."""
    command = [sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, **options)  # type: ignore


def everything(source: Source) -> list[tuple[int, bytes]]:
    labels = source.labels(slice(None)).tolist()
    return [(labels[i], source.read(i)) for i in range(len(source))]


def expected(split: str) -> list[tuple[int, bytes]]:
    mine = [image for image in images() if image[0] == split]
    return [(label, data) for _, _, label, data in sorted(mine, key=lambda i: (i[2], Path(i[1]).stem))]


SIZES = [(500, 375), (375, 500), (640, 480), (320, 240), (800, 600), (333, 500)]


COLOURS = [(200, 40, 40), (40, 160, 60), (50, 60, 200)]


def picture(label: int, number: int) -> Image.Image:
    """Stripes whose colour and direction tell the class, with noise."""
    generator = np.random.default_rng(100 * label + number)
    width, height = SIZES[number % len(SIZES)]
    y, x = np.mgrid[0:height, 0:width]
    phase = (x if label == 0 else y if label == 1 else x + y) / 20
    base = np.array(COLOURS[label]) * (0.6 + 0.4 * np.sin(phase))[..., None]
    return Image.fromarray(np.clip(base + generator.normal(0, 20, base.shape), 0, 255).astype(np.uint8))


def connected(
    model: nn.Module, count: int, device: str = "cpu", optimizer: Optimizer | None = None, **statistics: Any
) -> Step:
    """A step of ``count`` micro-batches; without an ``optimizer`` it is SGD's."""
    world, precision = World(), Precision(torch.device(device))
    return Step(
        model=model,
        optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.0),
        statistics=RunningStatistics(model, world),
        votes=StopVotes(world, lambda: False),
        world=world,
        precision=precision,
        label_smoothing=SMOOTHING,
        micro_batches=count,
        scaler=precision.scaler(),
        **statistics,
    )


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Of the mean loss over these images, wholly in float64."""
    loss = F.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)
    return torch.autograd.grad(loss, list(model.parameters()))


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).norm() / y.norm()) for x, y in zip(a, b, strict=True))
