"""Checkpoints: plain tensors and containers, written completely or not at all, read without executing anything.

``step-000000450-<16 digits>.pt`` is the state after 450 steps, and the digits are the first of the file's sha256.
``best-...`` is the state of the best evaluation so far. ``Training.state`` in ``train/engine/loop.py`` makes the state:
what the run has reached and recorded, model, optimizer, and what identifies it.
"""

from __future__ import annotations

import hashlib
import io
import re
from argparse import Namespace
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

import torch

from train.errors import UserError
from train.output.files import write_whole

NAME = re.compile(r"(step|best)-(\d{9,})-([0-9a-f]{16})\.pt")


def to_bytes(state: Any) -> bytes:
    # to memory first, because torch's file writer hides the reason of a failed write
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


class CheckpointWriter:
    """Writes a run's checkpoints in a thread; training waits only for the copy to memory.

    It keeps the newest ``keep`` and the best. A state that still waits for the disk gives way to a later one of its
    kind. An OSError of the thread is raised by the next call.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._waiting: dict[str, tuple[int, dict[str, Any]]] = {}  # by kind: step and state
        self._writes: list[Future[None]] = []
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".*.tmp"):
            left_over.unlink()

    def save(self, step: int, state: dict[str, Any], *, best: bool = False) -> None:
        """Save ``state`` after ``step`` steps; ``best``: as that of the best evaluation."""
        self._raise_errors(of=[write for write in self._writes if write.done()])
        kind = "best" if best else "step"
        self._waiting[kind] = step, _copied(state)
        self._writes.append(self._thread.submit(self._write, kind))

    def wait(self) -> None:
        """Return when everything saved is on disk."""
        self._raise_errors(of=self._writes)

    def _raise_errors(self, of: list[Future[None]]) -> None:
        """Wait for these writes, and raise the error of the first that failed."""
        self._writes = [write for write in self._writes if write not in of]
        for write in of:
            write.result()

    def _write(self, kind: str) -> None:
        if kind not in self._waiting:
            # the write before has taken the later state
            return
        step, state = self._waiting.pop(kind)
        content = to_bytes(state)
        path = self.folder / f"{kind}-{step:09d}-{digest(content)}.pt"
        write_whole(path, content)
        # Those of later steps are damaged or abandoned: training has gone back to before them.
        others = [old for old in newest_first(self.folder, kind) if old != path]
        earlier = [old for old in others if old.name < f"{kind}-{step:09d}"]
        kept = earlier[: 0 if kind == "best" else self._keep - 1]
        for old in others:
            if old not in kept:
                old.unlink()


def _copied(value: Any) -> Any:
    """``value`` with copies of its tensors, in host memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        # which keeps the versions that a network's state_dict has for its modules
        copied = copy(value)
        copied.update((key, _copied(item)) for key, item in value.items())
        return copied
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


def newest_first(folder: Path, kind: str = "") -> list[Path]:
    """The checkpoints in ``folder``, of one kind or of both."""
    found = [(int(match[2]), path) for path in folder.glob("*.pt") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True) if path.name.startswith(kind)]


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint or a plain state_dict; raises UserError when ``path`` is neither, or is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: give a checkpoint or weights.pt in it") from error
    named = NAME.fullmatch(path.name)
    if named and digest(content) != named[3]:
        raise UserError(f"{path} is damaged (its sha256 is not the one in its name): use another one")
    try:
        # torchvision's and timm's scripts keep their command line beside the weights, as a Namespace
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        # torch reports a damaged file by half a dozen unrelated exceptions
        raise UserError(f"{path} is damaged or not a checkpoint ({type(error).__name__}): use another one") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint or a state_dict")
    return state


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest readable checkpoint in ``folder``, None where there is none, and a line for each damaged newer one.

    Raises UserError where none of them can be read.
    """
    damaged: list[str] = []
    for path in newest_first(folder):
        try:
            return load(path), damaged
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        raise UserError(f"no checkpoint can be read ({damaged[0]}): restore one, or give another name=NAME")
    return None, []
