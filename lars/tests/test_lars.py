"""LARS: held to a slow float64 reference, to its reduction to SGD, and to what a step must leave unchanged."""

import copy
import pickle
from typing import Any

import pytest
import torch

from lars import LARS, LarsSGD
from lars.tests.reference import PATHS, assert_equal, by, gradients, reference, stepped, tensors, warm_up_and_poly2

VARIANTS = [
    {},
    {"ratio": "decayed"},
    {"momentum_form": "caffe"},
    {"momentum_form": "nus"},
    {"momentum_form": "caffe", "ratio": "decayed"},
    {"clip": True},
    {"max_ratio": 5e-4},
    {"clamp": 0.5},
    {"momentum_form": "nus", "max_ratio": 50.0, "clamp": 0.5},
    {"nesterov": True},
    {"nesterov": True, "momentum_form": "nus"},
    {"nesterov": True, "momentum_form": "caffe"},
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("decay", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_fifty_steps_of_warm_up_and_poly_equal_the_float64_reference(variant, decay, path):
    options = {k: v for k, v in variant.items() if k != "nesterov"}
    params = tensors()
    params[3].zero_()
    expected = [p.clone() for p in params]
    buffers = [torch.zeros_like(p) for p in params]
    sgd = torch.optim.SGD(params, lr=1.0, momentum=0.9, weight_decay=decay, nesterov=variant.get("nesterov", False))
    optimizer = LARS(by(path, sgd), **options)
    if path == "through the base" and variant.get("momentum_form") == "nus":
        pytest.skip("refused: the base's SGD has no place for NUS's ratio")
    for step in range(50):
        lr = warm_up_and_poly2(step)
        grads = gradients(params, step)
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        group = optimizer.param_groups[0]
        group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], torch.Tensor) else lr
        optimizer.step()
        reference(expected, grads, buffers, lr, 0.9, decay, **variant)
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_fp32_stays_within_1e_minus_6_of_float64_over_fifty_steps(path):
    params = tensors(dtype=torch.float32)
    expected = [p.detach().double() for p in params]
    buffers = [torch.zeros_like(p) for p in expected]
    optimizer = LARS(by(path, torch.optim.SGD(params, lr=1.0, momentum=0.9, weight_decay=1e-4)))
    for step in range(50):
        grads = gradients(params, step)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        reference(expected, [g.double() for g in grads], buffers, 1.0, 0.9, 1e-4)
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().double(), e, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_paths_agree_with_maximize_and_without_momentum(path, momentum):
    ends = []
    for way in ("alone", path):
        params = tensors()
        optimizer = LARS(by(way, torch.optim.SGD(params, lr=0.5, momentum=momentum, weight_decay=0.1, maximize=True)))
        for step in range(5):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
            optimizer.step()
        ends.append(params)
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_trust_ratio_is_the_one_of_torchlars_own_test():
    # kakaobrain/torchlars tests: |w| 1.234, |g| 5.678, weight decay 1e-4 -> 0.000217325...
    w = torch.nn.Parameter(torch.tensor([1.234], dtype=torch.float64))
    optimizer = LARS(torch.optim.SGD([w], lr=1.0, weight_decay=1e-4))
    w.grad = torch.tensor([5.678], dtype=torch.float64)
    optimizer.step()
    moved = 1.234 - w.item()
    assert moved / (5.678 + 1e-4 * 1.234) == pytest.approx(2.1732532227579748e-04, rel=1e-12)


def test_step_length_does_not_depend_on_the_gradients_scale():
    lengths = []
    for scale in (1e-3, 1.0, 1e3):
        params = tensors()
        before = [p.detach().clone() for p in params]
        optimizer = LARS(torch.optim.SGD(params, lr=2.0))
        for p, g in zip(params, gradients(params, 0), strict=True):
            p.grad = scale * g
        optimizer.step()
        lengths.append([(p.detach() - b).norm() / b.norm() for p, b in zip(params, before, strict=True)])
    torch.testing.assert_close(torch.tensor(lengths).float(), torch.full((3, 5), 0.002), rtol=1e-4, atol=0)


@pytest.mark.parametrize("zero", ["weight", "gradient"])
def test_a_zero_norm_falls_back_to_the_plain_optimizer(zero):
    plain, adapted = tensors(), tensors()
    for params, optimizer in (
        (plain, torch.optim.SGD(plain, lr=0.1, weight_decay=0.01)),
        (adapted, LARS(torch.optim.SGD(adapted, lr=0.1, weight_decay=0.01))),
    ):
        for p, g in zip(params, gradients(params, 0), strict=True):
            p.grad = g if zero == "weight" else torch.zeros_like(g)
            if zero == "weight":
                p.data.zero_()
        optimizer.step()
    for a, b in zip(plain, adapted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-15, atol=0)


def test_a_group_without_lars_is_the_wrapped_optimizer_exactly():
    plain, adapted = tensors(dtype=torch.float32), tensors(dtype=torch.float32)
    groups = [{"params": adapted, "lars": False}]
    optimizers = [
        torch.optim.SGD(plain, lr=0.1, momentum=0.9, weight_decay=0.01),
        LARS(torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)),
    ]
    for step in range(10):
        for params, optimizer in zip((plain, adapted), optimizers, strict=True):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(plain, adapted, strict=True))


def test_gradients_and_weight_decay_are_after_the_step_what_they_were():
    params = tensors()
    optimizer = LARS(torch.optim.SGD(params, lr=0.1, weight_decay=0.01))
    grads = gradients(params, 0)
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    held = [p.grad for p in params]
    optimizer.step()
    assert all(p.grad is h and torch.equal(h, g) for p, h, g in zip(params, held, grads, strict=True))
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


def test_weight_decay_and_gradients_come_back_when_the_wrapped_optimizer_raises(monkeypatch):
    params = tensors()
    sgd = torch.optim.SGD(params, lr=0.1, weight_decay=0.01)
    optimizer = LARS(sgd)
    grads = gradients(params, 0)
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    monkeypatch.setattr(sgd, "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert sgd.param_groups[0]["weight_decay"] == 0.01
    assert all(torch.equal(p.grad, g) for p, g in zip(params, grads, strict=True))


def test_a_closure_runs_once_and_before_the_norms_are_taken():
    plain, closed = tensors(), tensors()
    first, second = LARS(torch.optim.SGD(plain, lr=1.0)), LARS(torch.optim.SGD(closed, lr=1.0))
    calls = []

    def closure():
        calls.append(1)
        for p, g in zip(closed, gradients(closed, 0), strict=True):
            p.grad = g
        return 7.0

    for p, g in zip(plain, gradients(plain, 0), strict=True):
        p.grad = g
    first.step()
    assert second.step(closure) == 7.0 and len(calls) == 1
    assert all(torch.equal(a, b) for a, b in zip(plain, closed, strict=True))


def test_maximize_climbs_and_still_decays():
    down, up = tensors(), tensors()
    for params, optimizer, sign in (
        (down, LARS(torch.optim.SGD(down, lr=1.0, weight_decay=0.1)), 1),
        (up, LARS(torch.optim.SGD(up, lr=1.0, weight_decay=0.1, maximize=True)), -1),
    ):
        for p, g in zip(params, gradients(params, 0), strict=True):
            p.grad = sign * g
        optimizer.step()
    for a, b in zip(down, up, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=0)


def test_plain_sgd_state_loads_and_hyper_parameters_survive_copy_and_pickle():
    params = tensors()
    sgd = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    for p, g in zip(params, gradients(params, 0), strict=True):
        p.grad = g
    sgd.step()
    optimizer = LARS(torch.optim.SGD(params, lr=0.3, momentum=0.9), eps=1e-5, trust_coef=0.02)
    optimizer.load_state_dict(sgd.state_dict())
    for again in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        group = again.param_groups[0]
        assert (again.eps, again.trust_coef, group["lars_eps"], group["trust_coef"]) == (
            1e-5,
            0.02,
            1e-5,
            0.02,
        )
        assert group["lr"] == 0.1 and len(again.state) == len(params)


def test_schedulers_hooks_and_set_to_none_take_it_for_an_optimizer():
    params = tensors()
    optimizer = LARS(torch.optim.SGD(params, lr=0.1, momentum=0.9))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    for p, g in zip(params, gradients(params, 0), strict=True):
        p.grad = g
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad(set_to_none=True)
    assert seen == [1] and all(p.grad is None for p in params)


def test_the_names_of_0_1_still_work_and_say_what_they_are_called_now():
    (w,) = [torch.nn.Parameter(torch.ones(2))]
    with pytest.warns(FutureWarning, match="^momentum= is now momentum_form=: write momentum_form='caffe'$"):
        lars = LARS(torch.optim.SGD([w], lr=1.0, momentum=0.9), momentum="caffe")
    with pytest.warns(FutureWarning, match="^variant= is now momentum_form=: write momentum_form='nus'$"):
        lars_sgd = LarsSGD([w], lr=1.0, momentum=0.9, variant="nus")
    assert (lars.variant.momentum_form, lars_sgd.variant.momentum_form) == ("caffe", "nus")


def test_a_momentum_buffer_in_another_memory_format_means_the_same():
    """As after loading the state of a contiguous model into one that is channels last."""
    ends = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        generator = torch.Generator().manual_seed(0)
        w, g, v = (torch.randn(4, 3, 3, 3, generator=generator) for _ in range(3))
        p = torch.nn.Parameter(w.to(memory_format=memory_format))
        optimizer = LARS(torch.optim.SGD([p], lr=1.0, momentum=0.9), trust_coef=0.1)
        optimizer.state[p]["momentum_buffer"] = v
        p.grad = g.to(memory_format=memory_format)
        optimizer.step()
        ends.append(p.detach().contiguous())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_weights_fade_where_the_gradient_is_small_unless_the_ratio_is_bounded():
    """A step takes lr x trust_coef of the weights whatever the decay, or with a bound lr x max_ratio x decay."""
    left = []
    for options in ({"weight_decay": 5e-4}, {"weight_decay": 1e-2}, {"weight_decay": 5e-4, "max_ratio": 0.1}):
        w = torch.nn.Parameter(torch.ones(10, dtype=torch.float64))
        optimizer = LarsSGD([w], lr=4.0, **options)
        for _ in range(100):
            w.grad = torch.full_like(w, 1e-12)
            optimizer.step()
        left.append(float(w.detach().mean()))
    assert left == pytest.approx([(1 - 4e-3) ** 100, (1 - 4e-3) ** 100, (1 - 4.0 * 0.1 * 5e-4) ** 100], rel=1e-4)


@pytest.mark.parametrize("lr", [1.0, torch.tensor([1.0])], ids=["fused", "multi-tensor"])
@pytest.mark.parametrize("momentum_form", ["torch", "caffe"])
@pytest.mark.parametrize("size", [1e0, 1e12, 1e17])
def test_a_large_gradient_leaves_the_step_its_length(size: float, momentum_form: str, lr: Any):
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    w.grad = torch.tensor([0.0, size])
    LARS(torch.optim.SGD([w], lr=lr, momentum=0.9), trust_coef=0.1, momentum_form=momentum_form).step()
    torch.testing.assert_close(w.detach(), torch.tensor([3.0, 3.5]))


@pytest.mark.parametrize("lr", [1.0, torch.tensor(1.0)], ids=["fused", "multi-tensor"])
def test_weight_decay_that_cancels_the_gradient_leaves_the_weights(lr: Any):
    """SimCLR and BYOL take the ratio 1 there, and the step is 0."""
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    w.grad = -0.5 * w.detach()
    LARS(torch.optim.SGD([w], lr=lr, weight_decay=0.5), ratio="decayed", eps=0.0).step()
    assert w.tolist() == [3.0, 4.0]


def test_a_group_that_the_base_was_given_is_adapted_too():
    params, expected = tensors(), tensors()
    optimizer = LARS(torch.optim.SGD(params[:3], lr=0.1))
    optimizer.optim.add_param_group({"params": params[3:]})
    stepped(optimizer, params)
    stepped(LARS(torch.optim.SGD([{"params": expected[:3]}, {"params": expected[3:]}], lr=0.1)), expected)
    assert_equal(params, expected)


def test_a_gradient_that_is_lazily_conjugated_has_a_norm():
    w = torch.nn.Parameter(torch.tensor([3.0 + 4.0j]))
    (w.conj() * torch.tensor([2.0 + 1.0j])).real.sum().backward()
    before = w.detach().clone()
    LARS(torch.optim.SGD([w], lr=1.0), trust_coef=0.1).step()
    assert (w - before).abs().item() == pytest.approx(0.5)
