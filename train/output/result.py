"""What is written when a run ends: ``weights.pt`` and, last of all, ``result.json``."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from train.output import environment
from train.output.checkpoint import to_bytes, write_whole


def write_result(folder: Path, model: nn.Module, reached: dict[str, Any], processes: int, command: str) -> None:
    """Write the weights of ``model``, and what was ``reached`` with the conditions under which it was."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    result = {
        **reached,
        "versions": environment.versions(),
        "hardware": environment.hardware(processes),
        "command": command,
        "commit": environment.commit(),
    }
    write_whole(folder / "weights.pt", to_bytes(weights))
    # its presence says that the run is finished
    write_whole(folder / "result.json", json.dumps(result, indent=2).encode() + b"\n")
