"""A run's folder: who may work in it, whether it goes on where it stopped, and what is in it at the end."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from train import checkpoint
from train.config import WITHOUT_EFFECT, Config, flatten
from train.errors import Diverged, Stopped, UserError
from train.mlperf import MLPerfLog


class Run:
    """``<runs_dir>/<name>/``, claimed for this process until it ends."""

    def __init__(self, config: Config) -> None:
        """Claim the folder; raises UserError when a live process or another configuration has it."""
        assert config.name is not None
        self.folder = Path(config.runs_dir).expanduser().absolute() / config.name
        self.checkpoints = self.folder / "checkpoints"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mlperf: MLPerfLog | None = None  # with mlperf_log, once it is known where the run goes on
        self._claim()
        self._settle(config)

    def _claim(self) -> None:
        # the kernel lets go of the lock when this process ends, however it ends
        self._lock = open(self.folder / "lock", "a+")  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            raise UserError(
                f"{self.folder} is in use by process {self._lock.read().strip() or 'of another machine'}: "
                "wait for it, or give another name=NAME"
            ) from None
        except OSError as error:
            raise UserError(
                f"{self.folder} is on a file system without locks ({error.strerror}): mount it with flock, or give "
                "runs_dir= on another one"
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _settle(self, config: Config) -> None:
        path = self.folder / "config.yaml"
        now = asdict(config)
        if not path.exists():
            checkpoint.write_whole(path, OmegaConf.to_yaml(OmegaConf.create(now)).encode())
            return
        try:
            then = flatten(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]
        except YAMLError as error:
            raise UserError(f"{path} is damaged: bring it back, or give another name=NAME") from error
        flat = flatten(now)
        differing = [
            f"{key} was {then.get(key, 'not there')}, now {flat.get(key, 'not there')}"
            for key in sorted({*then, *flat} - WITHOUT_EFFECT)
            if then.get(key) != flat.get(key)
        ]
        if differing:
            raise UserError(
                f"{self.folder} was run with another configuration ({'; '.join(differing)}): give another name=NAME"
            )

    @property
    def result(self) -> dict[str, Any] | None:
        """``result.json`` of a finished run, else None."""
        path = self.folder / "result.json"
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except ValueError as error:
            raise UserError(f"{path} is damaged: delete it, and the same command ends the run again") from error

    def finish(self, weights: dict[str, Any], result: dict[str, Any]) -> None:
        """Write ``weights.pt`` and, last of all, ``result.json``."""
        checkpoint.write_whole(self.folder / "weights.pt", checkpoint.to_bytes(weights))
        checkpoint.write_whole(self.folder / "result.json", json.dumps(result, indent=2).encode() + b"\n")

    def mark(self, ended: Stopped | Diverged | None) -> None:
        """Leave the file ``stopped`` or ``diverged``, which tells a launcher what to do; None: there is neither."""
        for kind, name in ((Stopped, "stopped"), (Diverged, "diverged")):
            if isinstance(ended, kind):
                checkpoint.write_whole(self.folder / name, f"{ended}\n".encode())
            else:
                (self.folder / name).unlink(missing_ok=True)
