"""Images on their way from disk to the device. ``open_data`` is the door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from train.config import DataConfig, FractalsConfig, ImageNetConfig, Plan
from train.data import fractals
from train.data.index import NAMES
from train.data.loader import Loader
from train.data.memory import MemoryLoader
from train.data.sources import open_sources
from train.data.stream import StreamLoader
from train.errors import UserError
from train.world import World

ILSVRC_2012 = (1_281_167, 50_000, 1_000)


@dataclass(frozen=True)
class Data:
    """An open data set: its counts, what identifies it, what a reader must know, how to load it."""

    class_names: list[str]
    train_images: int
    val_images: int
    fingerprint: str
    remark: str
    make_loader: Callable[[Plan, int, World], Loader]

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def is_ilsvrc(self) -> bool:
        """Whether there are as many images and classes as in ILSVRC-2012."""
        return (self.train_images, self.val_images, self.classes) == ILSVRC_2012


def open_data(config: DataConfig) -> Data:
    """Find the images that ``config`` names, or make them; raises UserError when that cannot be."""
    if isinstance(config, FractalsConfig):
        return _open_fractals(config)
    assert isinstance(config, ImageNetConfig)
    if not config.root:
        raise UserError(f"data={config.name} needs data.root=DIR, or IMAGENET_DIR in the environment")
    train, val = open_sources(Path(config.root).expanduser().absolute())
    counts = (len(train), len(val), len(train.classes))
    remark = "{:,} training and {:,} validation images of {:,} classes".format(*counts)
    remark += f", from {train.index.layout}"
    if counts != ILSVRC_2012:
        remark += ": NOT ILSVRC-2012, which has {:,} and {:,} of {:,}".format(*ILSVRC_2012)
    if not train.index.is_named:
        remark += "; images have no names and keep the order in which they are stored"
    # names and labels of both, and of a pack, which is of both, how it was made
    fingerprint = train.index.fingerprint[:NAMES] + val.index.fingerprint[:NAMES] + train.index.fingerprint[NAMES:]

    def make_loader(plan: Plan, seed: int, world: World) -> Loader:
        return StreamLoader(train, val, config, plan, seed, world)

    return Data(train.classes, counts[0], counts[1], fingerprint, remark, make_loader)


def foreseen(config: DataConfig) -> Data:
    """What ``open_data`` would find, without making fractals; ILSVRC-2012 where ``data.root`` is not given yet."""
    if isinstance(config, FractalsConfig):
        classes = config.classes
        counts = (classes * config.train_per_class, classes * config.val_per_class, classes)
        remark = f"{classes} classes of fractals made by formula: NOT ImageNet"
    elif not config.root:
        counts = ILSVRC_2012
        remark = "{:,} training and {:,} validation images of {:,} classes".format(*counts)
        remark += ": ILSVRC-2012's counts, as there is no data.root yet"
    else:
        return open_data(config)

    def make_loader(plan: Plan, seed: int, world: World) -> Loader:
        raise AssertionError("these images are only foreseen")

    return Data([""] * counts[2], counts[0], counts[1], "", remark, make_loader)


def _open_fractals(config: FractalsConfig) -> Data:
    train, val = open_sources(fractals.provide(config))
    splits = [(fractals.decoded(source), source.labels(slice(None))) for source in (train, val)]
    fingerprint = fractals.fingerprint(*(pixels for pixels, _ in splits))
    remark = f"{config.classes} classes of fractals made by formula: NOT ImageNet"
    expected = fractals.FINGERPRINTS.get(fractals.shape(config))
    if expected is not None and fingerprint != expected:
        remark += f"; WARNING: not the pixels of the published results ({fingerprint[:8]}, not {expected[:8]})"

    def make_loader(plan: Plan, seed: int, world: World) -> Loader:
        return MemoryLoader(splits[0], splits[1], config, plan, seed, world)

    return Data(train.classes, len(train), len(val), fingerprint, remark, make_loader)
