"""A step over ResNet-50's tensors: SGD, LARS by each of its paths, the LARS of timm and pytorch_optimizer."""

import contextlib
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD, Optimizer

from lars import LARS
from scripts.benchmarks.clock import DEVICE, now
from scripts.benchmarks.figures import spread, write
from scripts.benchmarks.traffic import Traffic

Params = list[torch.nn.Parameter]
Maker = Callable[[Params], Optimizer]

NUMBERS: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
BASE, MULTI_TENSOR, COMPILED = "SGD fused", "LARS(SGD), multi-tensor", "LARS(SGD), compiled"


def by_multi_tensor(params: Params) -> Optimizer:
    return LARS(SGD(params, **{**NUMBERS, "lr": torch.tensor(1e-3)}))


def through_fused_base(params: Params) -> Optimizer:
    base = SGD(params, **NUMBERS, fused=True)
    base.register_step_post_hook(lambda *_: None)
    return LARS(base)


def compiled(params: Params) -> Optimizer:
    optimizer = by_multi_tensor(params)
    optimizer.step()
    optimizer.step = torch.compile(optimizer.step)  # type: ignore[method-assign, assignment]
    return optimizer


def makers() -> tuple[dict[str, Maker], list[str]]:
    """How each optimizer is made that is not compiled, and the other libraries among them."""
    found: dict[str, Maker] = {
        BASE: lambda p: SGD(p, **NUMBERS, fused=True),
        "SGD foreach": lambda p: SGD(p, **NUMBERS, foreach=True),
        "LARS(SGD)": lambda p: LARS(SGD(p, **NUMBERS)),
        MULTI_TENSOR: by_multi_tensor,
        "LARS(any base), around SGD fused": through_fused_base,
    }
    libraries = []
    with contextlib.suppress(ImportError):
        from timm.optim import Lars

        libraries.append("timm")
        found["timm Lars"] = lambda p: Lars(p, **NUMBERS)
        found["timm Lars, foreach"] = lambda p: Lars(p, **NUMBERS, foreach=True)
    with contextlib.suppress(ImportError):
        from pytorch_optimizer import LARS as PytorchOptimizerLars

        libraries.append("pytorch_optimizer")
        found["pytorch_optimizer LARS"] = lambda p: PytorchOptimizerLars(p, **NUMBERS, foreach=False)
        found["pytorch_optimizer LARS, foreach"] = lambda p: PytorchOptimizerLars(p, **NUMBERS, foreach=True)
    return found, libraries


def made(make: Maker, device: str | torch.device = DEVICE) -> Optimizer:
    """An optimizer over tensors of ResNet-50's shapes, with gradients."""
    from torchvision.models import resnet50

    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(p.shape, generator=generator).to(device)) for p in resnet50().parameters()]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(device)
    return make(params)


def in_turn(optimizers: dict[str, Optimizer], rounds: int) -> dict[str, list[float]]:
    """Seconds of ``rounds`` steps of each, one of each in turn; three rounds before are not counted."""
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for i in range(rounds + 3):
        for name, each in optimizers.items():
            began = now()
            each.step()
            if i >= 3:
                times[name].append(now() - began)
    return times


def counted(name: str, optimizer: Optimizer, parameters: int) -> dict[str, float | None]:
    """Passes over all ``parameters``, calls and host reads of a step."""
    if name == COMPILED:
        # its kernels are not torch's own calls; a test counts their bytes
        return dict.fromkeys(("passes", "calls", "host_reads"))
    is_fake = name == MULTI_TENSOR
    # where it is meant to run; a CPU takes norms one by one
    with FakeTensorMode() if is_fake else contextlib.nullcontext():
        watched = made(by_multi_tensor, "cuda") if is_fake else optimizer
        watched.step()
        with Traffic() as traffic:
            watched.step()
    passes = round(traffic.read_and_written / parameters, 2)
    return {"passes": passes, "calls": traffic.calls, "host_reads": traffic.host_reads}


def measure(rounds: int) -> None:
    """One step each in turn over their own copies of ResNet-50's parameters; ratios are taken within a round."""
    known, libraries = makers()
    optimizers = {name: made(make) for name, make in known.items()}
    times = in_turn(optimizers, rounds)
    bases = dict.fromkeys(times, times[BASE])
    # apart from the others: once something is compiled, every Python call of the process costs more
    optimizers[COMPILED] = made(compiled)
    pair = in_turn({name: optimizers[name] for name in (BASE, COMPILED)}, rounds)
    times[COMPILED], bases[COMPILED] = pair[COMPILED], pair[BASE]
    params = optimizers[BASE].param_groups[0]["params"]
    parameters = sum(p.numel() for p in params)
    figures: dict[str, object] = {}
    print(f"{'':36}{'x SGD fused, median (min-max)':34}{'ms':>8}{'N':>12}{'calls':>12}{'host reads':>12}")
    for name, each in optimizers.items():
        ratios = [a / b for a, b in zip(times[name], bases[name], strict=True)]
        costs = counted(name, each, parameters)
        milliseconds = [1000 * t for t in times[name]]
        figures[name] = {"ratio_to_sgd_fused": spread(ratios), "milliseconds": spread(milliseconds), **costs}
        mid = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        shown = "".join(f"{'-' if c is None else c:>12}" for c in costs.values())
        print(f"{name:36}{mid:34}{statistics.median(milliseconds):8.1f}{shown}")
    what = f"one step over ResNet-50's {len(params)} tensors, {parameters:,} fp32 parameters, momentum and weight decay"
    write("optimizer", {"what": what, "steps": rounds, "optimizers": figures}, libraries)
