"""The typed configuration: every key with its type, the arithmetic of batch and steps, and what cannot be.

The values, their units and their sources are in ``configs/``; a key that is not here is an error.
"""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from train.errors import UserError


@dataclass
class BatchConfig:
    preset: str = MISSING
    published: int = MISSING
    total: int = MISSING
    micro: int = MISSING
    reference_micro: int = MISSING


@dataclass
class RecipeConfig:
    name: str = MISSING
    train_crop: str = MISSING
    min_area: float = MISSING
    eval_resize: str = MISSING
    stride_in_1x1: bool = MISSING


@dataclass
class ProgressiveConfig:
    start: Optional[int] = MISSING  # noqa: UP045  (OmegaConf reads Optional on every Python)
    epochs: list[int] = MISSING
    multiple: int = MISSING


@dataclass
class DataConfig:
    name: str = MISSING
    root: Optional[str] = MISSING  # noqa: UP045
    size: int = MISSING
    progressive: ProgressiveConfig = MISSING
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
    shift: int = MISSING


@dataclass
class ImageNetConfig(DataConfig):
    resize: int = MISSING
    train_crop: str = MISSING
    min_area: float = MISSING
    eval_resize: str = MISSING
    on_bad_image: str = MISSING


@dataclass
class ModelConfig:
    name: str = MISSING
    zero_gamma: bool = MISSING


@dataclass
class ResNet50Config(ModelConfig):
    stride_in_1x1: bool = MISSING


@dataclass
class OptimizerConfig:
    name: str = MISSING
    lr: float = MISSING
    momentum: float = MISSING
    weight_decay: float = MISSING
    nesterov: bool = MISSING
    exclude_norm_and_bias: bool = MISSING


@dataclass
class LARSConfig(OptimizerConfig):
    trust_coef: float = MISSING
    eps: float = MISSING
    ratio: str = MISSING
    momentum_form: str = MISSING
    momentum_correction: bool = MISSING
    clip: bool = MISSING
    max_ratio: Optional[float] = MISSING  # noqa: UP045
    clamp: Optional[float] = MISSING  # noqa: UP045


@dataclass
class ScheduleConfig:
    decay: str = MISSING
    power: float = MISSING
    end_lr: float = MISSING
    milestones: list[int] = MISSING
    factor: float = MISSING
    origin: str = MISSING
    warmup_lr: float = MISSING
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
    recipe: RecipeConfig = MISSING
    data: DataConfig = MISSING
    batch: BatchConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    label_smoothing: float = MISSING
    ema: float = MISSING
    stop_at_top1: Optional[float] = MISSING  # noqa: UP045
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
    "schedule.decay": ("poly", "cosine", "step"),
    "schedule.origin": ("start", "warmup"),
    "optimizer.ratio": ("paper", "decayed"),
    "optimizer.momentum_form": ("torch", "caffe", "nus"),
    "recipe.train_crop": ("minimal", "scale_and_aspect"),
    "recipe.eval_resize": ("square", "shorter"),
    "data.on_bad_image": ("stop", "skip"),
    "data.train_crop": ("minimal", "scale_and_aspect"),
    "data.eval_resize": ("square", "shorter"),
}
AT_LEAST_ONE = {
    "batch.total", "batch.micro", "epochs", "nproc", "max_steps", "log.every_steps", "checkpoint.keep",
    "data.classes", "data.train_per_class", "data.val_per_class", "data.progressive.multiple",
    "plan.published_at", "plan.gpus_per_machine",
}  # fmt: skip
AT_LEAST_ZERO = {
    "optimizer.lr", "optimizer.weight_decay", "optimizer.trust_coef", "optimizer.eps", "schedule.power",
    "schedule.warmup_epochs", "checkpoint.every_minutes", "data.workers", "data.shift", "seed",
    "log.layers_every_epochs", "schedule.end_lr", "schedule.factor", "schedule.warmup_lr",
    "plan.fixed_ms", "plan.inside_us", "plan.between_us", "plan.dollars_per_hour",
}  # fmt: skip
ABOVE_ZERO = {
    "timeout_minutes", "optimizer.max_ratio", "optimizer.clamp", "recipe.min_area", "data.min_area", "stop_at_top1",
    "plan.images_per_second", "plan.published", "plan.published_gmacs", "plan.inside_gbs", "plan.between_gbs",
    "plan.machine_efficiency",
}  # fmt: skip
BELOW_ONE = {"optimizer.momentum", "label_smoothing", "ema"}
AT_MOST = {
    "schedule.factor": 1, "recipe.min_area": 1, "data.min_area": 1, "stop_at_top1": 100, "plan.machine_efficiency": 1,
}  # fmt: skip
ASCENDING = {"schedule.milestones", "data.progressive.epochs"}


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
        if key in AT_MOST and value > AT_MOST[key]:
            raise UserError(f"{said} must be at most {AT_MOST[key]}")
        if key in ASCENDING and not all(a < b for a, b in itertools.pairwise([-1, *value])):
            raise UserError(f"{said} must be epochs in ascending order, such as [30, 60, 80]")
        if key == "seed" and value >= 2**63:
            raise UserError(f"{said} must be below 2^63")
        if key in BELOW_ONE and not 0 <= value < 1:
            raise UserError(f"{said} must be in [0, 1)")
    if config.batch.total % config.batch.micro:
        most = min(config.batch.micro, config.batch.total)
        below = max(n for n in range(1, most + 1) if config.batch.total % n == 0)
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
    _validate_progressive(config.data)
    optimizer = config.optimizer
    if optimizer.nesterov and not optimizer.momentum:
        raise UserError("optimizer.nesterov=true needs a momentum: give optimizer.momentum=0.9, or leave it out")
    if isinstance(optimizer, LARSConfig) and optimizer.momentum_correction and optimizer.momentum_form != "caffe":
        raise UserError(
            f"optimizer.momentum_correction=true is for optimizer.momentum_form=caffe: with {optimizer.momentum_form} "
            "lr is outside the buffer as it is"
        )
    if config.name is not None and (config.name in ("", ".", "..") or "/" in config.name or "\0" in config.name):
        raise UserError(f"name={config.name!r} must be usable as a folder's name: give a word without '/'")


def _validate_progressive(data: DataConfig) -> None:
    grow = data.progressive
    if len(grow.epochs) != 2:
        raise UserError(f"data.progressive.epochs={grow.epochs} must be two epochs, such as [0, 60]")
    if grow.start is not None and not (8 <= grow.start <= data.size and grow.start % grow.multiple == 0):
        raise UserError(
            f"data.progressive.start={grow.start} must be a multiple of data.progressive.multiple={grow.multiple} "
            f"from 8 to data.size={data.size}"
        )


def train_size(data: DataConfig, epoch: int) -> int:
    """Pixels of a training image in ``epoch``, from 0: ``data.size``, unless ``data.progressive`` still grows to it."""
    start, (begin, end), multiple = data.progressive.start, data.progressive.epochs, data.progressive.multiple
    if start is None or epoch >= end:
        return data.size
    grown = (data.size - start) * max(epoch - begin, 0) // (end - begin)
    return start + grown // multiple * multiple


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


def by_batch(table: dict[str | int, Any], *, _root_: DictConfig) -> Any:
    """The entry of ``table`` for the chosen preset, where a recipe has published one."""
    rows = {str(preset): value for preset, value in table.items()}
    preset = str(_root_.batch.preset)
    if preset in rows:
        return rows[preset]
    written = flatten(OmegaConf.to_container(_root_, resolve=False))  # type: ignore[arg-type]
    lacking = [key for key, value in written.items() if str(value).startswith("${by_batch:")]
    raise UserError(
        f"recipe={_root_.recipe.name} has no published values for batch={preset}: choose batch={'|'.join(rows)}, "
        f"or give values of your own by {' '.join(f'{key}=X' for key in lacking)}"
    )


def register() -> None:
    """Tell Hydra the schema, and OmegaConf the arithmetic that the YAML files use."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, node in [
        ("fractals", FractalsConfig),
        ("imagenet", ImageNetConfig),
        ("lars", LARSConfig),
        ("sgd", OptimizerConfig),
        ("resnet50", ResNet50Config),
    ]:
        store.store(group="schema", name=name, node=node)
    OmegaConf.register_new_resolver("divide", divide, replace=True)
    OmegaConf.register_new_resolver("by_batch", by_batch, replace=True)
    OmegaConf.register_new_resolver("min", min, replace=True)
    # lr proportional to the batch, or to its square root, from a published pair of lr and batch
    OmegaConf.register_new_resolver("linear", lambda lr, batch, total: lr * total / batch, replace=True)
    OmegaConf.register_new_resolver(
        "sqrt", lambda lr, batch, total: round(lr * math.sqrt(total / batch), 2), replace=True
    )
