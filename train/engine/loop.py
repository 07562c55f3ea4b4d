"""The training loop: each epoch's steps, its evaluation and row in the log, and when checkpoints are saved."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from train.data.loader import Loader, MicroBatch
from train.engine.ema import MovingAverage
from train.engine.evaluation import Evaluation
from train.engine.finite import FiniteCheck
from train.engine.logger import Logger
from train.engine.mistakes import COUNT, Mistakes
from train.engine.speed import Speed
from train.engine.step import Step
from train.engine.stop import StopRequested
from train.errors import Diverged, Stopped
from train.optimizer import NamedStatistics
from train.plan import Plan


class Checkpoints(Protocol):
    """Where the chief saves the state of the run."""

    def save(self, step: int, state: dict[str, Any], *, best: bool = False) -> None:
        """Save ``state`` after ``step`` steps; ``best``: as that of the best evaluation."""

    def wait(self) -> None:
        """Return when everything saved is on disk."""


@dataclass
class Position:
    """Where a run is, and what it has recorded on the way. It is part of every checkpoint."""

    step: int = 0  # optimizer steps taken
    rows: int = 0  # evaluations logged
    epoch_loss: float = 0.0  # sum of the step losses since the last evaluation, nats
    seconds: float = 0.0  # spent on the run
    best_top1: float = 0.0
    last_top1: float = 0.0
    lr_scale: float = 1.0  # below 1 after a restart
    # after a divergence: from where, to where, with what lr
    restarts: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Training:
    """A run whose parts are connected. ``checkpoints`` is None on a rank that is not the chief."""

    model: nn.Module  # bare, not in DDP
    average: MovingAverage | None
    take_step: Step
    evaluate: Evaluation  # of the average where there is one, else of the model
    schedule: Callable[[int], float]  # the lr of a step
    layer_statistics: Callable[[], NamedStatistics]
    adapted_norms: Callable[[], dict[str, float]]  # of the weights of layers, by name
    loader: Loader
    seed: int
    plan: Plan
    log: Logger
    checkpoints: Checkpoints | None
    class_names: list[str]
    identity: dict[str, Any]  # what a checkpoint records of its run
    log_every_steps: int
    layers_every_epochs: int
    layers_every_steps: int
    save_every_seconds: float
    stop_at_top1: float | None  # percent
    remark: Callable[[int, float], str | None]  # on the top-1 after an epoch
    before_micro_batch: Callable[[], None]

    def __post_init__(self) -> None:
        self.world, self.device = self.take_step.world, self.take_step.precision.device
        self.votes = self.take_step.votes
        self._speed = Speed()
        self._last_speed: float | None = None
        self._start_at(Position())

    def _start_at(self, position: Position) -> None:
        self.position = position
        # added up on the device, and read where it is logged or saved
        self._epoch_loss = torch.tensor(position.epoch_loss, dtype=torch.float64, device=self.device)
        self._finite = FiniteCheck(self.model, self.device)
        self._speed.restart()
        self._saved_at = time.monotonic()

    # What the run has reached

    def lr(self, step: int) -> float:
        return self.position.lr_scale * self.schedule(step)

    @property
    def images(self) -> int:
        """Images trained on since the beginning of the run."""
        return self.plan.images(self.position.step)

    @property
    def has_reached_top1(self) -> bool:
        """Whether the last evaluation reached the top-1 at which the run is to end."""
        return self.stop_at_top1 is not None and self.position.last_top1 >= self.stop_at_top1

    @property
    def is_finished(self) -> bool:
        return self.position.step >= self.plan.steps or self.has_reached_top1

    @property
    def images_per_second(self) -> float | None:
        """Of this process's steps since the last evaluation, or else before it, without its start; None without any."""
        return self._speed.per_second() or self._last_speed

    @property
    def _steps_since_evaluation(self) -> int:
        return self.position.step - self.plan.first_step(self.plan.evaluated_epoch(self.position.rows))

    # Its state

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: plain tensors and containers, from which ``restore`` continues bit for bit."""
        scaler, noise = self.take_step.scaler, self.take_step.noise
        return {
            **self.identity,
            "position": {**vars(self.position), "epoch_loss": self._epoch_loss.item()},
            "model": self.model.state_dict(),
            "optimizer": self.take_step.optimizer.state_dict(),
            **({"average": self.average.model.state_dict()} if self.average else {}),
            **({"scaler": scaler.state_dict()} if scaler.is_enabled() else {}),
            **({"noise": noise.state()} if noise else {}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.take_step.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        if "scaler" in state:
            self.take_step.scaler.load_state_dict(state["scaler"])
        if self.take_step.noise:
            self.take_step.noise.load_state(state.get("noise"))
        # checkpoints of 0.1 hold the time of the epoch, which is measured anew
        self._start_at(Position(**{k: v for k, v in state["position"].items() if k != "epoch_seconds"}))

    def save(self, *, best: bool = False) -> None:
        if self.checkpoints:
            self.checkpoints.save(self.position.step, self.state(), best=best)

    def restart(self, state: dict[str, Any], diverged: Diverged, lr_factor: float) -> None:
        """Return from a divergence to ``state``, the last good one, and continue with ``lr_factor`` times the lr."""
        restarts, lr_scale = self.position.restarts, self.position.lr_scale * lr_factor
        self.restore(state)
        step = self.position.step
        self.position.lr_scale = lr_scale
        self.position.restarts = [*restarts, {"diverged_at": diverged.step, "back_to": step, "lr_scale": lr_scale}]
        self.log.rewind(self.position.rows, self.images)
        self.log.say(f"{diverged}\nrestarting from step {step} with {lr_scale:g} of the learning rate")
        self.save()

    # Training

    def fit(self, max_steps: int | None = None) -> None:
        """Train to the end, or until the run has taken ``max_steps`` in all.

        Raises Stopped, with everything saved, when any rank was asked to stop, and Diverged when a loss or gradient is
        not finite.
        """
        limit = self.plan.steps if max_steps is None else min(max_steps, self.plan.steps)
        batches = self.loader.run_batches(self.plan, self.position.step, self._is_evaluation_due)
        self._timed = Timed(batches)
        self._batches = self._with_picture(self._timed) if self.position.step == 0 else self._timed
        try:
            while True:
                # First, because a run may have been saved between an epoch's last step and its evaluation.
                if self._is_evaluation_due:
                    self._evaluate()
                if self.position.step >= limit or self.has_reached_top1:
                    break
                self._train_epoch(limit)
        except StopRequested:
            self._check_finite(state=True)
            self.save()
            if self.checkpoints:
                self.checkpoints.wait()
            raise Stopped(
                f"stopped after step {self.position.step}, everything is saved: start the same command again"
            ) from None
        if self.position.step < self.plan.steps:
            # by max_steps, or at the target of stop_at_top1, which follows an evaluation
            if self._steps_since_evaluation:
                self._log_waiting()
            self._check_finite(state=True)
            self.save()
        if self.checkpoints:
            self.checkpoints.wait()

    @property
    def _is_evaluation_due(self) -> bool:
        return self.position.rows < self.plan.evaluations(self.plan.locate(self.position.step)[0])

    def _train_epoch(self, limit: int) -> None:
        """The steps from where the run is to the end of this epoch, or to ``limit``."""
        plan, position = self.plan, self.position
        epoch, _ = plan.locate(position.step)
        self.log.training(epoch + 1, until=plan.evaluated_epoch(position.rows + 1))
        end = min(plan.first_step(epoch + 1), limit)
        self.take_step.micro_batches = plan.accumulation_in(epoch)
        self._speed.begin(self.images)
        for step in range(position.step, end):
            began = time.perf_counter()
            self.world.activity = f"training step {step}"
            loss = self.take_step(self.votes.within(self._micro_batches()), self.lr(step))
            self._finite.record(step, loss, self.take_step.loss_scale)
            if self.average:
                self.average.update()
            self._epoch_loss += loss
            position.step = step + 1
            self._log_step(loss, plan.total_in(epoch))
            if position.step == end or not self._speed.has_started:
                # the first step of a process ends its start, and the last one leaves nothing for the device to compute
                loss.item()
                self._speed.reach(self.images)
            seconds = time.perf_counter() - began
            position.seconds += seconds
            if self.checkpoints and time.monotonic() - self._saved_at >= self.save_every_seconds:
                self._save_if_finite()
            self.votes.after_step(seconds)

    def _micro_batches(self) -> Iterator[MicroBatch]:
        """Those of one step."""
        first = self.world.rank * self.take_step.micro_batches
        for number in range(first, first + self.take_step.micro_batches):
            self.before_micro_batch()
            batch = next(self._batches)
            seed_dropout(self.seed, self.position.step, number)
            yield batch

    def _evaluate(self) -> None:
        """Evaluate after the epoch's last step, and log the row of all steps since the evaluation before."""
        plan, position = self.plan, self.position
        steps, speed, began = self._steps_since_evaluation, self._speed.per_second(), time.perf_counter()
        epoch = plan.evaluated_epoch(position.rows + 1)
        self.log.evaluating(epoch)
        self.world.activity = f"evaluating epoch {epoch}"
        self._log_waiting()
        # Only the last evaluation's mistakes are shown, but with stop_at_top1 any evaluation may be the last.
        mistakes = Mistakes() if epoch == plan.epochs or self.stop_at_top1 is not None else None
        batches = self.votes.within(islice(self._batches, self.loader.validation_rounds))
        scores = self.evaluate(batches, mistakes.add if mistakes else None)
        position.seconds += time.perf_counter() - began
        if not math.isfinite(scores.loss):
            # finite weights may be too large for any image
            self._raise_diverged(position.step - 1, "the validation loss")
        if remark := self.remark(epoch, scores.top1):
            self.log.say(remark)
        self._say_remarks(waited=0.0)
        position.rows += 1
        position.last_top1 = scores.top1
        if mistakes and self.is_finished:
            self._show(mistakes)
        is_best = scores.top1 > position.best_top1
        position.best_top1 = max(position.best_top1, scores.top1)
        self.log.row(
            {
                "epoch": epoch,
                "step": position.step,
                "images": self.images,
                "lr": self.lr(position.step - 1),
                "train_loss": self._epoch_loss.item() / steps,
                "val_loss": scores.loss,
                "val_top1": scores.top1,
                "val_top5": scores.top5,
                "images_per_second": speed,
                "seconds": position.seconds,
                **self._noise(),
            }
        )
        self._epoch_loss.zero_()
        self._last_speed = speed
        self._speed.restart()
        if is_best:
            self.save(best=True)
        self._timed.restart()

    # Logging

    def _with_picture(self, batches: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
        """``batches``, of which the first is shown before the run's first step."""
        first = next(batches)
        # logged at the images of the first step, so that a run that restarts from its beginning supersedes it
        self.log.picture(self.plan.total, "images/augmented", self.loader.pixels(first[0][:COUNT]))
        yield first
        # or this generator would keep its images on the device
        del first
        yield from batches

    def _log_step(self, loss: Tensor, total: int) -> None:
        """Log the step of ``total`` images just taken; every rank reads the loss, and waits, after the same steps."""
        step = self.position.step
        epoch, since = self.plan.locate(step)
        if step % self.log_every_steps and since:
            self.log.progress(total)
        else:
            value = loss.item()
            self._speed.reach(self.images)
            self._check_finite()
            self.log.scalars(self.images, {"train/loss": value, "train/lr": self.lr(step - 1)})
            top1 = {"top1": self.position.last_top1} if self.position.rows else {}
            self.log.progress(total, loss=value, **top1, waiting=self._timed.waiting_share)
        of_epoch = self.layers_every_epochs and since == 0 and epoch % self.layers_every_epochs == 0
        if of_epoch or self.layers_every_steps and step % self.layers_every_steps == 0:
            self._log_layers()

    def _log_layers(self) -> None:
        names, figures = self.layer_statistics()
        if names:
            self.log.layers(self.position.step, self.images, names, {k: v.cpu() for k, v in figures.items()})

    def _noise(self) -> dict[str, Any]:
        """The noise of the gradients since the last evaluation, for the row; {} where it is not measured."""
        noise = self.take_step.noise and self.take_step.noise.read()
        if not noise:
            return {}
        row = noise.row(self.adapted_norms())
        scales: dict[str, Any] = {key: row[key] for key in ("noise_scale", "noise_scale_lars") if key in row}
        scales |= {f"noise_scale/{name}": scale for name, scale in row["noise_scale_layers"].items()}
        self.log.scalars(self.images, {tag: scale for tag, scale in scales.items() if scale is not None})
        return row

    def _show(self, mistakes: Mistakes) -> None:
        if worst := mistakes.worst(self.world, self.loader.pixels):
            self.log.picture(self.images, "images/mistakes", worst.images, worst.captions(self.class_names))

    def _log_waiting(self) -> None:
        # all ranks wait in a step for the one that waited longest
        waited = max(self.world.gather(self._timed.waiting_share))
        self.log.scalars(self.images, {"data/waiting_share": waited})
        self._say_remarks(waited if self.world.is_chief else 0.0)

    def _say_remarks(self, waited: float) -> None:
        """Print each rank's remarks on the images that it has read."""
        for line in self.loader.remarks(waited):
            if self.world.is_chief:
                self.log.say(line)
            else:
                print(line, flush=True)

    def _check_finite(self, state: bool = False) -> None:
        """Raise Diverged, on every rank, once a loss or a gradient was not finite, or ``state`` is not, if given."""
        if failure := self._finite.first_failure():
            step, layers = failure
            more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
            self._raise_diverged(step, f"gradient of {', '.join(layers[:3])}{more}" if layers else "loss")
        if state and not self._is_state_finite():
            self._raise_diverged(self.position.step - 1, "a weight or a running statistic after it")

    def _raise_diverged(self, step: int, what: str) -> NoReturn:
        raise Diverged(
            step,
            f"diverged at step {step} with lr {self.lr(step):.4g}: {what} is not finite; an earlier checkpoint is "
            "intact; a lower optimizer.lr or a longer warm-up may help, or on_divergence=restart",
        )

    def _is_state_finite(self) -> bool:
        """Whether weights and running statistics are: the gradients are from before the last update."""
        state = [x for x in self.model.state_dict().values() if x.is_floating_point()]
        return bool(torch.stack(torch._foreach_norm(state, math.inf)).isfinite().all())

    def _save_if_finite(self) -> None:
        if self._finite.first_failure() is None and self._is_state_finite():
            self.save()
            self._saved_at = time.monotonic()


def seed_dropout(seed: int, step: int, micro_batch: int) -> None:
    """Let what a network draws for a micro-batch, counted within ``step`` over all ranks, depend on these alone.

    So dropout is the same in a resumed run, and on any number of processes of one kind of device.
    """
    digest = hashlib.blake2b(f"{seed} {step} {micro_batch}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))


class Timed(Iterator[MicroBatch]):
    """``batches``, and the share of the time that the host waited for them."""

    def __init__(self, batches: Iterator[MicroBatch]) -> None:
        self._batches = batches
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._began, self._waited = time.perf_counter(), 0.0

    @property
    def waiting_share(self) -> float:
        return self._waited / max(time.perf_counter() - self._began, 1e-9)

    def __next__(self) -> MicroBatch:
        began = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self._waited += time.perf_counter() - began
