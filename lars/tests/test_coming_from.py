"""Each row of 'Coming from' in the README, over 50 steps of a changing lr: another library's LARS and what replaces it.

A library that can be installed is itself the oracle. Of the others the formula is restated in float64 from the file
that each function names.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.optimizer import Optimizer

from lars import LARS, LarsSGD
from lars.tests.reference import gradients, tensors, warm_up_and_poly2

DECAY = 1e-2
Groups = list[dict[str, Any]]


def two_groups() -> tuple[Groups, list[torch.nn.Parameter]]:
    """Tensors of two dimensions and more with weight decay, and the others, one of them zero, without it."""
    params = tensors()
    params[3].data.zero_()
    return [
        {"params": [p for p in params if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in params if p.dim() <= 1], "weight_decay": 0.0},
    ], params


def excluded(groups: Groups, **options: Any) -> Groups:
    """``groups`` with the second one left out of LARS."""
    return [groups[0], {**groups[1], "lars": False, **options}]


class Restated(Optimizer):
    """A formula as an optimizer: ``formula(w, g, v, group)`` steps one tensor w and its buffer v in place."""

    def __init__(self, params: Groups, formula: Callable[[Tensor, Tensor, Tensor, dict[str, Any]], None]) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": 0.0})
        self.formula = formula

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                self.formula(p, p.grad.clone(), v, group)


def paper_ratio(w: Tensor, g: Tensor, decay: float, eps: float, trust: float = 0.001) -> float:
    w_norm, g_norm = float(w.norm()), float(g.norm())
    return trust * w_norm / (g_norm + decay * w_norm + eps) if w_norm and g_norm else 1.0


def momentum_step(w: Tensor, v: Tensor, d: Tensor, lr: float) -> None:
    v.mul_(0.9).add_(d)
    w.sub_(lr * v)


def torchlars(w, g, v, group):
    """https://github.com/kakaobrain/torchlars/blob/HEAD/torchlars/lars.py, around SGD: every tensor is adapted."""
    momentum_step(w, v, (g + group["weight_decay"] * w) * paper_ratio(w, g, group["weight_decay"], 1e-8), group["lr"])


def apex_larc(w, g, v, group):
    """https://github.com/NVIDIA/apex/blob/HEAD/apex/parallel/LARC.py: trust 0.02 and clipping by default."""
    if float(w.norm()) and float(g.norm()):
        ratio = min(paper_ratio(w, g, group["weight_decay"], 1e-8, 0.02) / group["lr"], 1.0)
        g = (g + group["weight_decay"] * w) * ratio
    momentum_step(w, v, g, group["lr"])


def bolts(w, g, v, group):
    """https://github.com/Lightning-Universe/lightning-bolts/blob/HEAD/src/pl_bolts/optimizers/lars.py, which
    https://github.com/Lightning-Universe/lightning-flash/blob/HEAD/src/flash/core/optimizers/lars.py copies: a group
    without weight decay is plain SGD."""
    if group["weight_decay"]:
        g = (g + group["weight_decay"] * w) * paper_ratio(w, g, group["weight_decay"], 1e-8)
    momentum_step(w, v, g, group["lr"])


def solo_learn(w, g, v, group):
    """https://github.com/vturrisi/solo-learn/blob/HEAD/solo/utils/lars.py with exclude_bias_n_norm_lars: tensors of
    one dimension are plain."""
    if w.ndim != 1:
        g = (g + group["weight_decay"] * w) * paper_ratio(w, g, group["weight_decay"], 1e-8)
    momentum_step(w, v, g, group["lr"])


def fair(w, g, v, group):
    """https://github.com/facebookresearch: barlowtwins/blob/HEAD/main.py and vicreg/blob/HEAD/main_vicreg.py (both
    filters on: tensors of one dimension), moco-v3/blob/HEAD/moco/optimizer.py and mae/blob/HEAD/util/lars.py (at most
    one dimension). The norm is of the decayed gradient."""
    if w.ndim > 1:
        d = g + DECAY * w
        norms = float(w.norm()), float(d.norm())
        g = d * (0.001 * norms[0] / norms[1] if all(norms) else 1.0)
    momentum_step(w, v, g, group["lr"])


def fused_lars(w, g, v, group):
    """https://github.com/ROCm/apex/blob/HEAD/apex/optimizers/fused_lars.py and csrc/multi_tensor_lars.cu there: lr in
    the buffer, eps 0."""
    ratio = 1.0 if group.get("is_skipped") else paper_ratio(w, g, group["weight_decay"], 0.0)
    v.mul_(0.9).sub_(group["lr"] * ratio * (g + group["weight_decay"] * w))
    w.add_(v)


def nus(w, g, v, group):
    """https://github.com/NUS-HPC-AI-Lab/LARS-ImageNet-PyTorch/blob/HEAD/lars.py: the ratio outside the buffer, at most
    50; elements within 10."""
    ratio = min(paper_ratio(w, g, group["weight_decay"], 1e-5), 50.0) if w.ndim > 1 else 1.0
    v.mul_(0.9).add_((g + group["weight_decay"] * w).clamp(-10, 10))
    w.sub_(group["lr"] * ratio * v)


def intel(w, g, v, group):
    """https://github.com/mlcommons/training_results_v3.0 Intel/benchmarks/resnet/.../fuse_lars.patch: as NUS, without
    cap and clamp; biases keep their weight decay, norm layers do not. In training_results_v2.1,
    Intel/benchmarks/resnet/implementations/pytorch-cpu/lars.py, biases have none either."""
    ratio = paper_ratio(w, g, group["weight_decay"], 0.0) if w.ndim > 1 else 1.0
    v.mul_(0.9).add_(g + group["weight_decay"] * w)
    w.sub_(group["lr"] * ratio * v)


def mlperf(w, g, v, group):
    """https://github.com/mlcommons/training/blob/615ad0a2/image_classification/tensorflow2/lars_optimizer.py: skipped
    variables get no decay either, and its epsilon 0 means Keras' 1e-7."""
    habana(w, g, v, group, eps=1e-7)


def habana(w, g, v, group, eps=0.0):
    """https://github.com/HabanaAI/gaudi-pytorch-bridge/blob/HEAD/tests/cpp/common_functions_custom_kernel_tests.cpp,
    runLarsOptTest and runResourceApplyMomentumOptTest; MLPerf's train.py passes eps 0 and a mask of names."""
    d, ratio = (g + DECAY * w, paper_ratio(w, g, DECAY, eps)) if w.ndim > 1 else (g, 1.0)
    v.mul_(0.9).sub_(group["lr"] * ratio * d)
    w.add_(v)


def of_timm(groups: Groups, **options: Any) -> Optimizer:
    optim = pytest.importorskip("timm.optim", reason="pip install timm")
    return optim.Lars(groups, lr=1.0, momentum=0.9, **options)


def of_lightly(groups: Groups) -> Optimizer:
    module = pytest.importorskip("lightly.utils.lars", reason="pip install lightly")
    return module.LARS(groups, lr=1.0, momentum=0.9)


def of_pytorch_optimizer(groups: Groups, foreach: bool) -> Optimizer:
    module = pytest.importorskip("pytorch_optimizer", reason="pip install pytorch_optimizer")
    return module.LARS(groups, lr=1.0, momentum=0.9, foreach=foreach)


def sgd(groups: Groups) -> SGD:
    return SGD(groups, lr=1.0, momentum=0.9)


def lars_sgd(groups: Groups, **options: Any) -> LarsSGD:
    return LarsSGD(groups, lr=1.0, momentum=0.9, **options)


# the name of a row, its LARS, and what the README gives for it
ROWS: dict[str, tuple[Callable[[Groups], Optimizer], Callable[[Groups], Optimizer]]] = {
    "torchlars": (lambda p: Restated(p, torchlars), lambda p: LARS(sgd(p))),
    "timm lars": (of_timm, lambda p: lars_sgd(p, skip_without_decay=True)),
    "timm lars foreach": (lambda p: of_timm(p, foreach=True), lambda p: lars_sgd(p, skip_without_decay=True)),
    "timm always_adapt": (lambda p: of_timm(p, always_adapt=True), lars_sgd),
    "timm larc": (lambda p: of_timm(p, trust_clip=True), lambda p: lars_sgd(p, clip=True, skip_without_decay=True)),
    "timm nlars": (
        lambda p: of_timm(p, nesterov=True),
        lambda p: lars_sgd(p, nesterov=True, skip_without_decay=True),
    ),
    "apex LARC": (lambda p: Restated(p, apex_larc), lambda p: LARS(sgd(p), trust_coef=0.02, clip=True)),
    "bolts": (lambda p: Restated(p, bolts), lambda p: lars_sgd(p, skip_without_decay=True)),
    "lightly": (of_lightly, lambda p: lars_sgd(p, skip_without_decay=True)),
    "solo-learn": (lambda p: Restated(p, solo_learn), lambda p: lars_sgd(excluded(p))),
    "solo-learn, norm and bias adapted": (lambda p: Restated(p, torchlars), lars_sgd),
    "Barlow Twins, VICReg, MoCo v3, MAE": (
        lambda p: Restated(p, fair),
        lambda p: lars_sgd(excluded(p), ratio="decayed", eps=0.0),
    ),
    "ROCm FusedLARS": (
        lambda p: Restated([p[0], {**p[1], "is_skipped": True}], fused_lars),
        lambda p: lars_sgd(excluded(p), momentum_form="caffe", eps=0.0),
    ),
    "ROCm FusedLARS, skipped with decay": (
        lambda p: Restated([p[0], {**p[1], "is_skipped": True, "weight_decay": DECAY}], fused_lars),
        lambda p: lars_sgd(excluded(p, weight_decay=DECAY), momentum_form="caffe", eps=0.0),
    ),
    "NUS": (
        lambda p: Restated(p, nus),
        lambda p: lars_sgd(excluded(p), momentum_form="nus", eps=1e-5, max_ratio=50, clamp=10),
    ),
    "Intel, MLPerf 3.0": (
        lambda p: Restated([p[0], {**p[1], "weight_decay": DECAY}], intel),
        lambda p: lars_sgd(excluded(p, weight_decay=DECAY), momentum_form="nus", eps=0.0),
    ),
    "Intel, MLPerf 2.1": (
        lambda p: Restated(p, intel),
        lambda p: lars_sgd(excluded(p), momentum_form="nus", eps=0.0),
    ),
    "Habana, MLPerf 2.1 and 3.0": (
        lambda p: Restated(p, habana),
        lambda p: lars_sgd(excluded(p), momentum_form="caffe", eps=0.0),
    ),
    "MLPerf": (lambda p: Restated(p, mlperf), lambda p: lars_sgd(excluded(p), momentum_form="caffe", eps=1e-7)),
    "pytorch_optimizer": (lambda p: of_pytorch_optimizer(p, False), lambda p: lars_sgd(excluded(p), eps=0.0)),
    "pytorch_optimizer foreach": (lambda p: of_pytorch_optimizer(p, True), lambda p: lars_sgd(excluded(p), eps=0.0)),
}


def run(make: Callable[[Groups], Optimizer]) -> list[torch.nn.Parameter]:
    groups, params = two_groups()
    optimizer = make(groups)
    for step in range(50):
        for group in optimizer.param_groups:
            group["lr"] = warm_up_and_poly2(step, peak=5.0)
        # the second group gets the plain optimizer's step of this lr, which small gradients keep in bounds
        for p, g in zip(params, gradients(params, step), strict=True):
            p.grad = g if p.dim() > 1 else 0.01 * g
        optimizer.step()
    return params


@pytest.mark.parametrize("row", ROWS)
def test_what_replaces_it_takes_the_same_steps(row):
    theirs, ours = (run(make) for make in ROWS[row])
    for a, b, start in zip(ours, theirs, two_groups()[1], strict=True):
        assert (a.detach() - start.detach()).norm() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_without_decay_the_default_and_bolts_are_orders_of_magnitude_apart():
    """What the row of bolts said until 0.2: at its defaults, LarsSGD(params, lr=lr) is another optimizer."""
    moved = []
    for make in (lambda p: Restated([{"params": p}], bolts), lambda p: LarsSGD(p, momentum=0.9)):
        params = tensors()
        optimizer = make(params)
        optimizer.param_groups[0]["lr"] = 0.1
        for p, g in zip(params, gradients(params, 0), strict=True):
            p.grad = g
        optimizer.step()
        moved.append((params[0].detach() - tensors()[0].detach()).norm())
    assert moved[0] > 500 * moved[1]


def test_optax_adapts_what_its_masks_let_through():
    jax = pytest.importorskip("jax", reason="pip install optax")
    optax = pytest.importorskip("optax", reason="pip install optax")
    jax.config.update("jax_enable_x64", True)
    table = jax.numpy.array([warm_up_and_poly2(t, peak=5.0) for t in range(50)])
    values = [jax.numpy.array(p.detach().numpy()) for p in two_groups()[1]]
    mask = [v.ndim > 1 for v in values]
    theirs = optax.lars(
        lambda count: table[count], weight_decay=DECAY, momentum=0.9, trust_coefficient=0.001,
        weight_decay_mask=mask, trust_ratio_mask=mask,
    )  # fmt: skip
    state = theirs.init(values)
    for step in range(50):
        grads = [jax.numpy.array((g if g.dim() > 1 else 0.01 * g).numpy()) for g in gradients(tensors(), step)]
        updates, state = theirs.update(grads, state, values)
        values = optax.apply_updates(values, updates)
    ours = run(lambda p: lars_sgd(excluded(p), eps=0.0, momentum_form="caffe", ratio="decayed"))
    for a, b in zip(ours, values, strict=True):
        torch.testing.assert_close(a.detach(), torch.tensor(jax.device_get(b)), rtol=1e-10, atol=1e-12)
