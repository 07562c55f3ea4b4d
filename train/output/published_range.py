"""The top-1 that published runs of a preset had after each epoch; sources in ``results/published/README.md``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

# beside the package in a checkout, inside it in a wheel
NAME = "published-range.csv"
FILES = (Path(__file__).parents[1] / NAME, Path(__file__).parents[2] / "results" / "published" / NAME)

# Below this top-1, in percent, a run looks as if it did not learn. In the first epochs of these presets that is normal.
LOOKS_LOST, LARGE = 15.0, ("16k", "32k")


class PublishedRange:
    """The expected range of top-1, in percent, of one ``preset`` on ImageNet, by the number of epochs."""

    def __init__(self, preset: str) -> None:
        self._preset = preset
        with open(next(path for path in FILES if path.exists()), newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["preset"] == preset]
        self._epochs, self._low, self._high = ([float(row[key]) for row in rows] for key in ("epoch", "low", "high"))
        self._was_low = False

    def remark(self, epoch: int, top1: float) -> str | None:
        """A line for the reader of the log, when ``top1`` after ``epoch`` epochs is below the range or looks lost."""
        if not self._epochs:
            return None
        low = float(np.interp(epoch, self._epochs, self._low))
        high = float(np.interp(epoch, self._epochs, self._high))
        was_low, self._was_low = self._was_low, top1 < low
        if top1 < low:
            if was_low:
                # said once, until the run is back in the range
                return None
            return (
                f"top-1 of {top1:.1f} % after epoch {epoch} is under the published range of batch={self._preset}, "
                f"{low:.1f} to {high:.1f} %: compare data, augmentation and lr with the preset's"
            )
        if epoch <= 5 and top1 < LOOKS_LOST and self._preset in LARGE:
            return (
                f"top-1 of {top1:.1f} % after epoch {epoch} is normal at batch={self._preset}: published runs that "
                f"ended well had {low:.1f} to {high:.1f} %"
            )
        return None
