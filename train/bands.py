"""What top-1 a published preset is known to have after each epoch; ``results/published/README.md`` has the sources."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

# beside the package in a checkout, inside it in a wheel
FILES = (Path(__file__).parent / "bands.csv", Path(__file__).parents[1] / "results" / "published" / "bands.csv")

# below it a reader doubts the run; published runs at these batches pass through it in their first epochs
LOOKS_LOST, LARGE = 15.0, ("16k", "32k")


class Bands:
    """The expected range of top-1, in percent, of one ``preset`` on ImageNet by the epochs finished."""

    def __init__(self, preset: str) -> None:
        self._preset = preset
        with open(next(path for path in FILES if path.exists()), newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["preset"] == preset]
        self._is_known = bool(rows)
        self._epochs, self._low, self._high = (
            [float(row[column]) for row in rows] for column in ("epoch", "low", "high")
        )
        self._was_low = False

    def remark(self, epoch: int, top1: float) -> str | None:
        """A line for the reader of the log, when ``top1`` after ``epoch`` epochs is one to wonder about."""
        if not self._is_known:
            return None
        low = float(np.interp(epoch, self._epochs, self._low))
        high = float(np.interp(epoch, self._epochs, self._high))
        was_low, self._was_low = self._was_low, top1 < low
        if top1 < low:
            # once, until it has come back
            return None if was_low else (
                f"top-1 of {top1:.1f} % after epoch {epoch} is under the published range of batch={self._preset}, "
                f"{low:.1f} to {high:.1f} %: compare data, augmentation and lr with the preset's"
            )  # fmt: skip
        if epoch <= 5 and top1 < LOOKS_LOST and self._preset in LARGE:
            return (
                f"top-1 of {top1:.1f} % after epoch {epoch} is normal at batch={self._preset}: published runs that "
                f"ended well had {low:.1f} to {high:.1f} %"
            )
        return None
