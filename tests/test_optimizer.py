"""The configured optimizer: each option reaches it, and momentum correction is the published one."""

import pytest
import torch
from torch import nn

from train.config.compose import compose
from train.optimizer import make_optimizer
from train.resnet import resnet8


def goyals_equation_10(lrs: list[float], gradients: torch.Tensor, *, corrected: bool) -> torch.Tensor:
    """arXiv 1706.02677: v = m (lr_t / lr_{t-1}) v + lr_t g; w = w - v, in float64 from w = 0."""
    w, v, before = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), lrs[0]
    for lr, g in zip(lrs, gradients, strict=True):
        v = 0.9 * (lr / before if corrected else 1.0) * v + lr * g
        w, before = w - v, lr
    return w


def walked(optimizer: torch.optim.Optimizer, w: nn.Parameter, lrs: list[float], gradients: torch.Tensor) -> None:
    for lr, g in zip(lrs, gradients, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr
        w.grad = g.clone()
        optimizer.step()


LRS = [0.1, 0.5, 1.0, 1.0, 0.1, 0.01]


def linear(w: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(3, 1, bias=False).double()
    layer.weight.data = w.clone()[None]
    return layer


def test_sgd_is_goyals_with_momentum_correction():
    gradients = torch.randn(6, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = linear(torch.zeros(3, dtype=torch.float64))
    walked(
        make_optimizer(layer, compose("optimizer=sgd", "optimizer.weight_decay=0").optimizer), layer.weight, LRS,
        gradients,
    )  # fmt: skip
    expected = [goyals_equation_10(LRS, gradients[:, 0], corrected=corrected) for corrected in (True, False)]
    torch.testing.assert_close(layer.weight[0].detach(), expected[0], rtol=1e-12, atol=0)
    assert (expected[0] - expected[1]).norm() > 0.1 * expected[0].norm()


@pytest.mark.parametrize("corrected", [True, False])
def test_momentum_correction_scales_the_buffer_of_lars_when_lr_changes(corrected):
    generator = torch.Generator().manual_seed(0)
    w, v = (torch.randn(3, dtype=torch.float64, generator=generator) for _ in range(2))
    gradients = torch.randn(6, 1, 3, dtype=torch.float64, generator=generator)
    chosen = compose("optimizer.momentum_form=caffe", f"optimizer.momentum_correction={corrected}").optimizer
    layer = linear(w)
    walked(make_optimizer(layer, chosen), layer.weight, [100 * lr for lr in LRS], gradients)
    v, before = torch.zeros(3, dtype=torch.float64), LRS[0]
    for lr, g in zip(LRS, gradients[:, 0], strict=True):
        ratio = 0.001 * w.norm() / (g.norm() + 1e-4 * w.norm() + 1e-8)
        v = 0.9 * (lr / before if corrected else 1.0) * v + 100 * lr * ratio * (g + 1e-4 * w)
        w, before = w - v, lr
    torch.testing.assert_close(layer.weight[0].detach(), w, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("optimizer.ratio=decayed", {"ratio": "decayed"}), ("optimizer.clip=true", {"clip": True}),
        ("optimizer.max_ratio=50", {"max_ratio": 50}), ("optimizer.clamp=10", {"clamp": 10}),
        ("optimizer.momentum_form=nus", {"momentum_form": "nus"}), ("optimizer.eps=0", {"eps": 0}),
    ],
)  # fmt: skip
def test_each_option_of_lars_reaches_it(override, changed):
    def options(*overrides: str) -> dict[str, object]:
        lars = make_optimizer(resnet8(4), compose(*overrides).optimizer)
        (group,) = lars.param_groups
        variant = lars.variant  # type: ignore[attr-defined]
        return {"eps": group["lars_eps"], **vars(variant)}

    assert options(override) == {**options(), **changed}


@pytest.mark.parametrize("optimizer", ["lars", "sgd"])
def test_excluded_norm_layers_and_biases_have_neither_lars_nor_decay(optimizer):
    model = resnet8(4)
    chosen = compose(f"optimizer={optimizer}", "optimizer.exclude_norm_and_bias=true").optimizer
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stepped = make_optimizer(model, chosen)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for group in stepped.param_groups:
        group["lr"] = 0.5
    stepped.step()
    excluded = [name for name, p in model.named_parameters() if p.dim() == 1]
    assert len(excluded) == 19  # 9 BatchNorms' weights and biases, and fc's bias
    for name, p in model.named_parameters():
        plain = torch.allclose(p, before[name] - 0.5, rtol=0, atol=1e-7)
        assert plain == (name in excluded), name
