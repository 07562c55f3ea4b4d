"""What the tests of ``lars`` share: tensors, the published formulas in float64, and the paths of a step."""

import os
import socket
from collections.abc import Callable

import torch


def tensors(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(16, 3, 3, 3), (16,), (10, 16), (10,), (1,)]
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def gradients(params: list[torch.nn.Parameter], step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) for p in params]


def stepped(optimizer: torch.optim.Optimizer, params: list, steps: int = 3, first: int = 0) -> None:
    for step in range(first, first + steps):
        for p, g in zip(params, gradients(params, step), strict=True):
            p.grad = g
        optimizer.step()


def assert_equal(a: list, b: list) -> None:
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def warm_up_and_poly2(step: int, steps: int = 50, peak: float = 29.0) -> float:
    """A learning rate that rises to ``peak`` over a tenth of ``steps`` and falls with the square of what remains."""
    rising = steps // 10
    return peak * (step + 1) / rising if step < rising else peak * (1 - (step - rising) / (steps - rising)) ** 2


def reference(params, grads, buffers, lr, m, wd, ratio="paper", momentum_form="torch", clip=False, max_ratio=None,
              clamp=None, nesterov=False, trust_coef=0.001, eps=1e-8):  # fmt: skip
    """The published formulas, one tensor at a time in float64."""
    for w, g, v in zip(params, grads, buffers, strict=True):
        d = g + wd * w
        w_norm, g_norm = float(w.norm()), float(g.norm())
        r = trust_coef * w_norm / ((g_norm + wd * w_norm if ratio == "paper" else float(d.norm())) + eps)
        r = min(r, max_ratio) if max_ratio else r
        r = min(r / lr, 1.0) if clip else r
        r = r if w_norm > 0 and g_norm > 0 else 1.0
        d = d.clamp(-clamp, clamp) if clamp else d
        inside, outside = {"torch": (r, lr), "caffe": (lr * r, 1.0), "nus": (1.0, lr * r)}[momentum_form]
        v.mul_(m).add_(inside * d)
        w.sub_(outside * (inside * d + m * v if nesterov else v))


PATHS = ["alone", "multi-tensor", "through the base"]


def by(path: str, sgd: torch.optim.SGD) -> torch.optim.SGD:
    """``sgd`` made so that LARS steps it by ``path``."""
    if path == "multi-tensor":
        for group in sgd.param_groups:
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    if path == "through the base":
        sgd.register_step_post_hook(lambda *_: None)
    return sgd


def _work(function: Callable[..., None], *arguments: object) -> None:
    function(*arguments)
    # a thread of gloo that outlives its group may free a tensor while Python exits, which aborts the process
    os._exit(0)


def spawn(function: Callable[..., None], size: int, *arguments: object) -> None:
    """Call ``function(rank, size, port, *arguments)`` in ``size`` processes, and wait for them."""
    context, port = torch.multiprocessing.get_context("spawn"), free_port()
    workers = [context.Process(target=_work, args=(function, rank, size, port, *arguments)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
