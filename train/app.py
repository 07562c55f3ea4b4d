"""The run that a configuration describes: its parts built and connected, trained or evaluated, and recorded."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from traceback import clear_frames
from typing import Any, cast

import torch
from torch import nn

from train.config.schema import Config
from train.data.dataset import Data
from train.data.kinds import open_data
from train.description import description, mlperf_facts
from train.engine.batchnorm import RunningStatistics
from train.engine.ema import MovingAverage
from train.engine.evaluation import Evaluation, Scores
from train.engine.logger import Logger, Loggers, Run
from train.engine.loop import Training
from train.engine.noise import NoiseScale
from train.engine.precision import Precision, check_precision, describe_device, set_up_cuda
from train.engine.step import Step
from train.engine.stop import StopVotes
from train.engine.variance_reduction import VarianceReduction
from train.errors import Diverged, PeersLost, RunEnded, Stopped, UserError
from train.keys import free_on_resume, values
from train.model import make_model
from train.optimizer import KINDS, make_optimizer
from train.output import checkpoint, environment
from train.output.checkpoint import CheckpointWriter
from train.output.layers import LayersLogger
from train.output.loggers import open_logger
from train.output.mlperf import MLPerfLogger
from train.output.profiler import tracing
from train.output.progress import ProgressLogger
from train.output.published_range import PublishedRange
from train.output.rows import RowLogger
from train.output.run_folder import RunFolder
from train.plan import Plan, make_plan
from train.processes.limits import keep_freed_memory
from train.processes.signals import StopRequest
from train.processes.world import World
from train.schedule import make_schedule
from train.weights import begin_from, initial_weights, load, read, train_only

# how gloo and NCCL report that another process is gone or does not answer
LOST = re.compile(r"[Tt]imed? ?out|closed by peer|reset by peer|[Bb]roken pipe|refused|remote process", re.ASCII)

# on_divergence=restart: with half the learning rate, and three times at most
RESTART_LR_FACTOR, MOST_RESTARTS = 0.5, 3


@contextmanager
def process_group(config: Config) -> Iterator[World]:
    """Join the process group; report a lost peer or exhausted GPU memory as a one-line error."""
    set_up_cuda(config.precision)
    try:
        world = World.join(config.timeout_minutes)
    except (RuntimeError, ValueError) as error:
        rank, size, host, port = map(os.environ.get, ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
        raise UserError(
            f"process {rank} of {size} cannot join the others at {host}:{port} ({str(error).splitlines()[0][:160]}): "
            "start all of them within timeout_minutes, with one address"
        ) from error
    if world.device.type == "cpu":
        keep_freed_memory()
    try:
        world.raise_together(lambda: check_precision(config.precision, world.device))
        yield world
    except RunEnded as ended:
        if ended.is_on_every_rank:
            forget_frames(ended)
            world.leave()
        raise
    except (RuntimeError, MemoryError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise UserError(
                f"out of {'GPU ' if on_gpu else ''}memory with batch.micro={config.batch.micro}: give a smaller "
                "batch.micro (it is part of the recipe: BatchNorm's statistics are taken over it)"
            ) from error
        if not (world.size > 1 and LOST.search(str(error))):
            raise
        raise PeersLost(
            f"process {world.rank} of {world.size} lost the others while {world.activity} "
            f"({str(error).splitlines()[0][:160]}): what was saved is intact, start the same command again"
        ) from error
    world.leave()


def forget_frames(error: BaseException | None) -> None:
    """Let go of what the functions that ``error`` ended held: the model, and with it the process group."""
    while error:
        clear_frames(error.__traceback__)
        error = error.__context__


def train(config: Config, world: World, stop: StopRequest, command: str) -> None:
    """Train the run that ``config`` describes, from scratch or from its newest checkpoint."""
    # before anything takes its time: the code that trains is the code that was read at the start
    commit = environment.commit() if world.is_chief else None
    # before there is a folder, which what cannot be trained should not leave behind
    data, plan, model = world.raise_together(lambda: parts(config, world))
    check_same_images(data, world)
    folder = world.raise_together(lambda: RunFolder(config) if world.is_chief else None)
    result, state = world.on_chief(lambda: last_state(folder, data))
    if result is not None:
        if folder:
            print(
                f"{folder.path} is finished: {result['last_top1']:.2f} % top-1 after {result['steps']} steps. "
                "Delete it or give another name=NAME to run again."
            )
        return
    if folder:
        step = state["position"]["step"] if state else None
        said = description(config, plan, data, step, describe_device(config.precision, world.device))
        print(f"{config.name}\n{said}\n  {'folder':<10}{folder.path}", flush=True)
    # None stands for the first start of a run that an older version saved without its commit
    commits = environment.with_commit(state.get("commits", [None]) if state else [], commit)
    weights = None
    if config.init and not state:
        # read once: every process begins from the same
        weights = world.on_chief(lambda: initial_weights(str(config.init), config.model))
    log = world.raise_together(lambda: open_log(config, plan, data, folder, state))
    is_over, report = False, None
    try:
        with ExitStack() as stack:
            if weights is not None:
                log.say(world.raise_together(partial(begin_from, model, weights, data.classes, str(config.init))))
                weights = None
            training = connect(config, model, plan, data, world, stop, folder, log, commits)
            stack.callback(training.loader.close)
            if training.checkpoints:
                stack.callback(training.checkpoints.wait)
            if folder and config.profile:
                trace = tracing(folder.path / "trace.json.gz", plan.accumulation, log.say)
                training.before_micro_batch = stack.enter_context(trace)
            if state:
                training.restore(state)
                # it has a copy of all weights
                state = None
            elif config.on_divergence == "restart":
                # so that there is something to return to from the first step on
                training.save()
            if folder:
                folder.mark(None)
            stop.defer()
            run_with_restarts(training, config, folder)
            is_over = training.is_finished
            if is_over and data.report_batches:
                world.activity = "scoring the report split"
                report = training.evaluate(data.report_batches(world))
    except (Stopped, Diverged) as ended:
        is_over = isinstance(ended, Diverged)
        ended.is_said_elsewhere = not world.is_chief
        if folder:
            folder.mark(ended)
            if isinstance(ended, Diverged):
                conditions = environment.conditions(plan.processes, command, commits)
                folder.write_diverged(ended, data.fingerprint, conditions)
        raise
    finally:
        log.close(is_over)
    if folder and training.is_finished:
        finish(folder, training, data, report, environment.conditions(plan.processes, command, commits))
    elif folder:
        speed = training.images_per_second
        since = f" at {speed:,.0f} images/s" if speed else ""
        print(f"stopped at max_steps={config.max_steps}{since}: {folder.path} is unfinished and can be resumed")


def check_same_images(data: Data, world: World) -> None:
    """Raise UserError, on every rank, unless all have opened the images that rank 0 has."""
    own = (data.fingerprint, data.train_images, data.val_images)
    chiefs = world.on_chief(lambda: own)

    def check() -> None:
        if own != chiefs:
            raise UserError(
                f"data.root holds other images for process {world.rank} ({own[1]:,} for training, {own[2]:,} for "
                f"validation) than for process 0 ({chiefs[1]:,} and {chiefs[2]:,}): copy them anew to its machine"
            )

    world.raise_together(check)


def parts(config: Config, world: World) -> tuple[Data, Plan, nn.Module]:
    """The images, their division among steps and processes, and the network; UserError if they do not fit together."""
    data = open_data(config.data)
    plan = make_plan(config.batch, config.epochs, data.train_images, world.size, config.evaluate_every)
    for total in config.batch.totals:
        config.optimizer.check_groups(total // plan.micro, plan.processes)
    return data, plan, build_model(config, data.classes, world)


def last_state(folder: RunFolder | None, data: Data) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The result of a finished run, and the state from which an unfinished one continues; called on the chief."""
    assert folder is not None
    state, damaged = checkpoint.load_newest(folder.checkpoints)
    for line in damaged:
        print(f"{line}; continuing from the one before", file=sys.stderr)
    result = folder.result
    if any(begun and begun["data_fingerprint"] != data.fingerprint for begun in (state, result)):
        raise UserError(f"{folder.path} was begun on other images than data.root holds now: give another name=NAME")
    return result, state


def open_log(config: Config, plan: Plan, data: Data, folder: RunFolder | None, state: dict[str, Any] | None) -> Logger:
    """Every form of the log on the chief, where there is a ``folder``, and none on the other ranks."""
    if folder is None:
        return Logger()
    position = state["position"] if state else {"rows": 0, "step": 0}
    rows, images = position["rows"], plan.images(position["step"])
    mlperf = []
    if config.mlperf_log:
        facts = mlperf_facts(config, plan, data)
        mlperf = [MLPerfLogger(folder.path / "mlperf.log", rows if state else None, facts)]
    free = free_on_resume(config)
    settings = {name: value for name, value in values(config).items() if name not in free}
    run = Run(folder.path, str(config.name), images, settings, description(config, plan, data))
    progress = ProgressLogger(images, plan.images(plan.steps), config.epochs)
    loggers = Loggers(
        [
            RowLogger(folder.path / "log.jsonl", rows),
            LayersLogger(folder.path / "layers.csv", images),
            progress,
            *mlperf,
            *(open_logger(name, run, progress.say) for name in config.logger),
        ]
    )
    return cast(Logger, loggers)


def connect(
    config: Config,
    model: nn.Module,
    plan: Plan,
    data: Data,
    world: World,
    stop: StopRequest,
    folder: RunFolder | None,
    log: Logger,
    commits: Sequence[str | None] = (),
) -> Training:
    """Build optimizer, schedule and loader for ``model``, and connect them; ``commits`` are kept in checkpoints."""
    average = MovingAverage(model, config.ema) if config.ema else None
    if config.compile:
        compile_static([model, average.model] if average else [model], config, world)
    step = connect_step(config, plan, world, model, stop.received)
    kind = KINDS[config.optimizer.name]
    return Training(
        model=model,
        average=average,
        take_step=step,
        evaluate=Evaluation(average.model if average else model, world, step.precision),
        schedule=make_schedule(config.schedule, config.optimizer.lr, plan),
        layer_statistics=lambda: kind.layer_statistics(model, step.optimizer),
        adapted_norms=lambda: kind.adapted_norms(model, step.optimizer),
        loader=data.make_loader(world, config.seed),
        seed=config.seed,
        plan=plan,
        log=log,
        checkpoints=CheckpointWriter(folder.checkpoints, config.checkpoint.keep) if folder else None,
        class_names=data.class_names,
        identity={"data_fingerprint": data.fingerprint, "config": asdict(config), "commits": list(commits)},
        log_every_steps=config.log.every_steps,
        layers_every_epochs=config.log.layers_every_epochs,
        layers_every_steps=config.log.layers_every_steps,
        save_every_seconds=60 * config.checkpoint.every_minutes,
        stop_at_top1=config.stop_at_top1,
        remark=remarks(config, data),
        before_micro_batch=lambda: None,
    )


def connect_step(
    config: Config, plan: Plan, world: World, model: nn.Module, asked_to_stop: Callable[[], bool] = lambda: False
) -> Step:
    """The step of ``model``, the bare module, with the configured optimizer."""
    precision, optimizer = Precision.named(config.precision, world.device), config.optimizer
    return Step(
        model=world.data_parallel(model),
        optimizer=make_optimizer(model, optimizer),
        statistics=RunningStatistics(model, world),
        votes=StopVotes(world, asked_to_stop),
        world=world,
        precision=precision,
        label_smoothing=config.label_smoothing,
        micro_batches=plan.accumulation,
        scaler=precision.scaler(),
        noise=NoiseScale(model, world, plan.micro) if config.noise_scale else None,
        variance_reduction=VarianceReduction(model, world, optimizer.variance_groups)
        if optimizer.variance_reduction
        else None,
    )


def build_model(config: Config, classes: int, world: World) -> nn.Module:
    """The configured network on the device, channels last; on every rank the weights that the seed gives."""
    torch.manual_seed(config.seed)
    model = make_model(config.model, classes, config.data.sizes(config.epochs), config.batch.micro)
    if config.train_only:
        train_only(model, config.train_only)
    # channels last before DDP, whose buckets keep the strides
    return model.to(memory_format=torch.channels_last).to(world.device)


def compile_static(models: Sequence[nn.Module], config: Config, world: World) -> None:
    """Let torch compile ``models`` in place: once for each size of training images, and once for evaluation."""
    from torch._inductor import config as inductor
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise UserError("compile=true finds no C++ compiler: install g++, or leave out compile=true") from error
    if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:
        # each process would otherwise start as many compilers as the machine has cores
        inductor.compile_threads = world.cores
    sizes = config.data.sizes(config.epochs)
    # what earlier jobs of a sweep have compiled would count
    torch._dynamo.reset()
    # past this limit torch would run the rest of the run uncompiled; a report split may be smaller than a batch
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, len(models) * (len(sizes) + 2))
    # a shape that varies would make torch compile kernels for any shape, which are slower, and keep them
    for model in models:
        model.compile(dynamic=False)


def remarks(config: Config, data: Data) -> Callable[[int, float], str | None]:
    """Remarks on the top-1 of a run that repeats one of the published rows; none on any other run."""
    batch = config.batch
    is_published = (
        data.is_ilsvrc
        and config.recipe.name == "torchlars"
        and not batch.grow
        and (batch.total, config.epochs, config.model.name) == (batch.published, 90, "resnet50")
        and config.optimizer.name == ("sgd" if batch.preset == "256" else "lars")
    )
    return PublishedRange(batch.preset).remark if is_published else lambda epoch, top1: None


def run_with_restarts(training: Training, config: Config, folder: RunFolder | None) -> None:
    """Train to the end of the run, or to ``max_steps``; after a divergence again, where that is allowed."""
    while True:
        try:
            return training.fit(config.max_steps)
        except Diverged as diverged:
            restart(training, config, folder, diverged)


def restart(training: Training, config: Config, folder: RunFolder | None, diverged: Diverged) -> None:
    """Reload the last good state with a lower lr; re-raises ``diverged`` if a restart is not allowed or possible."""
    if config.on_divergence == "stop" or len(training.position.restarts) >= MOST_RESTARTS:
        raise diverged
    good = training.world.on_chief(lambda: last_good_state(training, folder))
    if good is None:
        raise diverged
    training.restart(good, diverged, RESTART_LR_FACTOR)


def last_good_state(training: Training, folder: RunFolder | None) -> dict[str, Any] | None:
    """The state that was saved last; called on the chief."""
    assert training.checkpoints and folder
    training.checkpoints.wait()
    return checkpoint.load_newest(folder.checkpoints)[0]


def finish(
    folder: RunFolder, training: Training, data: Data, report: Scores | None, conditions: dict[str, Any]
) -> None:
    """Write the weights and the result, and print the final accuracy; ``report``: the scores of the third split."""
    position = training.position
    reached = {
        "best_top1": position.best_top1,
        "last_top1": position.last_top1,
        "report_top1": report.top1 if report else None,
        "report_loss": report.loss if report else None,
        "steps": position.step,
        "seconds": round(position.seconds, 1),
        "restarts": position.restarts,
        "reached_top1": training.stop_at_top1 if training.has_reached_top1 else None,
        "dropped_images_per_epoch": training.plan.dropped,
        "data": data.remark,
        "train_images": data.train_images,
        "val_images": data.val_images,
        "classes": data.classes,
        "data_fingerprint": data.fingerprint,
        "parameters": sum(p.numel() for p in training.model.parameters()),
    }
    folder.write_result(training.evaluate.model, reached, conditions)
    on_report = f"; {report.top1:.2f} % on the report split" if report else ""
    scores = f"{position.last_top1:.2f} % top-1 (best {position.best_top1:.2f} %{on_report})"
    print(f"finished: {scores}, in {folder.path}")


def evaluate_file(config: Config, world: World) -> None:
    """Print one line of JSON with the scores of ``config.evaluate``, a weights file or a checkpoint."""
    assert config.evaluate is not None
    path = Path(os.path.expanduser(config.evaluate))
    weights = world.raise_together(lambda: read(path))
    data = world.raise_together(lambda: open_data(config.data))
    check_same_images(data, world)
    model = world.raise_together(lambda: build_model(config, data.classes, world))
    world.raise_together(
        lambda: load(model, weights, f"{path} does not fit model={config.model.network}", data.classes)
    )
    evaluation = Evaluation(model, world, Precision.named(config.precision, world.device))
    if config.data.split == "report":
        assert data.report_batches
        scores = evaluation(data.report_batches(world))
    else:
        loader = data.make_loader(world, config.seed)
        scores = evaluation(loader.validation_batches())
        loader.close()
    if not math.isfinite(scores.loss):
        raise UserError(f"{path} has a validation loss of {scores.loss}: its weights have diverged, choose others")
    if world.is_chief:
        scored = {"val_top1": scores.top1, "val_top5": scores.top5, "val_loss": scores.loss, "images": scores.images}
        print(json.dumps(scored))
