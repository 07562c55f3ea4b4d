"""What a run says while it goes: a JSON row per evaluation, TensorBoard scalars, one progress line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from train.checkpoint import write_whole


class Log:
    """The log of one run in its ``folder``; scalars are over images seen, so that batch sizes overlay.

    ``rows`` and ``images`` say where the run goes on: later rows of an earlier attempt are dropped from
    ``log.jsonl`` and superseded in TensorBoard.
    """

    def __init__(self, folder: Path, *, rows: int, images: int, total_images: int) -> None:
        self._rows_file = folder / "log.jsonl"
        self._folder = folder / "tb"
        self._board = self._going_on(rows, images)
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
        return SummaryWriter(str(self._folder), purge_step=images + 1 if images else None)

    def rewind(self, rows: int, images: int) -> None:
        """The run goes on from an earlier point: what was logged since is superseded."""
        self._board.close()
        self._board = self._going_on(rows, images)
        self._progress.n = images

    def progress(self, images: int, **postfix: float) -> None:
        """``images`` more were seen."""
        if postfix:
            self._progress.set_postfix({k: f"{v:.4g}" for k, v in postfix.items()}, refresh=False)
        self._progress.update(images)

    def phase(self, text: str) -> None:
        self._progress.set_description(text)

    def scalars(self, images: int, values: dict[str, float]) -> None:
        for tag, value in values.items():
            self._board.add_scalar(tag, value, images)

    def row(self, row: dict[str, Any]) -> None:
        """Append one evaluation to ``log.jsonl``, on disk when this returns, and to TensorBoard."""
        with open(self._rows_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        tags = {
            "validation/top1": "val_top1",
            "validation/top5": "val_top5",
            "validation/loss": "val_loss",
            "train/epoch_loss": "train_loss",
            "epoch": "epoch",
            "images_per_second": "images_per_second",
        }
        self.scalars(row["images"], {tag: row[key] for tag, key in tags.items()})
        self._board.flush()

    def layers(self, images: int, kind: str, names: list[str], values: Tensor) -> None:
        """One figure of each layer, such as its trust ratio: a scalar each and a histogram of all."""
        self._board.add_histogram(kind, values, images)
        self.scalars(images, {f"{kind}/{n}": v for n, v in zip(names, values.tolist(), strict=True)})

    def hyper_parameters(self, values: dict[str, Any], text: str) -> None:
        """Once a run: what was set, for TensorBoard's HParams page, and ``text`` on what ran."""
        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
        for summary in hparams(plain, {"validation/top1": 0.0}):
            self._board.file_writer.add_summary(summary)  # type: ignore[union-attr, attr-defined]
        self._board.add_text("run", text)

    def say(self, line: str) -> None:
        """Print a line above the progress bar."""
        self._progress.write(line, file=sys.stdout)

    def close(self) -> None:
        self._progress.close()
        self._board.close()


class Silence(Log):
    """The log of a rank that is not the chief."""

    def __init__(self) -> None:
        pass

    def rewind(self, rows: int, images: int) -> None:
        pass

    def progress(self, images: int, **postfix: float) -> None:
        pass

    def phase(self, text: str) -> None:
        pass

    def scalars(self, images: int, values: dict[str, float]) -> None:
        pass

    def row(self, row: dict[str, Any]) -> None:
        pass

    def layers(self, images: int, kind: str, names: list[str], values: Tensor) -> None:
        pass

    def hyper_parameters(self, values: dict[str, Any], text: str) -> None:
        pass

    def say(self, line: str) -> None:
        print(line, flush=True)

    def close(self) -> None:
        pass
