"""What is written when a run ends: ``weights.pt`` and, last of all, ``result.json``; or ``diverged.json``."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from train.errors import Diverged
from train.output.checkpoint import to_bytes, write_whole


def write_result(folder: Path, model: nn.Module, reached: dict[str, Any], conditions: dict[str, Any]) -> None:
    """Write the weights of ``model``, and what was ``reached`` with the conditions under which it was."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_whole(folder / "weights.pt", to_bytes(weights))
    # its presence says that the run is finished
    _write_json(folder / "result.json", {**reached, **conditions})


def write_diverged(folder: Path, diverged: Diverged, data_fingerprint: str, conditions: dict[str, Any]) -> None:
    """Write ``diverged.json``: where a run ended that reached no result, and its conditions."""
    ended = {"diverged_at": diverged.step, "message": str(diverged), "data_fingerprint": data_fingerprint}
    _write_json(folder / "diverged.json", {**ended, **conditions})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2).encode() + b"\n")
