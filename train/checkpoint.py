"""Checkpoints: plain tensors and containers, on disk whole or not at all, read without executing anything."""

import io
import os
from pathlib import Path
from typing import Any

import torch

from train.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds all of it or what it held before, whatever happens."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_bytes(state: Any) -> bytes:
    # to memory first: torch's own file writer hides the reason of a failed write
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write ``state`` after ``step`` steps, then remove all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.pt"
    write_whole(path, to_bytes(state))
    for old in sorted(folder.glob("step-*.pt"))[:-keep]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Read what ``save`` wrote, or a plain state_dict; raises UserError when ``path`` is neither."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except Exception as error:
        # torch reports a damaged file by half a dozen unrelated exceptions
        raise UserError(f"{path} is damaged or no checkpoint ({type(error).__name__}): use another one") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a checkpoint or a state_dict")
    return state


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest readable checkpoint in ``folder``, or None, and a line for each damaged newer one."""
    damaged: list[str] = []
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            return load(path), damaged
        except UserError as error:
            damaged.append(str(error))
    return None, damaged
