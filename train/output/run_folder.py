"""The folder of a run: which process may work in it, whether it can be resumed, and how it ended."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn
from yaml import YAMLError

from train.errors import Diverged, Stopped, UserError
from train.keys import flatten, free_on_resume
from train.output import checkpoint
from train.output.files import write_whole

# keys that 0.1 wrote into a run's config.yaml and that say nothing of the run
RETIRED = ("plan.",)
# keys that it did not have, with the values that a run had without them
ADDED = {"evaluate_every": 1, "optimizer.variance_reduction": False}


# beside tb/, what an attempt may leave that ended before it saved anything
LOGS = ("layers.csv", "mlperf.log", "mlflow.id", "trace.json.gz", "wandb.id")


class RunFolder:
    """``<runs_dir>/<name>/``, claimed for this process until it ends."""

    def __init__(self, config: Any) -> None:
        """Claim the folder of ``config``; raises UserError when a live process or another configuration has it."""
        self.path: Path = config.folder
        self.checkpoints = self.path / "checkpoints"
        self.path.mkdir(parents=True, exist_ok=True)
        self._claim()
        self._check_configuration(config)

    def _claim(self) -> None:
        # the kernel releases the lock when this process ends, however it ends
        self._lock = open(self.path / "lock", "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            raise UserError(
                f"{self.path} is in use by process {self._lock.read().strip() or 'of another machine'}: "
                "wait for it, or give another name=NAME"
            ) from None
        except OSError as error:
            raise UserError(
                f"{self.path} is on a file system without locks ({error.strerror}): mount it with flock, or give "
                "runs_dir= on another one"
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _check_configuration(self, config: Any) -> None:
        """Write ``config.yaml``; once a run has saved something, compare it with the one that is there."""
        path = self.path / "config.yaml"
        now = asdict(config)
        written = OmegaConf.to_yaml(OmegaConf.create(now)).encode()
        if not path.exists() or not self._holds_anything:
            if path.exists() and path.read_bytes() != written:
                shutil.rmtree(self.path / "tb", ignore_errors=True)
                for name in LOGS:
                    (self.path / name).unlink(missing_ok=True)
            write_whole(path, written)
            return
        try:
            before = ADDED | flatten(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]
        except (YAMLError, AttributeError) as error:
            raise UserError(f"{path} is damaged: restore it, or give another name=NAME") from error
        flat = flatten(now)
        compared = {key for key in {*before, *flat} - free_on_resume(config) if not key.startswith(RETIRED)}
        differences = [
            f"{key} was {before.get(key, 'not there')}, now {flat.get(key, 'not there')}"
            for key in sorted(compared)
            if before.get(key) != flat.get(key)
        ]
        if differences:
            raise UserError(
                f"{self.path} was run with another configuration ({'; '.join(differences)}): give another name=NAME"
            )

    @property
    def _holds_anything(self) -> bool:
        """Whether a run has saved something here, and did not end before that, for example by a wrong ``init=``."""
        log = self.path / "log.jsonl"
        ended = [self.path / "result.json", self.path / "diverged.json", *self.checkpoints.glob("*.pt")]
        return any(path.exists() for path in ended) or (log.exists() and log.stat().st_size > 0)

    @property
    def result(self) -> dict[str, Any] | None:
        """``result.json`` of a finished run, else None."""
        path = self.path / "result.json"
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except ValueError as error:
            raise UserError(f"{path} is damaged: delete it, and the same command finishes the run again") from error

    def mark(self, ended: Stopped | Diverged | None) -> None:
        """Write the file ``stopped`` or ``diverged``, which tells a launcher what to do; None removes both.

        A ``diverged.json`` of an earlier attempt goes too.
        """
        (self.path / "diverged.json").unlink(missing_ok=True)
        for kind, name in ((Stopped, "stopped"), (Diverged, "diverged")):
            if isinstance(ended, kind):
                write_whole(self.path / name, f"{ended}\n".encode())
            else:
                (self.path / name).unlink(missing_ok=True)

    def write_result(self, model: nn.Module, reached: dict[str, Any], conditions: dict[str, Any]) -> None:
        """Write the weights of ``model``, and then what was ``reached`` with the conditions under which it was."""
        weights = model.state_dict()
        weights.update((name, value.detach().cpu().contiguous()) for name, value in weights.items())
        write_whole(self.path / "weights.pt", checkpoint.to_bytes(weights))
        # its presence says that the run is finished
        self._write_json("result.json", {**reached, **conditions})

    def write_diverged(self, diverged: Diverged, data_fingerprint: str, conditions: dict[str, Any]) -> None:
        """Write ``diverged.json``: where a run ended that reached no result, and its conditions."""
        ended = {"diverged_at": diverged.step, "message": str(diverged), "data_fingerprint": data_fingerprint}
        self._write_json("diverged.json", {**ended, **conditions})

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(content, indent=2).encode() + b"\n")
