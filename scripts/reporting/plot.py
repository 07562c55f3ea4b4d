"""What every plot is: a CSV file, a picture drawn from it and from nothing else, and the colours of both."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from scripts.reporting.records import csv_text

# Okabe and Ito's palette, told apart also by the colour-blind
COLOURS = {"256": "#000000", "8k": "#0072B2", "16k": "#009E73", "32k": "#D55E00", "lars": "#0072B2", "sgd": "#D55E00"}

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Plot:
    """``<name>.csv`` and ``<name>.png``."""

    name: str
    data: Callable[[], list[dict[str, object]]]
    draw: Callable[[Axes, Rows], None]
    inches: tuple[float, float] = (8, 4.5)

    def as_csv(self) -> str:
        """The file's text; nothing as long as there are no data."""
        return csv_text(self.data())

    def picture(self, path: Path, text: str) -> None:
        figure, axes = plt.subplots(figsize=self.inches, dpi=120)
        axes.grid(alpha=0.3)
        self.draw(axes, list(csv.DictReader(io.StringIO(text))))
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)
