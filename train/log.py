"""What a run says while it goes: a JSON row per evaluation, TensorBoard scalars, one progress line."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams, text
from tqdm import tqdm

from train.checkpoint import write_whole
from train.mlperf import MLPerfLog

# TensorBoard's tag of each figure in a row of log.jsonl
TAGS = {
    "validation/top1": "val_top1",
    "validation/top5": "val_top5",
    "validation/loss": "val_loss",
    "train/epoch_loss": "train_loss",
    "epoch": "epoch",
    "images_per_second": "images_per_second",
}

# the Custom Scalars page: what belongs together, and the tags on each chart
LAYOUT = {
    "accuracy": {
        "top-1 (%)": ["Multiline", ["validation/top1"]],
        "top-5 (%)": ["Multiline", ["validation/top5"]],
        "validation loss (nats)": ["Multiline", ["validation/loss"]],
    },
    "optimisation": {
        "training loss of each epoch (nats)": ["Multiline", ["train/epoch_loss"]],
        "learning rate": ["Multiline", ["train/lr"]],
        "trust ratio, first and last layer": ["Multiline", ["trust_ratio/(conv1|fc).weight"]],
    },
    "throughput": {
        "images/s": ["Multiline", ["images_per_second"]],
        "share of the time that steps waited for data": ["Multiline", ["data/waiting_share"]],
    },
}


# the HParams page shows these at once, and any other setting at a click
COMPARED = {"batch.total", "epochs", "optimizer.lr", "optimizer.name", "seed"}


def board_opening(values: dict[str, Any], about: str) -> list[Summary]:
    """What a run's board begins with: ``values`` for the HParams page, the layout, and ``about``, a text."""
    plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
    # as settings of the run itself: SummaryWriter.add_hparams would make a second run of them
    settings = hparams(plain, {"validation/top1": 0.0})
    for summary in settings:
        plugin = summary.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in COMPARED
        plugin.content = content.SerializeToString(deterministic=True)
    return [*settings, custom_scalars(LAYOUT), text("run", about)]


class Log:
    """The log of one run in its ``folder``; scalars are over images seen, so that batch sizes overlay.

    ``rows`` and ``images`` say where the run goes on: later rows of an earlier attempt are dropped from
    ``log.jsonl`` and superseded in TensorBoard. ``mlperf`` is told of epochs and evaluations too.
    """

    def __init__(
        self, folder: Path, *, rows: int, images: int, total_images: int, mlperf: MLPerfLog | None = None
    ) -> None:
        self._rows_file = folder / "log.jsonl"
        self._folder = folder / "tb"
        if not images:
            # of an attempt that saved nothing
            shutil.rmtree(self._folder, ignore_errors=True)
        self._board = self._going_on(rows, images)
        self._mlperf = mlperf
        self._progress = tqdm(
            total=total_images,
            initial=images,
            unit="img",
            unit_scale=True,
            desc="epoch 0",
            # a line now and then where nobody watches
            mininterval=0.5 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
        )

    def _going_on(self, rows: int, images: int) -> SummaryWriter:
        kept = self._rows_file.read_bytes().splitlines(keepends=True)[:rows] if self._rows_file.exists() else []
        write_whole(self._rows_file, b"".join(kept))
        return SummaryWriter(str(self._folder), purge_step=images + 1)

    def rewind(self, rows: int, images: int) -> None:
        """The run goes on from an earlier point: what was logged since is superseded."""
        self._board.close()
        self._board = self._going_on(rows, images)
        self._progress.n = images
        if self._mlperf:
            self._mlperf.abort()

    def progress(self, images: int, **postfix: float) -> None:
        """``images`` more were seen."""
        if postfix:
            self._progress.set_postfix({k: f"{v:.4g}" for k, v in postfix.items()}, refresh=False)
        self._progress.update(images)

    def training(self, epoch: int, epochs: int) -> None:
        """Steps of ``epoch``, from 1, begin or go on."""
        self._progress.set_description(f"epoch {epoch}/{epochs}")
        if self._mlperf:
            self._mlperf.training(epoch)

    def evaluating(self, epoch: int, epochs: int) -> None:
        """``epoch`` has all its steps."""
        self._progress.set_description(f"epoch {epoch}/{epochs}, evaluating")
        if self._mlperf:
            self._mlperf.evaluating(epoch)

    def scalars(self, images: int, values: dict[str, float]) -> None:
        for tag, value in values.items():
            self._board.add_scalar(tag, value, images)

    def row(self, row: dict[str, Any]) -> None:
        """Append one evaluation to ``log.jsonl``, on disk when this returns, and to TensorBoard."""
        with open(self._rows_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.scalars(row["images"], {tag: row[key] for tag, key in TAGS.items()})
        self._board.flush()
        if self._mlperf:
            self._mlperf.evaluated(row["epoch"], row["val_top1"])

    def layers(self, images: int, kind: str, names: list[str], values: Tensor) -> None:
        """One figure of each layer, such as its trust ratio: a scalar each and a histogram of all."""
        self._board.add_histogram(kind, values, images)
        self.scalars(images, {f"{kind}/{n}": v for n, v in zip(names, values.tolist(), strict=True)})

    def open_board(self, values: dict[str, Any], about: str) -> None:
        """Once a run: what was set, for TensorBoard's HParams page, the charts' layout, and ``about`` what ran."""
        for summary in board_opening(values, about):
            self._summary(summary)

    def picture(self, images: int, tag: str, picture: Image.Image) -> None:
        """A picture, on disk when this returns."""
        file = io.BytesIO()
        # a tenth of a PNG's size
        picture.save(file, "JPEG", quality=85)
        image = Summary.Image(
            height=picture.height, width=picture.width, colorspace=3, encoded_image_string=file.getvalue()
        )
        self._summary(Summary(value=[Summary.Value(tag=tag, image=image)]), images)
        self._board.flush()

    def _summary(self, summary: Summary, images: int = 0) -> None:
        self._board.file_writer.add_summary(summary, images)  # type: ignore[union-attr, attr-defined]

    def say(self, line: str) -> None:
        """Print a line above the progress bar."""
        self._progress.write(line, file=sys.stdout)

    def say_of_rank(self, line: str) -> None:
        """Print what this rank alone knows, such as the names of its images."""
        self.say(line)

    def close(self) -> None:
        self._progress.close()
        self._board.close()


class Silence(Log):
    """The log of a rank that is not the chief: it says what that rank alone knows, and nothing else."""

    def __init__(self) -> None:
        pass

    def _nothing(self, *_: object, **__: object) -> None:
        pass

    rewind = progress = training = evaluating = scalars = row = layers = open_board = picture = say = close = _nothing

    def say_of_rank(self, line: str) -> None:
        print(line, flush=True)
