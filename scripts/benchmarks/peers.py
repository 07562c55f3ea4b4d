"""Whole programs on the same JPEG folder: this app, timm's train script, torchvision's reference loop.

Started as a program, this file is the last of the three: torchvision's references/classification/train.py without the
options that are off by default.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler
from torchvision import datasets, models, transforms
from tqdm import tqdm

from train.cores import cores

ROOT = Path(__file__).parents[2]
FEW, MANY = 256, 1280  # training images: the difference of two runs is free of start and end
BATCH, SIZE = 64, 64


def measure(rounds: int) -> None:
    """Images/s of training ResNet-50 at 64 pixels in fp32, one epoch, by 1 and 2 processes; peak memory of one."""
    from scripts.benchmarks.data import make_files
    from scripts.benchmarks.figures import spread, write

    speeds: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (FEW, MANY):
            make_files(Path(folder) / str(count), count)
        programs = {"this app": ours, "torchvision's reference": torchvision_reference}
        if "TIMM_TRAIN" in os.environ:
            programs["timm's train.py"] = timm_train
        else:
            print("timm is left out: its package has no train script; give TIMM_TRAIN=/path/to/train.py")
        runs = [(name, processes) for name in programs for processes in (1, 2)]
        # it gives DDP the CPU as a device, which DDP refuses
        runs = [run for run in runs if run != ("timm's train.py", 2)]
        for number in tqdm(range(rounds), desc="rounds"):
            for name, processes in runs:
                took = {}
                for count in (FEW, MANY):
                    command = programs[name](Path(folder) / str(count), processes, Path(folder) / f"{number}-{count}")
                    took[count], peak = run(command, processes)
                key = f"{name}, {processes} process{'es' if processes > 1 else ''}"
                speeds.setdefault(key, []).append((MANY - FEW) / (took[MANY] - took[FEW]))
                memory[key] = max(memory.get(key, 0), peak)
    for name, values in speeds.items():
        print(
            f"{name:40}{statistics.median(values):6.1f} ({min(values):.1f}-{max(values):.1f}) {memory[name]:,.0f} MiB"
        )
    write(
        "peers",
        {
            "what": f"images/s of one epoch of ResNet-50 at {SIZE} pixels, batches of {BATCH}, fp32, SGD, from JPEG "
            "files of 500x375, scale-and-aspect crop; two runs' difference, so without start and evaluation",
            "images_per_second": {name: spread(values) for name, values in speeds.items()},
            "peak_resident_mib_of_the_largest_process": memory,
        },
    )


def run(command: list[str], processes: int) -> tuple[float, float]:
    """Seconds and peak MiB."""
    threads = cores(shared_by=processes)
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)}\n{said[-3000:]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def launched(script: str, processes: int, *arguments: str) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*(torchrun if processes > 1 else []), script, *arguments]


def ours(data: Path, processes: int, out: Path) -> list[str]:
    return launched(
        "train/main.py", processes, f"data.root={data}", "batch=256", f"batch.total={BATCH}",
        f"batch.micro={BATCH // processes}", "epochs=1", "data.train_crop=scale_and_aspect", f"data.size={SIZE}",
        f"data.resize={SIZE + 8}", "data.workers=1", "precision=fp32", f"runs_dir={out}", f"name={processes}",
    )  # fmt: skip


def torchvision_reference(data: Path, processes: int, _out: Path) -> list[str]:
    return launched(__file__, processes, str(data))


def timm_train(data: Path, processes: int, out: Path) -> list[str]:
    return launched(
        os.environ["TIMM_TRAIN"], processes, "--data-dir", str(data), "--model", "resnet50", "--num-classes", "2",
        "--img-size", str(SIZE), "-b", str(BATCH // processes), "--epochs", "1", "--opt", "sgd", "--lr", "0.1",
        "--sched", "step", "--warmup-epochs", "0", "--workers", "1", "--device", "cpu", "--reprob", "0",
        "--color-jitter", "0", "--output", str(out),
    )  # fmt: skip


def reference_loop(data: Path) -> None:
    distributed = "RANK" in os.environ
    if distributed:
        torch.distributed.init_process_group("gloo")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    normalise = transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    flip = [transforms.RandomHorizontalFlip(), transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float)]
    images = datasets.ImageFolder(
        str(data / "train"), transforms.Compose([transforms.RandomResizedCrop(SIZE), *flip, normalise])
    )
    sampler = DistributedSampler(images) if distributed else RandomSampler(images)
    loader = DataLoader(images, BATCH // processes, sampler=sampler, num_workers=1, pin_memory=False)
    model: nn.Module = models.resnet50(num_classes=2)
    if distributed:
        model = nn.parallel.DistributedDataParallel(model)
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4)
    model.train()
    for image, target in loader:
        output = model(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # what its MetricLogger reads in each step
        loss.item(), (output.argmax(1) == target).float().mean().item()
    if distributed:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    reference_loop(Path(sys.argv[1]))
