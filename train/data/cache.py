"""Folders that are made once, whole or not at all, however many processes want them at the same time."""

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from train.errors import UserError


class NoLocks(UserError):
    """The file system has no locks."""


def user_cache() -> Path:
    """Where this user's programs keep what can be made again."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "lars-imagenet"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, after ``make`` has filled it if it was not there.

    ``make`` fills a folder beside it that is renamed at the end, so a kill leaves nothing half made; processes that
    start together wait for the one that makes it.
    """
    if folder.is_dir():
        return folder
    import fcntl  # Windows has none, and is refused with a line

    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise NoLocks(
                f"{folder.parent} is on a file system without locks ({error.strerror}): set XDG_CACHE_HOME to a folder "
                "on another one"
            ) from error
        if not folder.is_dir():
            # some shared file systems have locks that hold on one machine only
            unfinished = folder.parent / f".{folder.name}.{platform.node()}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            try:
                os.rename(unfinished, folder)
            except OSError:
                if not folder.is_dir():
                    raise
                # another machine has made it meanwhile
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder
