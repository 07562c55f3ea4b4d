"""``data=imagenet``: ILSVRC-2012, or any images of one's own in a layout that ``train/data/layouts`` recognises."""

import os
from dataclasses import dataclass
from pathlib import Path

from train.data.augment import Crop
from train.data.dataset import ILSVRC_2012, Data, DataConfig
from train.errors import UserError
from train.keys import key


@dataclass(kw_only=True)
class Config(DataConfig):
    size: int = key(range="32 to `data.resize`")
    classes_from: str | None
    resize: int = key(range="at least `data.size`")
    train_crop: str = key(one_of=("minimal", "scale_and_aspect"))
    min_area: float = key(above=0, most=1)
    eval_resize: str = key(one_of=("square", "shorter"))
    on_bad_image: str = key(one_of=("stop", "skip"), free_on_resume=True)

    def check(self) -> None:
        super().check()
        if self.split == "report":
            raise UserError(f"data.split=report: data={self.name} has no third split, only train and val")
        if not 32 <= self.size <= self.resize:
            raise UserError(f"data.size={self.size} must be at least 32 and at most data.resize={self.resize}")

    def crop(self, epoch: int | None) -> Crop:
        """How images are cropped in ``epoch``, or None for an evaluation: the sizes may grow on the way."""
        size = self.size if epoch is None else self.progressive.size(self.size, epoch)
        resize = self.resize * size // self.size
        return Crop(size, resize, self.train_crop, self.min_area, self.eval_resize)


def open_data(config: Config) -> Data:
    from train.data.index import NAMES
    from train.data.loader import Loader, Process
    from train.data.sources import open_sources
    from train.data.stream import StreamLoader

    if not config.root:
        raise UserError(f"data={config.name} needs data.root=DIR, or IMAGENET_DIR in the environment")
    classes_from = Path(os.path.expanduser(config.classes_from)) if config.classes_from else None
    train, val = open_sources(Path(os.path.expanduser(config.root)).absolute(), classes_from)
    counts = (len(train), len(val), len(train.classes))
    remark = "{:,} training and {:,} validation images of {:,} classes".format(*counts)
    remark += f", from {train.index.layout}"
    if counts != ILSVRC_2012:
        remark += ": NOT ILSVRC-2012, which has {:,} and {:,} of {:,}".format(*ILSVRC_2012)
    if val.index.val_split == "test":
        remark += "; there is no validation split: test stands in for it, and a setting chosen on it is not tested"
    if not train.index.is_named:
        remark += "; images have no names and keep the order in which they are stored"
    # names and labels of both splits, and once, because a pack holds both, how a pack was made
    fingerprint = train.index.fingerprint[:NAMES] + val.index.fingerprint[:NAMES] + train.index.fingerprint[NAMES:]

    def make_loader(process: Process, seed: int) -> Loader:
        skip_bad_images = config.on_bad_image == "skip"
        return StreamLoader(train, val, config, config.crop, skip_bad_images, process, seed)

    return Data(train.classes, counts[0], counts[1], fingerprint, remark, make_loader)
