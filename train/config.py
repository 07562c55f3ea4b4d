"""The typed configuration: every key with its type, the arithmetic of batch and steps, and what cannot be.

The values, their units and their sources are in ``configs/``; a key that is not here is an error.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from train.errors import UserError


@dataclass
class BatchConfig:
    preset: str = MISSING
    published: int = MISSING
    total: int = MISSING
    micro: int = MISSING
    reference_micro: int = MISSING
    lars_lr: float = MISSING


@dataclass
class DataConfig:
    name: str = MISSING
    root: Optional[str] = MISSING  # noqa: UP045  (OmegaConf reads Optional on every Python)
    batch_divisor: int = MISSING
    micro: int = MISSING
    workers: Optional[int] = MISSING  # noqa: UP045
    mean: list[float] = MISSING
    std: list[float] = MISSING


@dataclass
class FractalsConfig(DataConfig):
    classes: int = MISSING
    train_per_class: int = MISSING
    val_per_class: int = MISSING
    size: int = MISSING
    shift: int = MISSING


@dataclass
class ImageNetConfig(DataConfig):
    size: int = MISSING
    resize: int = MISSING
    train_crop: str = MISSING
    eval_resize: str = MISSING
    on_bad_image: str = MISSING


@dataclass
class ModelConfig:
    name: str = MISSING


@dataclass
class OptimizerConfig:
    name: str = MISSING
    lr: float = MISSING
    momentum: float = MISSING
    weight_decay: float = MISSING


@dataclass
class LARSConfig(OptimizerConfig):
    trust_coef: float = MISSING
    eps: float = MISSING


@dataclass
class ScheduleConfig:
    power: float = MISSING
    origin: str = MISSING
    warmup_epochs: float = MISSING


@dataclass
class LogConfig:
    every_steps: int = MISSING
    layers_every_epochs: int = MISSING


@dataclass
class CheckpointConfig:
    every_minutes: float = MISSING
    keep: int = MISSING


@dataclass
class PlanConfig:
    """What ``plan.show=true`` needs: of the machines, in the units that the names end with."""

    show: bool = MISSING
    gpus: list[int] = MISSING
    machine: str = MISSING
    images_per_second: Optional[float] = MISSING  # noqa: UP045
    published: float = MISSING
    published_at: int = MISSING
    published_gmacs: float = MISSING
    fixed_ms: float = MISSING
    gpus_per_machine: int = MISSING
    machine_efficiency: float = MISSING
    inside_gbs: float = MISSING
    between_gbs: float = MISSING
    inside_us: float = MISSING
    between_us: float = MISSING
    dollars_per_hour: Optional[float] = MISSING  # noqa: UP045


@dataclass
class Config:
    data: DataConfig = MISSING
    batch: BatchConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    label_smoothing: float = MISSING
    epochs: int = MISSING
    seed: int = MISSING
    precision: str = MISSING
    compile: bool = MISSING
    name: Optional[str] = MISSING  # noqa: UP045
    runs_dir: str = MISSING
    nproc: Optional[int] = MISSING  # noqa: UP045
    max_steps: Optional[int] = MISSING  # noqa: UP045
    evaluate: Optional[str] = MISSING  # noqa: UP045
    on_divergence: str = MISSING
    timeout_minutes: float = MISSING
    mlperf_log: bool = MISSING
    profile: bool = MISSING
    log: LogConfig = MISSING
    checkpoint: CheckpointConfig = MISSING
    plan: PlanConfig = MISSING


# Keys that move a run in time or place and leave its result alone: another value may resume it.
WITHOUT_EFFECT = {
    "name", "runs_dir", "nproc", "max_steps", "evaluate", "on_divergence", "timeout_minutes", "mlperf_log",
    "profile", "data.root", "data.workers", "data.on_bad_image",
    "log.every_steps", "log.layers_every_epochs", "checkpoint.every_minutes", "checkpoint.keep",
    *(f"plan.{field.name}" for field in dataclasses.fields(PlanConfig)),
}  # fmt: skip

ONE_OF = {
    "precision": ("auto", "bf16", "fp32"),
    "on_divergence": ("stop", "restart"),
    "schedule.origin": ("start", "warmup"),
    "data.on_bad_image": ("stop", "skip"),
    "data.train_crop": ("minimal", "scale_and_aspect"),
    "data.eval_resize": ("square", "shorter"),
}
AT_LEAST_ONE = {
    "batch.total", "batch.micro", "epochs", "nproc", "max_steps", "log.every_steps", "checkpoint.keep",
    "data.classes", "data.train_per_class", "data.val_per_class", "plan.published_at", "plan.gpus_per_machine",
}  # fmt: skip
AT_LEAST_ZERO = {
    "optimizer.lr", "optimizer.weight_decay", "optimizer.trust_coef", "optimizer.eps", "schedule.power",
    "schedule.warmup_epochs", "checkpoint.every_minutes", "data.workers", "data.shift", "seed",
    "log.layers_every_epochs", "plan.fixed_ms", "plan.inside_us", "plan.between_us", "plan.dollars_per_hour",
}  # fmt: skip
ABOVE_ZERO = {
    "timeout_minutes", "plan.images_per_second", "plan.published", "plan.published_gmacs", "plan.inside_gbs",
    "plan.between_gbs", "plan.machine_efficiency",
}  # fmt: skip
BELOW_ONE = {"optimizer.momentum", "label_smoothing"}


@dataclass(frozen=True)
class Plan:
    """What follows from batch, data and processes; counts, in micro-batches, steps and images."""

    total: int
    micro: int
    accumulation: int  # micro-batches a process takes for one step
    processes: int
    train_images: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        return self.train_images // self.total

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def dropped(self) -> int:
        """Images at the end of each epoch's order that do not fill a global batch."""
        return self.train_images % self.total


def make_plan(config: Config, train_images: int, processes: int) -> Plan:
    """Divide the global batch over ``processes``; raises UserError when it does not divide."""
    total, micro = config.batch.total, config.batch.micro
    micro_batches = total // micro
    if micro_batches % processes:
        fits = [n for n in range(1, micro_batches + 1) if micro_batches % n == 0]
        nearest = {
            max(n for n in fits if n < processes),
            min([n for n in fits if n > processes] or fits[-1:]),
        }
        mend = " or ".join(f"nproc={n}" for n in sorted(nearest))
        raise UserError(
            f"batch.total={total} is {micro_batches} micro-batches of batch.micro={micro}, not to be shared "
            f"by {processes} processes: {mend} would do"
        )
    _enough(total, train_images)
    return Plan(total, micro, micro_batches // processes, processes, train_images, config.epochs)


def _enough(total: int, train_images: int) -> None:
    if train_images < total:
        raise UserError(f"batch.total={total} is more than the {train_images} training images: give a smaller one")


def validate(config: Config) -> None:
    """Raise UserError, naming key and value, for a combination that types alone do not rule out."""
    values = flatten(dataclasses.asdict(config))
    for key, value in values.items():
        said = f"{key}={value}"
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{said} is not a finite number")
        if key in ONE_OF and value not in ONE_OF[key]:
            raise UserError(f"{said} is not one of {', '.join(ONE_OF[key])}")
        if value is None:
            continue
        if key in AT_LEAST_ONE and value < 1:
            raise UserError(f"{said} must be at least 1")
        if key in AT_LEAST_ZERO and value < 0:
            raise UserError(f"{said} must not be negative")
        if key in ABOVE_ZERO and value <= 0:
            raise UserError(f"{said} must be above 0")
        if key == "seed" and value >= 2**63:
            raise UserError(f"{said} must be below 2^63")
        if key in BELOW_ONE and not 0 <= value < 1:
            raise UserError(f"{said} must be in [0, 1)")
    if config.batch.total % config.batch.micro:
        below = max(n for n in range(1, config.batch.micro + 1) if config.batch.total % n == 0)
        raise UserError(
            f"batch.total={config.batch.total} is not a multiple of batch.micro={config.batch.micro}: "
            f"batch.micro={below} divides it"
        )
    if isinstance(config.data, FractalsConfig):
        _enough(config.batch.total, config.data.classes * config.data.train_per_class)
    if len(config.data.mean) != 3 or len(config.data.std) != 3 or min(config.data.std) <= 0:
        raise UserError(
            f"data.mean={config.data.mean} and data.std={config.data.std} must be three numbers, std above 0"
        )
    if isinstance(config.data, FractalsConfig) and not 8 <= config.data.size <= 512:
        raise UserError(f"data.size={config.data.size} must be from 8 to 512 pixels")
    if isinstance(config.data, ImageNetConfig) and not 32 <= config.data.size <= config.data.resize:
        raise UserError(
            f"data.size={config.data.size} must be at least 32 and at most data.resize={config.data.resize}"
        )
    if not config.plan.gpus or min(config.plan.gpus) < 1:
        raise UserError(f"plan.gpus={config.plan.gpus} must be counts of GPUs, each at least 1")
    if config.plan.machine_efficiency > 1:
        raise UserError(f"plan.machine_efficiency={config.plan.machine_efficiency} must be at most 1")
    if config.name is not None and (config.name in ("", ".", "..") or "/" in config.name or "\0" in config.name):
        raise UserError(f"name={config.name!r} must be usable as a folder's name: give one without '/'")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def divide(total: int, divisor: int) -> int:
    if divisor < 1 or total % divisor:
        raise UserError(f"data.batch_divisor={divisor} does not divide the preset's batch of {total}")
    return total // divisor


def register() -> None:
    """Tell Hydra the schema, and OmegaConf the arithmetic that the YAML files use."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, node in [
        ("fractals", FractalsConfig),
        ("imagenet", ImageNetConfig),
        ("lars", LARSConfig),
        ("sgd", OptimizerConfig),
    ]:
        store.store(group="schema", name=name, node=node)
    OmegaConf.register_new_resolver("divide", divide, replace=True)
    OmegaConf.register_new_resolver("min", min, replace=True)
    # lr proportional to the batch, or to its square root, from a published pair of lr and batch
    OmegaConf.register_new_resolver("linear", lambda lr, batch, total: lr * total / batch, replace=True)
    OmegaConf.register_new_resolver(
        "sqrt", lambda lr, batch, total: round(lr * math.sqrt(total / batch), 2), replace=True
    )
