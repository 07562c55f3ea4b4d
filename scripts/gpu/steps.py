"""Steps of the app on ready tensors: the same on CPU and GPU, without a wait, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from scripts.benchmarks.clock import now
from scripts.gpu.claims import UNTRIED, Claim, Machine, judged
from train import app
from train.config.compose import compose
from train.config.schema import Config
from train.data.kinds import open_data
from train.data.loader import MicroBatch
from train.engine.ema import MovingAverage
from train.engine.finite import FiniteCheck
from train.engine.precision import native_precision, set_up_cuda
from train.engine.step import Step
from train.plan import Plan
from train.processes.world import World

RECIPES = {"torchlars": "32k", "paper": "32k", "nus": "32k", "mlperf": "32k", "goyal": "256", "nesterov": "32k"}
CLASSES = 100
# Of three fp32 steps. Two orders of summation differ by 1e-7 in a sum, and BatchNorm and ReLU multiply that.
LOSS_OFF, TENSOR_OFF = 1e-4, 1e-3


def connected(config: Config, device: str, micro: int, accumulation: int) -> Step:
    """The app's own step for ``config``, on weights that the seed gives."""
    world = World()
    world.device = torch.device(device)
    set_up_cuda(config.precision)
    plan = Plan(micro * accumulation, micro, accumulation, 1, train_images=micro * accumulation, epochs=1)
    model = app.build_model(config, CLASSES, world)
    if config.compile:
        app.compile_static([model], config, world)
    return app.connect_step(config, plan, world, model)


def micro_batches(device: str, micro: int, pixels: int, count: int) -> list[MicroBatch]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        images = torch.randn(micro, 3, pixels, pixels, generator=generator)
        labels = torch.randint(0, CLASSES, (micro,), generator=generator)
        made.append((images.to(memory_format=torch.channels_last).to(device), labels.to(device)))
    return made


def timed_config(machine: Machine, micro: int, *overrides: str) -> Config:
    config = compose(
        "batch=32k", "data=imagenet", "data.root=.", f"model={machine.sizes.model}", f"batch.micro={micro}",
        f"batch.total={micro}", *overrides,
    )  # fmt: skip
    return replace(config, precision=native_precision(torch.device(machine.device)))


# Part 1


def same_on_both(machine: Machine) -> Iterator[Claim]:
    """Three steps of each recipe in fp32, on CPU and GPU."""
    micro, pixels = (4, 32) if machine.sizes.is_toy else (16, 64)
    for recipe, batch in RECIPES.items():
        ends = []
        for device in ("cpu", machine.device):
            config = compose(
                f"recipe={recipe}", f"batch={batch}", "data=imagenet", "data.root=.", "precision=fp32",
                f"model={machine.sizes.model}",
            )  # fmt: skip
            step = connected(config, device, micro, 2)
            batches = micro_batches(device, micro, pixels, 2)
            losses = torch.stack([step(batches, lr=1e-2) for _ in range(3)]).double().cpu()
            ends.append((losses, {k: v.double().cpu() for k, v in step.model.state_dict().items()}))
        (losses, weights), (others, other_weights) = ends
        loss_off = float(((losses - others) / losses).abs().max())
        off = {k: float((w - other_weights[k]).norm() / w.norm().clamp(min=1e-12)) for k, w in weights.items()}
        worst = max(off, key=lambda name: off[name])
        yield judged(
            f"three steps of recipe={recipe} are the same on CPU and GPU",
            loss_off < LOSS_OFF and off[worst] < TENSOR_OFF,
            f"losses off by {loss_off:.0e}, tensors by {off[worst]:.0e} at most ({worst})",
            loss_off=loss_off, tensor_off=off[worst], tensor=worst,
        )  # fmt: skip


# Part 2


@contextmanager
def waits_are_errors(machine: Machine) -> Iterator[None]:
    if machine.device == "cpu":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def nothing_waits(machine: Machine) -> Iterator[Claim]:
    """A training step with all that follows it, and a batch of fractals, with torch's own alarm for waits."""
    micro, pixels = machine.sizes.eager[0], machine.sizes.pixels
    cases = {
        "LARS": ["optimizer=lars"],
        "LARS of recipe=nus": ["recipe=nus", "batch=32k"],
        "LARS of recipe=mlperf": ["recipe=mlperf", "batch=32k"],
        "SGD": ["optimizer=sgd"],
        "LARS in fp16": ["optimizer=lars"],
    }
    for name, overrides in cases.items():
        config = timed_config(machine, micro, *overrides)
        if name == "LARS in fp16":
            config = replace(config, precision="fp16")
        step = connected(config, machine.device, micro, 2)
        watched = partial(
            step_and_what_follows, step, micro_batches(machine.device, micro, pixels, 2),
            FiniteCheck(step.model, torch.device(machine.device)), MovingAverage(step.model, 0.9),
        )  # fmt: skip
        for _ in range(2):
            watched()
        yield _waited(machine, f"a step of {name} never waits for the device", watched)
    yield _fractals_wait(machine)


def step_and_what_follows(step: Step, batches: list[MicroBatch], finite: FiniteCheck, average: MovingAverage) -> None:
    """What the loop does between two reads of the loss."""
    loss = step(batches, lr=1e-3)
    finite.record(0, loss, step.loss_scale)
    average.update()


def _fractals_wait(machine: Machine) -> Claim:
    shape = ["data.classes=4", "data.train_per_class=16", "data.val_per_class=4", "batch.total=32", "batch.micro=16"]
    config = compose("data=fractals", f"data.root={machine.folder / 'fractals'}", *shape)
    data, world = open_data(config.data), World()
    world.device = torch.device(machine.device)
    loader = data.make_loader(world, 0)
    batches = loader.training_batches(Plan(32, 16, 2, 1, data.train_images, 1), 0, 0)
    next(batches)
    return _waited(machine, "a batch of data=fractals never waits for the device", lambda: next(batches))


def _waited(machine: Machine, sentence: str, call: Callable[[], object]) -> Claim:
    try:
        with waits_are_errors(machine):
            call()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return judged(sentence, False, str(error).splitlines()[0])
    if machine.device == "cpu":
        return Claim(sentence, UNTRIED, "a CPU has no such alarm")
    return judged(sentence, True, "torch.cuda.set_sync_debug_mode('error') said nothing")


# Part 3


def bare_speed(machine: Machine, micro: int, is_compiled: bool) -> dict[str, float]:
    """Images/s of the app's step on tensors that are there, and milliseconds of host and device a micro-batch."""
    sizes = machine.sizes
    config = timed_config(machine, micro, f"compile={str(is_compiled).lower()}")
    began = now()
    step = connected(config, machine.device, micro, sizes.accumulation)
    batch = micro_batches(machine.device, micro, sizes.pixels, 1)[0]
    step([batch] * sizes.accumulation, lr=1e-3)
    first = now() - began
    for _ in range(sizes.steps):
        step([batch] * sizes.accumulation, lr=1e-3)
    count, host, began = sizes.steps * sizes.accumulation, 0.0, now()
    for _ in range(sizes.steps):
        call_began = time.perf_counter()
        step([batch] * sizes.accumulation, lr=1e-3)
        host += time.perf_counter() - call_began
    seconds = now() - began
    figures = {
        "images_per_second": count * micro / seconds,
        "ms_a_micro_batch": 1e3 * seconds / count,
        "host_ms_a_micro_batch": 1e3 * host / count,
        "first_step_seconds": first,
    }
    if machine.device == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    machine.speeds[f"{'compiled' if is_compiled else 'eager'}, {micro} images"] = figures["images_per_second"]
    return figures


def kernels(machine: Machine, call: Callable[[], object]) -> dict[str, int]:
    """How often each kernel of the device runs in ``call``; empty on a CPU."""
    if machine.device == "cpu":
        call()
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    return {e.key: e.count for e in seen.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA}


def speeds(machine: Machine) -> Iterator[Claim]:
    """Images/s of the bare step by the images of a micro-batch, eager and compiled; then optimizers' steps."""
    sizes = machine.sizes
    for is_compiled, counts in ((False, sizes.eager), (True, sizes.compiled)):
        for micro in counts:
            torch._dynamo.reset()
            if machine.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            figures = bare_speed(machine, micro, is_compiled)
            how = "compiled" if is_compiled else "eager"
            yield judged(
                f"the bare step runs {how} with {micro} images of {sizes.pixels} pixels",
                True,
                f"{figures['images_per_second']:,.0f} images/s, {figures['ms_a_micro_batch']:.1f} ms a micro-batch of "
                f"which the host {figures['host_ms_a_micro_batch']:.1f}",
                **figures,
            )  # fmt: skip
    yield _kernels_of_a_micro_batch(machine)


def _kernels_of_a_micro_batch(machine: Machine) -> Claim:
    """Count the kernels of a micro-batch, and name those of BatchNorm."""
    micro = machine.sizes.eager[0]
    step = connected(timed_config(machine, micro), machine.device, micro, 2)
    batch = micro_batches(machine.device, micro, machine.sizes.pixels, 1)[0]
    step([batch] * 2, lr=1e-3)
    found = kernels(machine, lambda: step([batch] * 2, lr=1e-3))
    sentence = "the kernels of a step can be counted"
    if not found:
        return Claim(sentence, UNTRIED, "a CPU launches none")
    norms = [name for name in found if "batch_norm" in name or "bn_fw" in name or "bn_bw" in name]
    return judged(sentence, bool(norms), f"{sum(found.values()) / 2:,.0f} a micro-batch", kernels=found, norms=norms)


def relative(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest relative difference of two lists of tensors."""
    pairs = zip(a, b, strict=True)
    return max(float((x.double().cpu() - y.double().cpu()).norm() / y.double().cpu().norm()) for x, y in pairs)
