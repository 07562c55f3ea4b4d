"""The progress bar on stderr, and the lines printed above it."""

import sys

from tqdm import tqdm

from train.engine.logger import Logger


class ProgressLogger(Logger):
    """A bar over the images of all ``epochs``, ``images`` of which an earlier process has trained on."""

    def __init__(self, images: int, total_images: int, epochs: int) -> None:
        self._epochs = epochs
        self._bar = tqdm(
            total=total_images,
            initial=images,
            unit="img",
            unit_scale=True,
            desc="epoch 0",
            # where nobody watches, a line now and then
            mininterval=0.5 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
        )

    def training(self, epoch: int, until: int) -> None:
        self._bar.set_description(f"epoch {epoch}/{self._epochs}")

    def evaluating(self, epoch: int) -> None:
        self._bar.set_description(f"epoch {epoch}/{self._epochs}, evaluating")

    def progress(self, images: int, **figures: float) -> None:
        if figures:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()}, refresh=False)
        self._bar.update(images)

    def say(self, line: str) -> None:
        self._bar.write(line, file=sys.stdout)

    def rewind(self, rows: int, images: int) -> None:
        self._bar.n = images

    def close(self, is_over: bool) -> None:
        self._bar.close()
