"""Whole programs on the same JPEG folder: this app, timm's train script, torchvision's reference loop; and a bare step.

Started as a program, this file is one of the last two. The reference is torchvision's references/classification/
train.py without the options that are off by default, and with the memory format and the precision that all others have.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler
from torchvision import datasets, models, transforms
from tqdm import tqdm

from scripts.benchmarks.clock import DEVICE
from train.cores import cores
from train.engine.precision import Precision, native_precision

ROOT = Path(__file__).parents[2]
PRECISION = native_precision(DEVICE)  # bf16 unless the device must emulate it
# training images: the difference of two runs is free of start and end; a GPU needs more for as long a run
FEW, MANY = (128, 768) if DEVICE.type == "cpu" else (4096, 36_864)
DIFFERENT = 1280  # files; the others are links to them
BATCH, SIZE = 32 if DEVICE.type == "cpu" else 64, 224
BARE = "a bare step"


def measure(rounds: int) -> None:
    """Images/s of one epoch of ResNet-50 by each program in turn, as a share of a bare step's; peak memory of one."""
    from scripts.benchmarks.data import make_files
    from scripts.benchmarks.figures import spread, write

    programs = {"this app": ours, "torchvision's reference": torchvision_reference, BARE: bare_step}
    if "TIMM_TRAIN" in os.environ:
        programs["timm's train.py"] = timm_train
    else:
        print("timm is left out: its package has no train script; give TIMM_TRAIN=/path/to/train.py")
    # two processes on the cores of a CPU would only share what the threads of one use
    counts = (1, 2) if torch.cuda.device_count() > 1 else (1,)
    # a bare step has no peers
    runs = [(name, processes) for name in programs for processes in counts if processes == 1 or name != BARE]
    speeds: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (FEW, MANY):
            make_files(Path(folder) / str(count), count, different=DIFFERENT)
        for number in tqdm(range(rounds), desc="rounds"):
            # none is always the first
            for name, processes in runs[number % len(runs) :] + runs[: number % len(runs)]:
                took = {}
                for count in (FEW, MANY):
                    command = programs[name](Path(folder) / str(count), processes, Path(folder) / f"{number}-{count}")
                    took[count], peak = run(command, processes)
                key = f"{name}, {processes} process{'es' if processes > 1 else ''}"
                speeds.setdefault(key, []).append((MANY - FEW) / (took[MANY] - took[FEW]))
                memory[key] = max(memory.get(key, 0), peak)
    bare = speeds[f"{BARE}, 1 process"]
    shares = {
        name: spread([a / b for a, b in zip(values, bare, strict=True)])
        for name, values in speeds.items()
        if name.endswith("1 process")
    }
    for name, values in speeds.items():
        line = (
            f"{name:40}{statistics.median(values):6.1f} ({min(values):.1f}-{max(values):.1f}) {memory[name]:,.0f} MiB"
        )
        if share := shares.get(name):
            line += f"  {share['median']:.2f} of a bare step ({share['min']:.2f}-{share['max']:.2f})"
        print(line)
    write(
        "peers",
        {
            "what": f"images/s of one epoch of ResNet-50 at {SIZE} pixels, batches of {BATCH}, {PRECISION}, channels "
            "last, SGD, from JPEG files of 500x375, scale-and-aspect crop; two runs' difference: without start and end",
            "images_per_second": {name: spread(values) for name, values in speeds.items()},
            "share_of_a_bare_step": shares,
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


def workers(processes: int) -> int:
    """For each process: on a CPU, which also computes, one."""
    return 1 if DEVICE.type == "cpu" else cores(shared_by=processes)


def ours(data: Path, processes: int, out: Path) -> list[str]:
    return launched(
        "train/main.py", processes, f"data.root={data}", "batch=256", f"batch.total={BATCH}",
        f"batch.micro={BATCH // processes}", "epochs=1", "data.train_crop=scale_and_aspect", f"data.size={SIZE}",
        f"data.resize={SIZE + 32}", f"data.workers={workers(processes)}", f"precision={PRECISION}", f"runs_dir={out}",
        f"name={processes}",
    )  # fmt: skip


def torchvision_reference(data: Path, processes: int, _out: Path) -> list[str]:
    return launched(__file__, processes, "reference", str(data))


def bare_step(data: Path, processes: int, _out: Path) -> list[str]:
    return launched(__file__, processes, "bare", str(data))


def timm_train(data: Path, processes: int, out: Path) -> list[str]:
    amp = ["--amp", "--amp-dtype", "bfloat16"] if PRECISION == "bf16" else []
    return launched(
        os.environ["TIMM_TRAIN"], processes, "--data-dir", str(data), "--model", "resnet50", "--num-classes", "2",
        "--img-size", str(SIZE), "-b", str(BATCH // processes), "--epochs", "1", "--opt", "sgd", "--lr", "0.1",
        "--sched", "step", "--warmup-epochs", "0", "--workers", str(workers(processes)), "--device", DEVICE.type,
        "--reprob", "0", "--color-jitter", "0", "--channels-last", *amp, "--pin-mem", "--output", str(out),
    )  # fmt: skip


def network() -> tuple[nn.Module, torch.optim.Optimizer, Precision]:
    torch.backends.cudnn.benchmark = DEVICE.type == "cuda"
    model = models.resnet50(num_classes=2).to(memory_format=torch.channels_last).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4)
    return model.train(), optimizer, Precision.named(PRECISION, DEVICE)


def reference_loop(data: Path) -> None:
    distributed, processes = "RANK" in os.environ, int(os.environ.get("WORLD_SIZE", 1))
    if distributed:
        if DEVICE.type != "cpu":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group()
    normalise = transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    flip = [transforms.RandomHorizontalFlip(), transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float)]
    images = datasets.ImageFolder(
        str(data / "train"), transforms.Compose([transforms.RandomResizedCrop(SIZE), *flip, normalise])
    )
    sampler = DistributedSampler(images) if distributed else RandomSampler(images)
    loader = DataLoader(
        images, BATCH // processes, sampler=sampler, num_workers=workers(processes), pin_memory=DEVICE.type != "cpu"
    )
    model, optimizer, precision = network()
    stepped = nn.parallel.DistributedDataParallel(model) if distributed else model
    criterion = nn.CrossEntropyLoss()
    for image, target in loader:
        image, target = image.to(DEVICE, non_blocking=True), target.to(DEVICE, non_blocking=True)
        with precision.autocast():
            output = stepped(image.to(memory_format=torch.channels_last))
            loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # what its MetricLogger reads in each step
        loss.item(), (output.argmax(1) == target).float().mean().item()
    if distributed:
        torch.distributed.destroy_process_group()


def bare_loop(data: Path) -> None:
    """Forward, backward and step on one batch already in memory, as often as the files would make batches."""
    model, optimizer, precision = network()
    images = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last).to(DEVICE)
    labels = torch.zeros(BATCH, dtype=torch.int64, device=DEVICE)
    for _ in range(int(data.name) // BATCH):
        with precision.autocast():
            logits = model(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    if DEVICE.type != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    {"reference": reference_loop, "bare": bare_loop}[sys.argv[1]](Path(sys.argv[2]))
