"""The mark that a run leaves which a signal stopped before its process could claim the run's folder."""

import fcntl
from pathlib import Path

from train.errors import Stopped


def mark_stopped(folder: Path, stopped: Stopped) -> None:
    """Write the file ``stopped`` into the ``folder`` of an unfinished run, unless another process works there."""
    if not (folder / "log.jsonl").exists() or (folder / "result.json").exists():
        return
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        (folder / "stopped").write_text(f"{stopped}\n")
