"""A step over ResNet-50's tensors: SGD, LARS by each of its paths, the LARS of timm and pytorch_optimizer."""

import contextlib
import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lars import LARS
from scripts.benchmarks.clock import DEVICE, now
from scripts.benchmarks.figures import spread, write
from scripts.benchmarks.traffic import Traffic


def in_turn(optimizers: dict[str, torch.optim.Optimizer], rounds: int) -> dict[str, list[float]]:
    """Seconds of ``rounds`` steps of each, one of each in turn; three rounds before are not counted."""
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for i in range(rounds + 3):
        for name, each in optimizers.items():
            began = now()
            each.step()
            if i >= 3:
                times[name].append(now() - began)
    return times


def measure(rounds: int) -> None:
    """One step each in turn over their own copies of ResNet-50's parameters; ratios are taken within a round."""
    numbers: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}

    def by_multi_tensor(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return LARS(torch.optim.SGD(params, **{**numbers, "lr": torch.tensor(1e-3)}))

    def through_fused_base(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        base = torch.optim.SGD(params, **numbers, fused=True)
        base.register_step_post_hook(lambda *_: None)
        return LARS(base)

    def compiled(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        made = by_multi_tensor(params)
        made.step()
        made.step = torch.compile(made.step)  # type: ignore[method-assign, assignment]
        return made

    makers: dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]] = {
        "SGD fused": lambda p: torch.optim.SGD(p, **numbers, fused=True),
        "SGD foreach": lambda p: torch.optim.SGD(p, **numbers, foreach=True),
        "LARS(SGD)": lambda p: LARS(torch.optim.SGD(p, **numbers)),
        "LARS(SGD), multi-tensor": by_multi_tensor,
        "LARS(any base), around SGD fused": through_fused_base,
    }
    libraries = []
    with contextlib.suppress(ImportError):
        from timm.optim import Lars

        libraries.append("timm")
        makers["timm Lars"] = lambda p: Lars(p, **numbers)
        makers["timm Lars, foreach"] = lambda p: Lars(p, **numbers, foreach=True)
    with contextlib.suppress(ImportError):
        from pytorch_optimizer import LARS as PytorchOptimizerLars

        libraries.append("pytorch_optimizer")
        makers["pytorch_optimizer LARS"] = lambda p: PytorchOptimizerLars(p, **numbers, foreach=False)
        makers["pytorch_optimizer LARS, foreach"] = lambda p: PytorchOptimizerLars(p, **numbers, foreach=True)
    from torchvision.models import resnet50

    generator = torch.Generator().manual_seed(0)
    shapes = [p.shape for p in resnet50().parameters()]
    total = sum(math.prod(shape) for shape in shapes)

    def made(
        make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], device: str | torch.device = DEVICE
    ) -> torch.optim.Optimizer:
        params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in shapes]
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(device)
        return make(params)

    optimizers = {name: made(make) for name, make in makers.items()}
    times = in_turn(optimizers, rounds)
    # apart from the others: once something is compiled, every Python call of the process costs more
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
    write("optimizer", {"what": what, "steps": rounds, "optimizers": figures}, libraries)
