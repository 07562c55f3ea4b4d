"""The order of things: steps, an evaluation, a row, epoch after epoch; where a run stops and goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lars import LARS
from train.average import Average
from train.batchnorm import RunningStatistics
from train.checkpoint import Writer
from train.config import Plan
from train.data.loader import Loader
from train.errors import Diverged, Stopped
from train.log import Log
from train.pictures import COUNT, Mistakes, captions, grid
from train.step import Arithmetic, MicroBatch, evaluate, train_step
from train.watch import Watch
from train.world import World


@dataclass
class Position:
    """Where a run is, and what it knows of its way there. All of it is in every checkpoint."""

    step: int = 0  # optimizer steps taken
    rows: int = 0  # evaluations logged
    epoch_loss: float = 0.0  # sum of the epoch's step losses so far, nats
    epoch_seconds: float = 0.0  # spent on the epoch's steps so far
    seconds: float = 0.0  # spent on all of the run
    best_top1: float = 0.0
    last_top1: float = 0.0
    lr_scale: float = 1.0  # below 1 after a divergence that the run was to survive
    restarts: list[dict[str, float]] = field(default_factory=list)  # of these: where, to which step, with which scale


@dataclass
class Training:
    """Everything a run needs, connected. ``forward`` is ``model`` as the step calls it, in DDP or bare."""

    model: nn.Module
    forward: nn.Module
    average: Average | None  # what is evaluated, if not the model
    optimizer: Optimizer
    schedule: Callable[[int], float]  # lr of a step
    loader: Loader
    plan: Plan
    world: World
    arithmetic: Arithmetic
    log: Log
    smoothing: float
    every_steps: int
    layers_every_epochs: int
    stop: Callable[[], bool]
    checkpoints: Writer | None  # the chief's
    class_names: list[str]
    about: dict[str, Any]  # what a checkpoint says of its run
    save_every_seconds: float
    remark: Callable[[int, float], str | None]  # on the top-1 after an epoch
    stop_at_top1: float | None  # percent
    position: Position = field(default_factory=Position)
    stepped: Callable[[], None] = lambda: None  # called after every step

    def lr(self, step: int) -> float:
        return self.position.lr_scale * self.schedule(step)

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated, and kept at the end."""
        return self.average.model if self.average else self.model

    @property
    def has_reached_top1(self) -> bool:
        """Whether the last evaluation had the top-1 at which the run is to stop."""
        return self.stop_at_top1 is not None and self.position.last_top1 >= self.stop_at_top1

    @property
    def is_finished(self) -> bool:
        return self.position.step >= self.plan.steps or self.has_reached_top1

    @property
    def images_per_second(self) -> float | None:
        """Of the steps since the last evaluation; None when there were none."""
        steps = self.position.step - self.position.rows * self.plan.steps_per_epoch
        return steps * self.plan.total / max(self.position.epoch_seconds, 1e-9) if steps else None

    def state(self) -> dict[str, Any]:
        """Plain tensors and containers, from which ``restore`` goes on bit for bit."""
        return {
            **self.about,
            "position": vars(self.position).copy(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **({"average": self.average.model.state_dict()} if self.average else {}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.position = Position(**state["position"])

    def go_back(self, state: dict[str, Any], diverged: Diverged, lower: float) -> None:
        """From a run that diverged to ``state``, its last good one, with ``lower`` times the learning rate."""
        earlier, scale = self.position.restarts, self.position.lr_scale * lower
        self.restore(state)
        self.position.lr_scale = scale
        back = {"diverged_at": diverged.step, "back_to": self.position.step, "lr_scale": scale}
        self.position.restarts = [*earlier, back]
        self.log.rewind(self.position.rows, self.position.step * self.plan.total)
        self.log.say(f"{diverged}\ngoing back to step {self.position.step} with {scale:g} of the learning rate")
        if self.checkpoints:
            self.checkpoints.save(self.position.step, self.state())

    def run(self, max_steps: int | None = None) -> None:
        """Train to the end, or to ``max_steps`` from the run's beginning.

        Raises Stopped, with everything saved, when any rank was asked to stop, and Diverged when the loss is
        not finite.
        """
        statistics = RunningStatistics(self.model, self.world)
        self._watch = Watch(list(self.model.parameters()), self.arithmetic.device)
        limit = self.plan.steps if max_steps is None else min(max_steps, self.plan.steps)
        self._saved_at = time.monotonic()
        while True:
            if self.position.rows < self.position.step // self.plan.steps_per_epoch:
                self._evaluate()
            if self.position.step >= limit or self.has_reached_top1:
                break
            self._train_epoch(statistics, limit)
        if self.checkpoints:
            if self.position.step < self.plan.steps:
                self.checkpoints.save(self.position.step, self.state())
            self.checkpoints.wait()

    def _train_epoch(self, statistics: RunningStatistics, limit: int) -> None:
        """From where the run is to the end of this epoch, or to ``limit``."""
        plan, position = self.plan, self.position
        epoch, first = divmod(position.step, plan.steps_per_epoch)
        self.log.training(epoch + 1, plan.epochs)
        batches = Timed(self.loader.train(epoch, first))
        stream = self._showing_the_first(batches) if position.step == 0 else batches
        entered = time.perf_counter()
        epoch_loss = torch.tensor(position.epoch_loss, dtype=torch.float64, device=self.arithmetic.device)
        for step in range(position.step, min((epoch + 1) * plan.steps_per_epoch, limit)):
            began = time.perf_counter()
            self.world.doing = f"training step {step}"
            loss = train_step(
                self.forward,
                self.optimizer,
                _take(stream, plan.accumulation),
                plan.accumulation,
                statistics,
                self.world,
                self.arithmetic,
                lr=self.lr(step),
                smoothing=self.smoothing,
                stop=self.stop,
                watch=partial(self._watch.note, step, self.optimizer),
            )
            if loss is None:
                position.epoch_loss = epoch_loss.item()
                self._leave()
            if self.average:
                self.average.update()
            self.stepped()
            epoch_loss += loss
            position.step = step + 1
            if position.step % self.every_steps == 0 or position.step % plan.steps_per_epoch == 0:
                self._report(loss, step, batches.seconds / (time.perf_counter() - entered))
            else:
                self.log.progress(plan.total)
            seconds = time.perf_counter() - began
            position.epoch_seconds += seconds
            position.seconds += seconds
            if self.checkpoints and time.monotonic() - self._saved_at >= self.save_every_seconds:
                position.epoch_loss = epoch_loss.item()
                self._save_if_finite(self.checkpoints)
        position.epoch_loss = epoch_loss.item()
        # the others wait for the process that waited longest
        waited = max(self.world.gather(batches.seconds / max(time.perf_counter() - entered, 1e-9)))
        self.log.scalars(position.step * plan.total, {"data/waiting_share": waited})
        for line in self.loader.remarks(waited if self.world.is_chief else 0.0):
            self.log.say_of_rank(line)

    def _showing_the_first(self, batches: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
        """``batches``, the first of which is pictured before the run's first step."""
        first = next(batches)
        picture = grid(self.loader.pixels(first[0][:COUNT]))
        # under the images of that step: a run that goes back to its beginning supersedes it
        self.log.picture(self.plan.total, "images/augmented", picture)
        return chain([first], batches)

    def _report(self, loss: Tensor, step: int, waited: float) -> None:
        """Read the loss, which waits for the device; every rank does so after the same steps."""
        value, lr = loss.item(), self.lr(step)
        images = self.position.step * self.plan.total
        self._check()
        self.log.scalars(images, {"train/loss": value, "train/lr": lr})
        self.log.progress(self.plan.total, loss=value, top1=self.position.last_top1, waiting=waited)

    def _evaluate(self) -> None:
        plan, position = self.plan, self.position
        epoch = position.rows + 1
        self.log.evaluating(epoch, plan.epochs)
        self.world.doing = f"evaluating epoch {epoch}"
        began, speed = time.perf_counter(), self.images_per_second
        # the last evaluation's mistakes are pictured; looking costs nothing that could change its scores
        mistakes = Mistakes() if epoch == plan.epochs or self.stop_at_top1 is not None else None
        scores = evaluate(
            self.evaluated,
            self.loader.validation(),
            self.world,
            self.arithmetic,
            self.stop,
            mistakes.add if mistakes else None,
        )
        position.seconds += time.perf_counter() - began
        if scores is None:
            self._leave()
        if said := self.remark(epoch, scores.top1):
            self.log.say(said)
        for line in self.loader.remarks(0.0):
            self.log.say_of_rank(line)
        position.rows = epoch
        position.last_top1 = scores.top1
        if mistakes and self.is_finished:
            self._show(mistakes.worst(self.world))
        is_best, position.best_top1 = scores.top1 > position.best_top1, max(position.best_top1, scores.top1)
        self.log.row(
            {
                "epoch": epoch,
                "step": position.step,
                "images": position.step * plan.total,
                "lr": self.lr(position.step - 1),
                "train_loss": position.epoch_loss / plan.steps_per_epoch,
                "val_loss": scores.loss,
                "val_top1": scores.top1,
                "val_top5": scores.top5,
                "images_per_second": speed,
                "seconds": position.seconds,
            }
        )
        position.epoch_loss = position.epoch_seconds = 0.0
        if self.checkpoints and is_best:
            self.checkpoints.save(position.step, self.state(), best=True)
        if self.layers_every_epochs and epoch % self.layers_every_epochs == 0:
            self._report_layers()

    def _show(self, mistakes: tuple[Tensor, ...]) -> None:
        if len(mistakes[0]):
            picture = grid(self.loader.pixels(mistakes[3]), captions(mistakes, self.class_names))
            self.log.picture(self.position.step * self.plan.total, "images/mistakes", picture)

    def _report_layers(self) -> None:
        # a run resumed between an epoch's last step and its evaluation has not stepped yet
        if not isinstance(self.optimizer, LARS) or not self.optimizer.adapted_parameters:
            return
        known = {id(p): name for name, p in self.model.named_parameters()}
        names = [known[id(p)] for p in self.optimizer.adapted_parameters]
        images = self.position.step * self.plan.total
        self.log.layers(images, "trust_ratio", names, self.optimizer.trust_ratios)
        self.log.layers(images, "weight_norm", names, self.optimizer.weight_norms)
        self.log.layers(images, "gradient_norm", names, self.optimizer.gradient_norms)

    def _check(self) -> None:
        """Raise Diverged, on every rank, once a loss or a gradient was not finite."""
        found = self._watch.read()
        if found is None:
            return
        step, layers = found
        names = [name for name, _ in self.model.named_parameters()]
        where = ", ".join(names[i] for i in layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
        raise Diverged(
            step,
            f"diverged at step {step} with lr {self.lr(step):.4g}: no finite "
            f"{f'gradient of {where}' if layers else 'loss'}; the last checkpoint is from before; "
            "a lower optimizer.lr or a longer warm-up may hold, or on_divergence=restart",
        )

    def _save_if_finite(self, checkpoints: Writer) -> None:
        # gradients are from before their step: only the weights tell whether this state is worth keeping
        norms = torch.stack(torch._foreach_norm([p.detach() for p in self.model.parameters()]))
        if self._watch.read() is None and bool(norms.isfinite().all()):
            checkpoints.save(self.position.step, self.state())
            self._saved_at = time.monotonic()

    def _leave(self) -> NoReturn:
        if self.checkpoints:
            self.checkpoints.save(self.position.step, self.state())
            self.checkpoints.wait()
        raise Stopped(f"stopped after step {self.position.step}, everything is saved: start the same command again")


class Timed(Iterator[MicroBatch]):
    """``batches``, and the ``seconds`` that the host waited for them."""

    def __init__(self, batches: Iterator[MicroBatch]) -> None:
        self._batches = batches
        self.seconds = 0.0

    def __next__(self) -> MicroBatch:
        began = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - began


def _take(batches: Iterator[MicroBatch], count: int) -> Iterator[MicroBatch]:
    for _ in range(count):
        yield next(batches)
