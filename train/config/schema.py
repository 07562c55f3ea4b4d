"""The configuration of a run: every key with its type, its bounds, and whether a resumed run may change it.

The keys of a part (data, model, optimizer, schedule, batch) stand beside the part. The values, their units and their
sources are in ``configs/``. A key that is declared nowhere is an error.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from train.data.dataset import DataConfig
from train.errors import UserError
from train.keys import check_bounds, key, operational
from train.model import ModelConfig
from train.optimizer import OptimizerConfig
from train.plan import BatchConfig, accumulation, check_size
from train.schedule import ScheduleConfig

LOGGERS = ("tensorboard", "wandb", "mlflow")


@dataclass(kw_only=True)
class RecipeConfig:
    name: str
    train_crop: str = key(one_of=("minimal", "scale_and_aspect"))
    min_area: float = key(above=0, most=1)
    eval_resize: str = key(one_of=("square", "shorter"))
    stride_in_1x1: bool


@dataclass(kw_only=True)
class LogConfig:
    every_steps: int = operational(least=1)
    layers_every_epochs: int = operational(least=0)
    layers_every_steps: int = operational(least=0)


@dataclass(kw_only=True)
class CheckpointConfig:
    every_minutes: float = operational(least=0)
    keep: int = operational(least=1)


@dataclass(kw_only=True)
class Config:
    recipe: RecipeConfig
    data: DataConfig
    batch: BatchConfig
    model: ModelConfig
    init: str | None
    train_only: str | None
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    label_smoothing: float = key(least=0, below=1)
    ema: float = key(least=0, below=1)
    noise_scale: bool = operational()
    stop_at_top1: float | None = key(least=1, most=100)
    epochs: int = key(least=1, most=100_000)
    evaluate_every: int = key(least=1)
    seed: int = key(least=0, below=2**63)
    precision: str = key(one_of=("auto", "bf16", "fp16", "tf32", "fp32"))
    compile: bool
    name: str | None = operational()
    runs_dir: str = operational()
    nproc: int | None = operational(least=1)
    max_steps: int | None = operational(least=1)
    evaluate: str | None = operational()
    on_divergence: str = key(one_of=("stop", "restart"), free_on_resume=True)
    timeout_minutes: float = operational(above=0, most=1_000_000)
    logger: list[str] = operational(range="`tensorboard`, `wandb`, `mlflow`, `module:callable`")
    mlperf_log: bool = operational()
    profile: bool = operational()
    log: LogConfig
    checkpoint: CheckpointConfig

    @property
    def folder(self) -> Path:
        """Where the run is recorded."""
        # Path's own raises where there is no such home
        return Path(os.path.expanduser(self.runs_dir)).absolute() / str(self.name)

    def check(self) -> None:
        """Raise UserError, naming key and value, for the first invalid value or combination."""
        check_bounds(self)
        self.batch.check(self.epochs)
        accumulation(self.batch, self.nproc or 1)
        images = self.data.expected_train_images()
        for total in self.batch.totals:
            if images is not None:
                check_size(total, images)
            if self.noise_scale and total == self.batch.micro:
                raise UserError(
                    f"noise_scale=true compares the micro-batches of a step, and a batch of {total} is one of "
                    f"batch.micro={total}: give a smaller batch.micro that divides it, or leave noise_scale out"
                )
        self.data.check()
        if self.data.split == "report" and self.evaluate is None:
            raise UserError("data.split=report: settings are chosen on selection; report is for evaluate=FILE")
        self.optimizer.check()
        for total in self.batch.totals:
            self.optimizer.check_groups(total // self.batch.micro)
        for name in self.logger:
            if name not in LOGGERS and not re.fullmatch(r"\w+(\.\w+)*:\w+", name) or self.logger.count(name) > 1:
                raise UserError(
                    f"logger={self.logger}: give each of {', '.join(LOGGERS)} and module:callable once at most, or []"
                )
        if self.name is not None and (self.name in (".", "..") or re.search(r"[/\0\ud800-\udfff]", self.name)):
            raise UserError(f"name={self.name!r} must be usable as a folder's name: give a word without '/'")
