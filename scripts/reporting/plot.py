"""What every plot is: a CSV file, a picture drawn from it and from nothing else, and the colours of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.records import csv_text
from train.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Okabe and Ito's palette, told apart also by the colour-blind; 512, 1k, 20k, 40k and 56k are of Paul Tol's muted one
COLOURS = {
    "512": "#44AA99", "1k": "#DDCC77",
    "256": "#000000", "4k": "#56B4E9", "8k": "#0072B2", "16k": "#009E73", "20k": "#999933", "32k": "#D55E00",
    "40k": "#882255", "48k": "#CC79A7", "56k": "#332288", "64k": "#E69F00", "lars": "#0072B2", "sgd": "#D55E00",
}  # fmt: skip

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
        """Draw the CSV ``text``; raises UserError without matplotlib."""
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise UserError(f"{path} needs matplotlib: pip install -e '.[report]'") from error
        figure, axes = plt.subplots(figsize=self.inches, dpi=120)
        axes.grid(alpha=0.3)
        self.draw(axes, list(csv.DictReader(io.StringIO(text))))
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)
