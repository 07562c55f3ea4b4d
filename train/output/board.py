"""TensorBoard: curves over images trained on, so that batch sizes overlay, settings, and pictures."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams, text

from train.engine.logger import Logger
from train.output.pictures import grid

# the Custom Scalars page: groups of charts, and the tags on each
CHARTS = {
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

# settings that the HParams page shows at once; any other one is a click away
COMPARED = {"batch.total", "epochs", "optimizer.lr", "optimizer.name", "seed"}


def opening(settings: dict[str, Any], about: str) -> list[Summary]:
    """The summaries with which a run's board begins: ``settings`` for HParams, the charts, and the text ``about``."""
    plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()}
    # written into the run itself, because SummaryWriter.add_hparams would make a second run of them
    summaries = hparams(plain, {"validation/top1": 0.0})
    for summary in summaries:
        plugin = summary.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in COMPARED
        plugin.content = content.SerializeToString(deterministic=True)
    return [*summaries, custom_scalars(CHARTS), text("run", about)]


def _drop_the_writers(failed: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread, but for TensorBoard's writer: its error is raised again by the next call."""
    is_writers = "_AsyncWriterThread" in type(failed.thread).__name__
    if not (is_writers and issubclass(failed.exc_type, OSError)):
        threading.__excepthook__(failed)


class BoardLogger(Logger):
    """The board in ``folder`` of a run that continues after ``images``; ``opening`` begins a new one."""

    def __init__(self, folder: Path, images: int, opening: Sequence[Summary]) -> None:
        self._folder = folder
        threading.excepthook = _drop_the_writers
        if not images:
            # of an attempt that saved nothing
            shutil.rmtree(folder, ignore_errors=True)
        self._writer = self._continued_at(images)
        if not images:
            for summary in opening:
                self._add(summary)

    def _continued_at(self, images: int) -> SummaryWriter:
        return SummaryWriter(str(self._folder), purge_step=images + 1)

    def _add(self, summary: Summary, images: int = 0) -> None:
        self._writer.file_writer.add_summary(summary, images)  # type: ignore[union-attr, attr-defined]

    def scalars(self, images: int, values: dict[str, float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, images)

    def layers(self, step: int, images: int, names: list[str], figures: dict[str, Tensor]) -> None:
        for kind, values in figures.items():
            self._writer.add_histogram(kind, values, images)
        super().layers(step, images, names, figures)

    def row(self, row: dict[str, Any]) -> None:
        super().row(row)
        self._writer.flush()

    def picture(self, images: int, tag: str, pixels: Tensor, captions: Sequence[str] = ()) -> None:
        picture, file = grid(pixels, captions), io.BytesIO()
        # a tenth of a PNG's size
        picture.save(file, "JPEG", quality=85)
        image = Summary.Image(
            height=picture.height, width=picture.width, colorspace=3, encoded_image_string=file.getvalue()
        )
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), images)
        self._writer.flush()

    def rewind(self, rows: int, images: int) -> None:
        self._writer.close()
        self._writer = self._continued_at(images)

    def close(self, is_over: bool) -> None:
        self._writer.close()
