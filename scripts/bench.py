"""Measure this project against its yardsticks, interleaved in one process, and keep the figures.

Usage: python scripts/bench.py train        the app's images/s against a bare loop on the same tensors
       python scripts/bench.py optimizer    a step over ResNet-50's 161 tensors: SGD, LARS by each path, timm's Lars
Each writes results/benchmarks/<name>.json and prints a table.
"""

import argparse
import contextlib
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch._subclasses.fake_tensor import FakeTensorMode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lars import LARS  # noqa: E402
from scripts.traffic import Traffic  # noqa: E402
from train import app, command_line, config, record  # noqa: E402
from train.data import open_data  # noqa: E402
from train.main import CONFIGS  # noqa: E402
from train.optimizer import make_optimizer  # noqa: E402
from train.run import Run  # noqa: E402
from train.signals import StopRequest  # noqa: E402
from train.world import World  # noqa: E402


def write(name: str, figures: dict[str, object]) -> None:
    """Keep ``figures`` under results/benchmarks, with what they were measured on."""
    folder = ROOT / "results" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        **figures,
        "command": f"python scripts/bench.py {name}",
        "hardware": record.hardware(1),
        "threads": torch.get_num_threads(),
        "versions": record.versions(),
        "commit": record.commit(),
    }
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def settings(*overrides: str) -> config.Config:
    config.register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = command_line.typed(compose("config", overrides=command_line.spell(overrides, False)))
    composed.precision = app.native_precision(World().device)
    return composed


def train(rounds: int) -> None:
    """One epoch of the default run by the app, one of a bare loop on the same tensors, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings("batch=32k", f"runs_dir={folder}", "name=bench", f"epochs={rounds + 1}")
        world, data = World(), open_data(chosen.data)
        plan = config.make_plan(chosen, data.train_images, 1)
        run = Run(chosen)
        training = app.connect(chosen, plan, data, world, StopRequest(), run, None)
        bare = bare_epoch(chosen, plan, data.classes, list(itertools.islice(training.loader.train(0, 0), 8)))
        figures: dict[str, list[float]] = {"app": [], "bare loop": []}
        for epoch in range(1, rounds + 2):
            training.run(max_steps=epoch * plan.steps_per_epoch)
            row = json.loads((run.folder / "log.jsonl").read_text().splitlines()[-1])
            speed = bare()
            if epoch > 1:  # the first is for warming up
                figures["app"].append(row["images_per_second"])
                figures["bare loop"].append(speed)
        training.log.close()
    ratios = [a / b for a, b in zip(figures["app"], figures["bare loop"], strict=True)]
    print(f"\n{'':12}images/s median (min-max)")
    for name, values in figures.items():
        print(f"{name:12}{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})")
    print(f"{'ratio':12}{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
    write(
        "train",
        {
            "what": "images/s of training, batch=32k on fractals: the app with all its logging, and a bare loop "
            "of forward, backward and step on ready tensors",
            "images_per_second": {name: spread(values) for name, values in figures.items()},
            "ratio": spread(ratios),
        },
    )


def in_turn(optimizers: dict[str, torch.optim.Optimizer], rounds: int) -> dict[str, list[float]]:
    """Seconds of ``rounds`` steps of each, one of each in turn; three rounds before are not counted."""
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for i in range(rounds + 3):
        for name, each in optimizers.items():
            began = time.perf_counter()
            each.step()
            if i >= 3:
                times[name].append(time.perf_counter() - began)
    return times


def optimizer(rounds: int) -> None:
    """One step each in turn over their own copies of ResNet-50's parameters; ratios are taken within a round."""
    numbers = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}

    def by_multi_tensor(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return LARS(torch.optim.SGD(params, **{**numbers, "lr": torch.tensor(1e-3)}))  # type: ignore[arg-type]

    def through_fused_base(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        base = torch.optim.SGD(params, **numbers, fused=True)
        base.register_step_post_hook(lambda *_: None)
        return LARS(base)

    def compiled(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        made = by_multi_tensor(params)
        made.step()
        made.step = torch.compile(made.step)  # type: ignore[method-assign]
        return made

    makers: dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]] = {
        "SGD fused": lambda p: torch.optim.SGD(p, **numbers, fused=True),
        "SGD foreach": lambda p: torch.optim.SGD(p, **numbers, foreach=True),
        "LARS(SGD)": lambda p: LARS(torch.optim.SGD(p, **numbers)),
        "LARS(SGD), multi-tensor": by_multi_tensor,
        "LARS(any base), around SGD fused": through_fused_base,
    }
    with contextlib.suppress(ImportError):
        from timm.optim import Lars

        makers["timm Lars"] = lambda p: Lars(p, **numbers)
    from torchvision.models import resnet50

    generator = torch.Generator().manual_seed(0)
    shapes = [p.shape for p in resnet50().parameters()]
    total = sum(math.prod(shape) for shape in shapes)

    def made(
        make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], device: str = "cpu"
    ) -> torch.optim.Optimizer:
        params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in shapes]
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(device)
        return make(params)

    optimizers = {name: made(make) for name, make in makers.items()}
    times = in_turn(optimizers, rounds)
    # by itself: once something is compiled, every Python call of the process costs more
    base = {"SGD fused": optimizers["SGD fused"]}
    optimizers["LARS(SGD), compiled"] = made(compiled)
    pair = in_turn({**base, "LARS(SGD), compiled": optimizers["LARS(SGD), compiled"]}, rounds)
    bases = {name: pair["SGD fused"] if "compiled" in name else times["SGD fused"] for name in optimizers}
    times["LARS(SGD), compiled"] = pair["LARS(SGD), compiled"]
    figures: dict[str, object] = {}
    print(f"{'':36}{'x SGD fused, median (min-max)':34}{'ms':>8}{'N':>12}{'calls':>12}{'host reads':>12}")
    for name, each in optimizers.items():
        ratios = [a / b for a, b in zip(times[name], bases[name], strict=True)]
        counted: dict[str, float | int | None] = {"passes": None, "calls": None, "host_reads": None}
        if name != "LARS(SGD), compiled":  # whose kernels are not torch's own calls; a test counts their bytes
            # where it is meant to run; a CPU takes norms one by one
            with FakeTensorMode() if "multi-tensor" in name else contextlib.nullcontext():
                counts = made(by_multi_tensor, "cuda") if "multi-tensor" in name else each
                counts.step()
                with Traffic() as traffic:
                    counts.step()
            counted = {
                "passes": round(traffic.read_and_written / total, 2),
                "calls": traffic.calls,
                "host_reads": traffic.host_reads,
            }
        figures[name] = {
            "ratio_to_sgd_fused": spread(ratios),
            "milliseconds": spread([1000 * t for t in times[name]]),
            **counted,
        }
        mid = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        ms = 1000 * statistics.median(times[name])
        costs = "".join(f"{'-' if c is None else c:>12}" for c in counted.values())
        print(f"{name:36}{mid:34}{ms:8.1f}{costs}")
    what = f"one step over ResNet-50's {len(shapes)} tensors, {total:,} fp32 parameters, momentum and weight decay"
    write("optimizer", {"what": what, "steps": rounds, "optimizers": figures})


def bare_epoch(
    chosen: config.Config, plan: config.Plan, classes: int, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> Callable[[], float]:
    world = World()
    model = app.build_model(chosen, classes, world).train()
    optimizer = make_optimizer(model.parameters(), chosen.optimizer)
    arithmetic = app.arithmetic_of(chosen, world)

    def epoch() -> float:
        began = time.perf_counter()
        for _ in range(plan.steps_per_epoch):
            for images, labels in batches:
                with arithmetic.autocast():
                    logits = model(images)
                (F.cross_entropy(logits.float(), labels) / len(batches)).backward()
            optimizer.step()
            optimizer.zero_grad()
        return plan.steps_per_epoch * plan.total / (time.perf_counter() - began)

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "optimizer"])
    parser.add_argument("--rounds", type=int, help="counted rounds of each, in turn (default 7 epochs, 60 steps)")
    arguments = parser.parse_args()
    if arguments.what == "train":
        train(arguments.rounds or 7)
    else:
        optimizer(arguments.rounds or 60)


if __name__ == "__main__":
    main()
