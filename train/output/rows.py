"""``log.jsonl``: a JSON row for each evaluation."""

import json
import os
from pathlib import Path
from typing import Any

from train.engine.logger import Logger
from train.output.files import write_whole


class RowLogger(Logger):
    """The file ``path`` of a run that continues after ``rows`` evaluations; later rows are dropped."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self.rewind(rows, 0)

    def rewind(self, rows: int, images: int) -> None:
        kept = self._path.read_bytes().splitlines(keepends=True)[:rows] if self._path.exists() else []
        write_whole(self._path, b"".join(kept))

    def row(self, row: dict[str, Any]) -> None:
        """Append a row; it is on disk when this returns."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
