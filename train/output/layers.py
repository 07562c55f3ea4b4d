"""``layers.csv``: trust ratio, weight norm and gradient norm of every layer, whenever they are logged."""

from pathlib import Path

from torch import Tensor

from train.engine.logger import Logger
from train.output.files import write_whole


class LayersLogger(Logger):
    """The file ``path`` of a run that continues after ``images``; there is none until a layer is logged."""

    def __init__(self, path: Path, images: int) -> None:
        self._path = path
        self.rewind(0, images)

    def rewind(self, rows: int, images: int) -> None:
        if not self._path.exists():
            return
        # a kill or a full disk may leave half a line, of the header too
        whole = [line for line in self._path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [*whole[:1], *(line for line in whole[1:] if int(line.split(",")[1]) <= images)]
        if kept:
            write_whole(self._path, "".join(kept).encode())
        else:
            self._path.unlink()

    def layers(self, step: int, images: int, names: list[str], figures: dict[str, Tensor]) -> None:
        columns = [values.tolist() for values in figures.values()]
        lines = [
            ",".join([str(step), str(images), name, *(f"{value:.6g}" for value in values)]) + "\n"
            for name, *values in zip(names, *columns, strict=True)
        ]
        if not self._path.exists():
            lines.insert(0, ",".join(["step", "images", "layer", *figures]) + "\n")
        with open(self._path, "a", encoding="utf-8") as file:
            file.writelines(lines)
