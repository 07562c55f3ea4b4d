"""The input pipeline against torchvision's Pillow reference and DALI: same files, same augmentation, in turn."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from tqdm import tqdm

from scripts import pack
from scripts.benchmarks.figures import spread, write
from scripts.benchmarks.training import settings
from train.config.schema import Config
from train.data import augment, imagenet
from train.data.decode import training_image
from train.data.kinds import open_data
from train.data.sources import Source, open_sources
from train.data.stream import worker_pool
from train.plan import Plan
from train.processes.world import World

IMAGES, BATCH, WORKERS = 1536, 64, 2
WIDTH, HEIGHT, QUALITY = 500, 375, 90  # ImageNet's most frequent size; files come to its mean of some 110 kB

Epoch = Callable[[], None]  # one pass over all training images


def measure(rounds: int) -> None:
    """One pass over the files by each pipeline, in turn; images/s are divided by the processes that decode."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        originals, packed = Path(folder) / "originals", Path(folder) / "packed"
        size = make_files(originals, IMAGES)
        pack.pack(originals, packed, pack.Form("square", 256, 95), WORKERS)
        unpacked = Path(folder) / "unpacked"
        as_folder(packed, unpacked)
        passes: dict[str, tuple[Epoch, int]] = {}
        for crop in ("scale_and_aspect", "minimal"):
            for kind, root, files in (("originals", originals, originals), ("packs", packed, unpacked)):
                passes[f"{crop}, {kind}: Pillow reference"] = reference(files, crop), WORKERS
                passes[f"{crop}, {kind}: this project"] = ours(root, crop), WORKERS
            passes[f"{crop}, originals: this project, no loader"] = bare(originals, crop), WORKERS
        with contextlib.suppress(ImportError):
            passes["scale_and_aspect, originals: DALI"] = dali(originals), WORKERS
        speeds = in_turn(passes, rounds)
    yardsticks = {
        "scale_and_aspect, originals: this project": "scale_and_aspect, originals: Pillow reference",
        "scale_and_aspect, originals: DALI": "scale_and_aspect, originals: Pillow reference",
        "minimal, originals: this project": "minimal, originals: Pillow reference",
        "minimal, packs: Pillow reference": "minimal, originals: Pillow reference",
        "minimal, packs: this project": "minimal, originals: Pillow reference",
    }
    ratios = {
        f"{name} / {of.partition(': ')[2]} on originals": spread(
            [a / b for a, b in zip(speeds[name], speeds[of], strict=True)]
        )
        for name, of in yardsticks.items()
        if name in speeds
    }
    for crop in ("scale_and_aspect", "minimal"):
        name = f"{crop}, originals: this project"
        pairs = zip(speeds[name], speeds[f"{name}, no loader"], strict=True)
        ratios[f"{name} / the same without a loader"] = spread([a / b for a, b in pairs])
    print(f"\n{'images/s for each process that decodes':56}median (min-max)")
    for name, values in speeds.items():
        print(f"{name:56}{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})")
    for name, figure in ratios.items():
        print(f"{name:88}{figure['median']:.2f} ({figure['min']:.2f}-{figure['max']:.2f})")
    write(
        "data",
        {
            "what": "images/s for each of two processes that decode, to batches of 64 ready for the device's copy: "
            "float32 normalised in the reference and DALI, uint8 in this project, which normalises on the device",
            "files": {
                "images": IMAGES, "pixels": f"{WIDTH}x{HEIGHT}", "jpeg_quality": QUALITY, "mean_bytes": size,
                "content": "noise with a spectrum of 1/f, as photographs have",
            },
            "images_per_second": {name: spread(values) for name, values in speeds.items()},
            "ratios": ratios,
        },
    )  # fmt: skip


def in_turn(passes: dict[str, tuple[Epoch, int]], rounds: int) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {name: [] for name in passes}
    for number in tqdm(range(rounds + 1), desc="rounds"):
        for name, (epoch, processes) in passes.items():
            began = time.perf_counter()
            epoch()
            if number:  # the first warms up
                speeds[name].append(IMAGES / (time.perf_counter() - began) / processes)
    return speeds


def photograph(generator: np.random.Generator) -> Image.Image:
    noise = np.fft.rfft2(generator.standard_normal((3, HEIGHT, WIDTH)))
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    pixels = np.fft.irfft2(noise / np.maximum(frequency, 1 / WIDTH) ** 1.1, s=(HEIGHT, WIDTH))
    pixels = (pixels - pixels.mean()) / pixels.std() * 50 + 128
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def make_files(root: Path, images: int, val_images: int = 2, different: int | None = None) -> float:
    """So many training and validation files of two classes; their mean size in bytes.

    Past ``different`` files of a split they are links to the first ones.
    """
    generator = np.random.default_rng(0)
    sizes = []
    for split, count in (("train", images), ("val", val_images)):
        for i in tqdm(range(count), desc=f"files, {split}", leave=False):
            path = root / split / f"class{i % 2}" / f"{split}{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if different is not None and i >= different:
                path.hardlink_to(root / split / f"class{i % different % 2}" / f"{split}{i % different}.jpg")
            else:
                photograph(generator).save(path, quality=QUALITY)
            sizes.append(path.stat().st_size)
    return statistics.mean(sizes)


def as_folder(packed: Path, root: Path) -> None:
    """The files of a pack, for pipelines that want a file for each image."""
    for source in open_sources(packed):
        for i, label in enumerate(source.labels(slice(None)).tolist()):
            path = root / source.index.split / f"class{label}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(i))


def reference(root: Path, crop: str) -> Epoch:
    """torchvision's references/classification with its Pillow backend; minimal: the paper's, in torchvision's terms."""
    cut: list[Any] = [transforms.RandomResizedCrop(224)]
    if crop == "minimal":
        cut = [transforms.Resize((256, 256)), transforms.RandomCrop(224)]
    normalise = transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    whole = transforms.Compose([*cut, transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalise])
    images = datasets.ImageFolder(str(root / "train"), whole)
    loader: DataLoader[Any] = DataLoader(
        images, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, drop_last=True
    )
    return lambda: consume(loader)


def ours(root: Path, crop: str) -> Epoch:
    chosen = chosen_for(root, crop)
    data = open_data(chosen.data)
    plan = Plan(BATCH, BATCH, 1, 1, data.train_images, 1)
    # what follows a worker's batch is the device's work, which the meta device does in no time
    loader = data.make_loader(MetaProcess(), 0)
    epochs = iter(range(1_000))
    return lambda: consume(loader.training_batches(plan, next(epochs), 0))


class MetaProcess(World):
    """A process whose device computes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("meta")


def bare(root: Path, crop: str) -> Epoch:
    """The function that a worker calls for each image, in as many processes, whose images go nowhere."""
    chosen = chosen_for(root, crop).data
    assert isinstance(chosen, imagenet.Config)
    source, _ = open_sources(root)
    epochs, pool = iter(range(1_000)), worker_pool(WORKERS)

    def epoch() -> None:
        number = next(epochs)
        shares = [range(i, IMAGES, WORKERS) for i in range(WORKERS)]
        for _ in pool.map(cut_all, repeat(source), shares, repeat(chosen), repeat(number)):
            pass

    return epoch


def cut_all(source: Source, indices: range, chosen: imagenet.Config, epoch: int) -> None:
    crop = chosen.crop(epoch)
    numbers = augment.random_numbers(crop, 0, epoch, np.array(indices))
    for i, mine in zip(indices, numbers, strict=True):
        training_image(source, i, crop, mine)


def chosen_for(root: Path, crop: str) -> Config:
    return settings(f"data.root={root}", f"data.train_crop={crop}", f"data.workers={WORKERS}")


def consume(batches: Iterator[Any] | DataLoader[Any]) -> None:
    seen = sum(len(labels) for _, labels in batches)
    assert seen == IMAGES, seen


def dali(root: Path) -> Epoch:
    """DALI on the CPU, as NVIDIA's ResNet-50 examples have it."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=WORKERS, device_id=None)
    def pipeline() -> Any:
        files, labels = fn.readers.file(file_root=str(root / "train"), random_shuffle=True, name="files")
        images = fn.decoders.image_random_crop(files, device="cpu", random_area=[0.08, 1.0],
                                               random_aspect_ratio=[0.75, 4 / 3])  # fmt: skip
        images = fn.resize(images, device="cpu", resize_x=224, resize_y=224, interp_type=types.INTERP_TRIANGULAR)
        images = fn.crop_mirror_normalize(
            images, dtype=types.FLOAT, output_layout="CHW", mirror=fn.random.coin_flip(),
            mean=[255 * m for m in (0.485, 0.456, 0.406)], std=[255 * s for s in (0.229, 0.224, 0.225)],
        )  # fmt: skip
        return images, labels

    made = pipeline()
    made.build()

    def epoch() -> None:
        for _ in range(IMAGES // BATCH):
            made.run()

    return epoch
