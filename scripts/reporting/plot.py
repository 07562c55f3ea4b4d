"""What every plot is: a CSV file, a picture drawn from it and from nothing else, and the scheme of all pictures.

Colour is the batch, in units of ``batch=`` on ImageNet. Solid lines and filled circles are LARS, dashed lines and open
squares are SGD. What is neither is grey. Lines and points have their names beside them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.records import csv_text
from train.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Okabe and Ito's palette, told apart also by the colour-blind; 128, 512, 1k, 2k, 20k, 40k and 56k are of Paul Tol's
# muted one. No recipe has 2k, but on fractals 256 images stand for it.
COLOURS = {
    "128": "#CC6677", "512": "#44AA99", "1k": "#DDCC77", "2k": "#AA4499",
    "256": "#000000", "4k": "#56B4E9", "8k": "#0072B2", "16k": "#009E73", "20k": "#999933", "32k": "#D55E00",
    "40k": "#882255", "48k": "#CC79A7", "56k": "#332288", "64k": "#E69F00",
}  # fmt: skip
# their images
BATCHES = {name: int(name[:-1]) * 1024 if name[-1] == "k" else int(name) for name in COLOURS}
LINES = {"lars": "-", "sgd": "--"}
MARKERS = {"lars": "o", "sgd": "s"}
GREY = "#555555"
NEAR: dict[str, Any] = {"textcoords": "offset points", "fontsize": 10, "color": "#333333"}  # of labels at their lines
ERRORS = (2, 2.5, 3, 4, 5, 7, 10, 15, 20, 25, 30, 40, 50, 70, 100)  # ticks, percent

Rows = list[dict[str, str]]


def columns(rows: Rows, *keys: str) -> list[list[float]]:
    return [[float(row[key]) for row in rows] for key in keys]


def colour_of(batch: float) -> str:
    """The colour of the batch that is nearest to ``batch`` images, by their ratio; of its own, if it has one."""
    return COLOURS[min(BATCHES, key=lambda name: abs(math.log(BATCHES[name] / batch)))]


def mark(axes: Axes, x: Sequence[float], y: Sequence[float], optimizer: str, colours: Any, size: float = 26) -> None:
    """A marker for each run, in ``colours``: one for all, or one for each."""
    axes.scatter(x, y, size, marker=MARKERS[optimizer], edgecolors=colours, zorder=3,
                 facecolors=colours if optimizer == "lars" else "white")  # fmt: skip


def log_axis(axes: Axes, ticks: Sequence[float] = ERRORS) -> None:
    """A logarithmic vertical axis, with those of the ``ticks`` that are within its limits."""
    from matplotlib.ticker import FixedLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def label_ends(axes: Axes, ends: list[tuple[float, float, str, str]], apart: float = 14) -> None:
    """Write each text of ``(x, y, text, colour)`` to the right of its point, moved up or down where two would overlap.

    ``apart`` is in points. Limits and scales of the axes must be final.
    """
    axes.get_ylim()  # brings the transform up to date
    ends = sorted(ends, key=lambda end: end[1])
    points = [axes.transData.transform((x, y))[1] * 72 / axes.figure.dpi for x, y, _, _ in ends]
    heights = list(points)
    for _ in range(100):
        for i in range(1, len(heights)):
            overlap = max(0.0, apart - (heights[i] - heights[i - 1]))
            heights[i - 1] -= overlap / 2
            heights[i] += overlap / 2
    for (x, y, text, colour), point, height in zip(ends, points, heights, strict=True):
        axes.annotate(text, (x, y), (8, height - point), va="center", **{**NEAR, "color": colour},
                      bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1})  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """``<name>.csv`` and ``<name>.png``; with ``by``, a panel for each value of that column, side by side."""

    name: str
    data: Callable[[], list[dict[str, object]]]
    draw: Callable[[Axes, Rows], None]
    inches: tuple[float, float] = (8, 4.5)
    by: str | None = None

    def as_csv(self) -> str:
        """The file's text; nothing as long as there are no data."""
        return csv_text(self.data())

    def picture(self, path: Path, text: str) -> None:
        """Draw the CSV ``text``; raises UserError without matplotlib."""
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise UserError(f"{path} needs matplotlib: pip install -e '.[report]'") from error
        parts = self.parts(list(csv.DictReader(io.StringIO(text))))
        figure, panels = plt.subplots(1, len(parts), figsize=self.inches, dpi=120, sharey=True, squeeze=False)
        for axes, part in zip(panels[0], parts, strict=True):
            axes.grid(alpha=0.3)
            self.draw(axes, part)
            axes.spines[["top", "right"]].set_visible(False)
            axes.label_outer()
        figure.tight_layout()
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)

    def parts(self, rows: Rows) -> list[Rows]:
        """The rows of each panel: batches by their size, others in the order in which they come."""
        by = self.by
        if by is None:
            return [rows]
        values = sorted(dict.fromkeys(row[by] for row in rows), key=lambda value: BATCHES.get(value, 0))
        return [[row for row in rows if row[by] == value] for value in values]
