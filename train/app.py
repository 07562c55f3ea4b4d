"""The run that a configuration describes: built from its parts, trained or evaluated, and recorded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from train import checkpoint, mlperf, record
from train.average import Average
from train.bands import Bands
from train.banner import banner
from train.config import WITHOUT_EFFECT, Config, Plan, flatten, make_plan
from train.data import Data, open_data
from train.errors import Diverged, Stopped, UserError
from train.log import Log, Silence
from train.loop import Position, Training
from train.mlperf import MLPerfLog
from train.model import make_model
from train.optimizer import make_optimizer
from train.profiler import tracing
from train.run import Run
from train.schedule import schedule_of
from train.signals import StopRequest
from train.step import Arithmetic, evaluate
from train.world import World

# how gloo and NCCL say that another process is gone or does not answer
LOST = re.compile(r"[Tt]imed? ?out|closed by peer|reset by peer|[Bb]roken pipe|refused|remote process", re.ASCII)

# on_divergence=restart: with half the learning rate, and three times at most
LOWER, MOST_RESTARTS = 0.5, 3


def native_precision(device: torch.device) -> str:
    """``bf16`` where ``device`` computes in it natively, else ``fp32``."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        native = has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16")
    else:
        # torch before 2.10
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if native else "fp32"


def build_model(config: Config, classes: int, world: World) -> nn.Module:
    """The configured network on the device, channels last; on every rank the seed's weights."""
    torch.manual_seed(config.seed)
    # before DDP, whose buckets take over the strides
    return make_model(config.model, classes).to(memory_format=torch.channels_last).to(world.device)


def arithmetic_of(config: Config, world: World) -> Arithmetic:
    return Arithmetic(world.device, torch.bfloat16 if config.precision == "bf16" else torch.float32)


def train(config: Config, world: World, stop: StopRequest, command: str) -> None:
    """Train as ``config`` says, from the beginning or from where the run of this name stopped."""
    data = world.everywhere(lambda: open_data(config.data))
    plan = world.everywhere(lambda: make_plan(config, data.train_images, world.size))
    opened: list[Run] = []  # on the chief only

    def open_run() -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        run = Run(config)
        opened.append(run)
        state, damaged = checkpoint.load_newest(run.checkpoints)
        for line in damaged:
            print(f"{line}; going on from the one before", file=sys.stderr)
        if state is not None and state["data_fingerprint"] != data.fingerprint:
            raise UserError(f"{run.folder} was begun on other images than data.root holds now: give another name=NAME")
        if config.mlperf_log and run.result is None:
            run.mlperf = MLPerfLog(run.folder / "mlperf.log", state["position"]["rows"] if state else None)
        return run.result, state

    result, state = world.on_chief(open_run)
    run = opened[0] if opened else None
    if result is not None:
        if run:
            print(
                f"{run.folder} is finished: {result['last_top1']:.2f} % top-1 after {result['steps']} steps. "
                "Delete it or give another name=NAME to run again."
            )
        return
    if run:
        print(f"{config.name}\n{banner(config, plan, data, state)}\n  {'folder':<10}{run.folder}", flush=True)
    try:
        training = connect(config, plan, data, world, stop, run, state)
        try:
            if run:
                run.mark(None)
                if run.mlperf:
                    run.mlperf.start(mlperf.facts(config, plan, data))
            stop.defer()
            with ExitStack() as stack:
                if run and config.profile:
                    training.stepped = stack.enter_context(tracing(run.folder / "trace.json.gz", training.log.say))
                fit(training, config)
        finally:
            training.log.close()
            training.loader.close()
    except (Stopped, Diverged) as ended:
        ended.is_said_elsewhere = not world.is_chief
        if run:
            run.mark(ended)
            if run.mlperf and isinstance(ended, Diverged):
                run.mlperf.abort()
        raise
    if run and training.is_finished:
        finish(run, training, plan, data, command)
    elif run:
        speed = training.images_per_second
        since = f" at {speed:,.0f} images/s" if speed else ""
        print(f"stopped at max_steps={config.max_steps}{since}: {run.folder} is unfinished and can go on")


def fit(training: Training, config: Config) -> None:
    """Train to the end, or ``max_steps``; from where it diverges once more, if it may, with a lower learning rate."""
    while True:
        try:
            return training.run(config.max_steps)
        except Diverged as diverged:
            if config.on_divergence == "stop" or len(training.position.restarts) >= MOST_RESTARTS:
                raise
            good = training.world.on_chief(lambda: last_good(training))
            if good is None:
                raise
            training.go_back(good, diverged, LOWER)


def last_good(training: Training) -> dict[str, Any] | None:
    """The state that the chief saved last."""
    assert training.checkpoints
    training.checkpoints.wait()
    return checkpoint.load_newest(training.checkpoints.folder)[0]


def connect(
    config: Config,
    plan: Plan,
    data: Data,
    world: World,
    stop: StopRequest,
    run: Run | None,
    state: dict[str, Any] | None,
) -> Training:
    """Build model, optimizer, schedule, loader and log, and put ``state`` into them."""
    model = build_model(config, data.classes, world)
    average = Average(model, config.ema) if config.ema else None
    if config.compile:
        model.compile()
    position = Position(**state["position"]) if state else Position()
    log: Log = Silence()
    if run:
        log = Log(
            run.folder,
            rows=position.rows,
            images=position.step * plan.total,
            total_images=plan.steps * plan.total,
            mlperf=run.mlperf,
        )
        if not position.step:
            plain = {key: value for key, value in flatten(asdict(config)).items() if key not in WITHOUT_EFFECT}
            log.open_board(plain, banner(config, plan, data, None))

    training = Training(
        model=model,
        forward=world.data_parallel(model),
        average=average,
        optimizer=make_optimizer(model, config.optimizer),
        schedule=schedule_of(config, plan),
        loader=data.make_loader(plan, config.seed, world),
        plan=plan,
        world=world,
        arithmetic=arithmetic_of(config, world),
        log=log,
        smoothing=config.label_smoothing,
        every_steps=config.log.every_steps,
        layers_every_epochs=config.log.layers_every_epochs,
        stop=stop.received,
        checkpoints=checkpoint.Writer(run.checkpoints, config.checkpoint.keep) if run else None,
        class_names=data.class_names,
        about={"data_fingerprint": data.fingerprint, "config": asdict(config)},
        save_every_seconds=60 * config.checkpoint.every_minutes,
        remark=expectations(config, data),
        stop_at_top1=config.stop_at_top1,
    )
    if state:
        training.restore(state)
    elif training.checkpoints and config.on_divergence == "restart":
        # something to go back to from the first step on
        training.checkpoints.save(0, training.state())
    return training


def expectations(config: Config, data: Data) -> Callable[[int, float], str | None]:
    """Remarks on a run that is one of the published rows; silence on any other."""
    batch = config.batch
    published = (
        data.is_ilsvrc
        and config.recipe.name == "torchlars"
        and (batch.total, config.epochs, config.model.name) == (batch.published, 90, "resnet50")
        and config.optimizer.name == ("sgd" if batch.preset == "256" else "lars")
    )
    return Bands(batch.preset).remark if published else lambda epoch, top1: None


def finish(run: Run, training: Training, plan: Plan, data: Data, command: str) -> None:
    position = training.position
    weights = {k: v.detach().cpu().contiguous() for k, v in training.evaluated.state_dict().items()}
    result = {
        "best_top1": position.best_top1,
        "last_top1": position.last_top1,
        "steps": position.step,
        "seconds": round(position.seconds, 1),
        "restarts": position.restarts,
        "reached_top1": training.stop_at_top1 if training.has_reached_top1 else None,
        "dropped_images_per_epoch": plan.dropped,
        "data": data.remark,
        "train_images": data.train_images,
        "val_images": data.val_images,
        "classes": data.classes,
        "data_fingerprint": data.fingerprint,
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "versions": record.versions(),
        "hardware": record.hardware(plan.processes),
        "command": command,
        "commit": record.commit(),
    }
    if run.mlperf:
        # unless it had reached the target
        run.mlperf.abort()
    run.finish(weights, result)
    print(f"finished: {position.last_top1:.2f} % top-1 (best {position.best_top1:.2f} %), in {run.folder}")


def evaluate_file(config: Config, world: World) -> None:
    """Print one line of JSON with the scores of ``config.evaluate``, a weights file or a checkpoint."""
    assert config.evaluate is not None
    path = Path(config.evaluate).expanduser()
    weights = world.everywhere(lambda: checkpoint.load(path))
    data = world.everywhere(lambda: open_data(config.data))
    model = build_model(config, data.classes, world)
    try:
        model.load_state_dict(weights.get("average", weights.get("model", weights)))
    except RuntimeError as error:
        why = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"{path} does not fit model={config.model.name} with {data.classes} classes ({why[:120]}): "
            "give the model= and data= that it was trained with"
        ) from error
    loader = data.make_loader(make_plan(config, max(data.train_images, config.batch.total), world.size), 0, world)
    scores = evaluate(model, loader.validation(), world, arithmetic_of(config, world))
    loader.close()
    assert scores is not None
    if world.is_chief:
        print(
            json.dumps(
                {
                    "val_top1": scores.top1,
                    "val_top5": scores.top5,
                    "val_loss": scores.loss,
                    "images": scores.images,
                }
            )
        )


def run(config: Config, command: str, stop: StopRequest) -> None:
    """Train or evaluate in this process, among those that torchrun started."""
    world = World.join(config.timeout_minutes)
    try:
        if config.evaluate:
            evaluate_file(config, world)
        else:
            train(config, world, stop, command)
    except (Stopped, Diverged):
        # every rank ends here
        world.leave()
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of GPU memory with batch.micro={config.batch.micro}: give a smaller batch.micro "
            "(it is part of the recipe: BatchNorm's statistics are taken over it)"
        ) from error
    except RuntimeError as error:
        if not (world.size > 1 and LOST.search(str(error))):
            raise
        raise UserError(
            f"process {world.rank} of {world.size} lost the others while {world.doing} "
            f"({str(error).splitlines()[0][:160]}): what was saved is intact, start the same command again"
        ) from error
    world.leave()
