"""Files that appear whole or not at all, and the mark of a run that was stopped before its folder was claimed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from train.errors import Stopped


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` always holds all of it or what it held before."""
    with whole(path) as file:
        file.write(content)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes ``path`` once all of it is written and on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def mark_stopped(folder: Path, stopped: Stopped) -> None:
    """Write the file ``stopped`` into the ``folder`` of an unfinished run, unless another process works there."""
    import fcntl  # Windows has none, and is refused with a line

    if not (folder / "log.jsonl").exists() or (folder / "result.json").exists():
        return
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        write_whole(folder / "stopped", f"{stopped}\n".encode())
