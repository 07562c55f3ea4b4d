"""LARS as an optimizer: hooks, schedulers, state, copies, precision and what is refused."""

import copy
import io
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from lars import LARS, LarsSGD, load_torchlars, split_parameters
from lars.tests.reference import PATHS, assert_equal, by, gradients, reference, stepped, tensors

SCHEDULERS: dict[str, Any] = {
    "StepLR": {"step_size": 2}, "MultiStepLR": {"milestones": [2]}, "ExponentialLR": {"gamma": 0.5},
    "LambdaLR": {"lr_lambda": lambda e: 1 / (e + 1)}, "MultiplicativeLR": {"lr_lambda": lambda e: 0.9},
    "CosineAnnealingLR": {"T_max": 4}, "CosineAnnealingWarmRestarts": {"T_0": 2}, "PolynomialLR": {"total_iters": 4},
    "LinearLR": {}, "ConstantLR": {}, "OneCycleLR": {"max_lr": 1.0, "total_steps": 10},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 1.0}, "ReduceLROnPlateau": {"patience": 0},
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=2),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.5)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.5)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_drives_it_as_it_drives_sgd(name):
    rates = []
    for wrap in (lambda o: o, LARS):
        params = tensors()
        optimizer = wrap(torch.optim.SGD(params, lr=0.1, momentum=0.9))
        made = SCHEDULERS[name]
        scheduler = made(optimizer) if callable(made) else getattr(lr_scheduler, name)(optimizer, **made)
        rates.append([])
        for step in range(5):
            stepped(optimizer, params, 1, step)
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            group = optimizer.param_groups[0]
            rates[-1].append((group["lr"], group["momentum"]))
    assert rates[0] == rates[1]


def test_all_six_kinds_of_hooks_run():
    params = tensors()
    optimizer = LARS(torch.optim.SGD(params, lr=0.1, momentum=0.9))
    ran = []
    for kind in (
        "step_pre_hook", "step_post_hook", "state_dict_pre_hook", "state_dict_post_hook",
        "load_state_dict_pre_hook", "load_state_dict_post_hook",
    ):  # fmt: skip
        getattr(optimizer, f"register_{kind}")(lambda *_, kind=kind: ran.append(kind))
    stepped(optimizer, params, 1)
    optimizer.load_state_dict(state_dict=optimizer.state_dict())
    assert len(ran) == len(set(ran)) == 6


def test_hooks_and_schedulers_on_the_base_run_too():
    params, calls = tensors(), []
    sgd = torch.optim.SGD(params, lr=0.1)
    sgd.register_step_post_hook(lambda *_: calls.append(1))
    scheduler = torch.optim.lr_scheduler.StepLR(sgd, 1)
    optimizer = LARS(sgd)
    stepped(optimizer, params, 2)
    scheduler.step()
    assert calls == [1, 1] and optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_steps_as_without_scaling(fused):
    ends = []
    for scale in (None, 1024.0):
        params = tensors(dtype=torch.float32)
        optimizer = LARS(torch.optim.SGD(params, lr=1.0, momentum=0.9, weight_decay=1e-4, fused=fused))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for step in range(3):
            optimizer.zero_grad()
            loss = sum((p * g).sum() for p, g in zip(params, gradients(params, step), strict=True))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append(params)
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_grad_scaler_skips_a_step_whose_gradients_overflowed():
    params = tensors(dtype=torch.float32)
    before = [p.detach().clone() for p in params]
    optimizer = LARS(torch.optim.SGD(params, lr=1.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(sum(p.sum() for p in params)).backward()
    params[0].grad[0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    assert_equal(before, params)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("kind", [LARS, LarsSGD])
def test_a_copy_goes_on_as_the_original(kind, again):
    params = tensors()
    if kind is LARS:
        optimizer = LARS(torch.optim.SGD(params, lr=1.0, momentum=0.9), trust_coef=0.01, ratio="decayed")
    else:
        optimizer = LarsSGD(params, lr=1.0, momentum=0.9, trust_coef=0.01, ratio="decayed")
    stepped(optimizer, params)
    twin = again(optimizer)
    theirs = twin.param_groups[0]["params"]
    stepped(optimizer, params, 2, 3)
    stepped(twin, theirs, 2, 3)
    assert_equal(params, theirs)
    assert repr(twin) == repr(optimizer)


def test_a_saved_state_goes_on_bit_for_bit_and_keeps_every_groups_numbers():
    params = tensors()
    groups = [{"params": params[:2], "trust_coef": 0.02}, {"params": params[2:], "lars": False}]
    optimizer = LARS(torch.optim.SGD(groups, lr=1.0, momentum=0.9), eps=1e-6)
    stepped(optimizer, params)
    file = io.BytesIO()
    torch.save({"params": params, "optimizer": optimizer.state_dict()}, file)
    stepped(optimizer, params, 3, 3)
    file.seek(0)
    saved = torch.load(file)
    fresh = LARS(torch.optim.SGD([{"params": saved["params"][:2]}, {"params": saved["params"][2:]}], lr=7.0))
    fresh.load_state_dict(saved["optimizer"])
    assert [g["trust_coef"] for g in fresh.param_groups] == [0.02, 0.001]
    assert [g["lars"] for g in fresh.param_groups] == [True, False]
    assert [g["lars_eps"] for g in fresh.param_groups] == [1e-6, 1e-6]
    stepped(fresh, saved["params"], 3, 3)
    assert_equal(params, saved["params"])


def test_sgd_loads_what_lars_saved_and_lars_what_sgd_saved():
    params = tensors()
    optimizer = LARS(
        torch.optim.SGD([{"params": params[:2]}, {"params": params[2:], "lars": False}], lr=0.1, momentum=0.9)
    )
    stepped(optimizer, params)
    sgd = torch.optim.SGD([{"params": params[:2]}, {"params": params[2:]}], lr=0.3, momentum=0.9)
    saved = sgd.state_dict()
    sgd.load_state_dict(optimizer.state_dict())
    assert sgd.param_groups[0]["lr"] == 0.1
    optimizer.load_state_dict(saved)
    assert [g["lars"] for g in optimizer.param_groups] == [True, False] and optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize("how", ["pickle", "torch.save"])
def test_a_torchlars_pickle_loads(monkeypatch, tmp_path: Path, how):
    """A class of torchlars' own shape: pickled by __getstate__ as (optimizer, rest of its __dict__)."""
    module = types.ModuleType("torchlars.lars")

    class Theirs(torch.optim.Optimizer):
        def __init__(self, optimizer, eps=1e-8, trust_coef=0.001):
            self.optim, self.eps, self.trust_coef, self.adaptive_lr = optimizer, eps, trust_coef, torch.ones(())

        def __getstate__(self):
            return (self.optim, {k: v for k, v in self.__dict__.items() if k != "optim"})

    Theirs.__module__, Theirs.__qualname__, Theirs.__name__ = "torchlars.lars", "LARS", "LARS"
    module.LARS = Theirs
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchlars", types.ModuleType("torchlars"))
        patch.setitem(sys.modules, "torchlars.lars", module)
        params = tensors()
        sgd = torch.optim.SGD(params, lr=0.1, momentum=0.9)
        stepped(sgd, params)
        file = tmp_path / "optimizer.pt"
        if how == "pickle":
            file.write_bytes(pickle.dumps(Theirs(sgd, eps=1e-7, trust_coef=0.02)))
        else:
            torch.save(Theirs(sgd, eps=1e-7, trust_coef=0.02), file)
    loaded = load_torchlars(file)
    assert isinstance(loaded, LARS) and (loaded.eps, loaded.trust_coef) == (1e-7, 0.02)
    assert loaded.param_groups[0]["lars_eps"] == 1e-7 and len(loaded.state) == 5
    stepped(loaded, loaded.param_groups[0]["params"])


def test_distributed_checkpoint_state_goes_round():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    def made() -> tuple[torch.nn.Module, LARS]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        return model, LARS(torch.optim.SGD(split_parameters(model, 1e-4), lr=1.0, momentum=0.9), trust_coef=0.03)

    def step(model: torch.nn.Module, optimizer: LARS, seed: int) -> None:
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()

    model, optimizer = made()
    step(model, optimizer, 1)
    saved = get_optimizer_state_dict(model, optimizer)
    twin, fresh = made()
    twin.load_state_dict(model.state_dict())
    fresh.param_groups[0]["trust_coef"] = 0.5
    set_optimizer_state_dict(twin, fresh, copy.deepcopy(saved))
    assert fresh.param_groups[0]["trust_coef"] == 0.03 and fresh.param_groups[1]["lars"] is False
    step(model, optimizer, 2)
    step(twin, fresh, 2)
    assert_equal(list(model.parameters()), list(twin.parameters()))


@pytest.mark.parametrize("path", PATHS)
def test_complex_parameters_step_as_their_real_views(path):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 4, 2, generator=generator, dtype=torch.float64)
    real, compl = torch.nn.Parameter(start.clone()), torch.nn.Parameter(torch.view_as_complex(start.clone()))
    for p in (real, compl):
        optimizer = LARS(by(path, torch.optim.SGD([p], lr=1.0, momentum=0.9, weight_decay=0.01)))
        for step in range(3):
            g = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            p.grad = g if p is real else torch.view_as_complex(g)
            optimizer.step()
    torch.testing.assert_close(torch.view_as_real(compl.detach()), real.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["torch", "caffe", "nus"])
def test_half_precision_norms_accumulate_in_fp32(dtype, form):
    """4096 x 2000 weights of 1: a norm of 2,862, whose square is beyond fp16, and gradients whose squares underflow."""
    w = torch.nn.Parameter(torch.ones(4096, 2000, dtype=dtype))
    optimizer = LARS(torch.optim.SGD([w], lr=1000.0, momentum=0.9), momentum_form=form)
    w.grad = torch.full_like(w, 1e-5)
    optimizer.step()
    assert optimizer.weight_norms.item() == pytest.approx(2862.2, rel=1e-3)
    assert optimizer.gradient_norms.item() == pytest.approx(2862.2 * float(w.grad[0, 0]), rel=1e-3)
    assert optimizer.trust_ratios.dtype == torch.float32
    if dtype == torch.bfloat16 or form != "caffe":
        torch.testing.assert_close(w.detach().float(), torch.zeros(4096, 2000), atol=2e-2, rtol=0)


def test_mixed_dtypes_in_one_group_step_each_as_alone():
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float32, torch.float64]
    together = [torch.nn.Parameter(p.detach().to(d)) for p, d in zip(tensors(), dtypes, strict=True)]
    optimizer = LARS(torch.optim.SGD(together, lr=1.0, momentum=0.9))
    stepped(optimizer, together)
    for i, d in enumerate(dtypes):
        one = torch.nn.Parameter(tensors()[i].detach().to(d))
        alone = LARS(torch.optim.SGD([one], lr=1.0, momentum=0.9))
        for step in range(3):
            one.grad = gradients(together, step)[i]
            alone.step()
        torch.testing.assert_close(together[i], one, rtol=1e-5 if d != torch.bfloat16 else 1e-2, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_never_an_unscaled_step(path, bad):
    params = tensors()
    before = [p.detach().clone() for p in params]
    optimizer = LARS(by(path, torch.optim.SGD(params, lr=1.0, momentum=0.9)))
    for p, g in zip(params, gradients(params, 0), strict=True):
        p.grad = g
    params[0].grad.view(-1)[0] = bad
    optimizer.step()
    moved = (params[0].detach() - before[0]).abs()
    assert not torch.isfinite(params[0].view(-1)[0])
    assert moved[torch.isfinite(moved)].max() < 1e-2 if torch.isfinite(moved).any() else True
    assert all(torch.isfinite(p).all() for p in params[1:])


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e25])
def test_tiny_and_huge_gradients_move_weights_by_the_trusted_length(scale):
    w = torch.nn.Parameter(torch.randn(100, generator=torch.Generator().manual_seed(0)))
    before = w.detach().clone()
    optimizer = LARS(torch.optim.SGD([w], lr=1.0), eps=0.0)
    w.grad = scale * torch.randn(100, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    assert float((w.detach() - before).norm() / before.norm()) == pytest.approx(0.001, rel=1e-3)


def test_resnet50_splits_into_54_adapted_tensors_and_107():
    resnet50 = pytest.importorskip("torchvision.models").resnet50
    adapted, rest = split_parameters(resnet50(), 1e-4)
    assert (len(adapted["params"]), len(rest["params"])) == (54, 107)
    assert (adapted["lars"], adapted["weight_decay"], rest["lars"], rest["weight_decay"]) == (True, 1e-4, False, 0.0)


def test_an_excluded_group_has_mlperfs_rule_no_adaptation_and_no_decay():
    """mlcommons' LARSOptimizer: a skipped variable has the plain lr, inside the buffer, and no weight decay either."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).double()
    params = list(model.parameters())
    expected = [p.detach().clone() for p in params]
    buffers = [torch.zeros_like(p) for p in params]
    optimizer = LARS(
        torch.optim.SGD(split_parameters(model, 0.1), lr=1.0, momentum=0.9), momentum_form="caffe", eps=0.0
    )
    for step in range(10):
        lr = 1.0 / (step + 1)
        grads = gradients(params, step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        for p, w, g, v in zip(params, expected, grads, buffers, strict=True):
            if p.dim() > 1:
                reference([w], [g], [v], lr, 0.9, 0.1, momentum_form="caffe", eps=0.0)
            else:
                v.mul_(0.9).add_(lr * g)
                w.sub_(v)
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-12, atol=1e-14)


@pytest.mark.skipif(torch.__version__ < "2.6", reason="torch takes named parameters since 2.6")
def test_last_ratios_are_there_by_name():
    model = torch.nn.Linear(4, 3)
    optimizer = LARS(torch.optim.SGD(list(model.named_parameters()), lr=1.0))
    assert optimizer.trust_ratios.numel() == 0
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert optimizer.names() == ["weight", "bias"]
    expected = [0.001 * p.norm() / p.grad.norm() for p in model.parameters()]
    # the step has moved the weights by a thousandth
    torch.testing.assert_close(optimizer.trust_ratios, torch.stack(expected).detach(), rtol=2e-3, atol=0)
    of_groups = LARS(torch.optim.SGD(split_parameters(model, 0.1), lr=1.0))
    of_groups.step()
    assert of_groups.names() == ["weight"]
    of_groups.add_param_group({"params": [torch.nn.Parameter(torch.ones(2, 2))]})  # torch mixes no names with none
    assert list(of_groups._names().values()) == ["weight", "bias", "2.0"]
    model = torch.nn.Linear(4, 3)
    unnamed = LARS(torch.optim.SGD(model.parameters(), lr=1.0))
    model(torch.ones(2, 4)).sum().backward()
    unnamed.step()
    assert unnamed.names() == ["0.0", "0.1"]


@pytest.mark.parametrize("path", PATHS)
def test_a_step_whose_gradients_overflowed_changes_nothing_and_the_next_is_as_if_it_had_not_been(path: str):
    """By GradScaler, which unscales the gradients or leaves that to LARS; on a CPU LARS reads the flag."""
    for unscales in (False, True):
        params, plain = tensors(), tensors()
        optimizer, reference_ = (
            LARS(by(path, torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4))) for p in (params, plain)
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(3):
            scale = scaler.scale(torch.ones(()))
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g * scale * (torch.inf if step == 1 else 1)
            if unscales:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            first = optimizer.first_not_finite()
            assert first is None if step != 1 else first is not None and first[1] == "gradient"
            if step != 1:
                for p, g in zip(plain, gradients(plain, step), strict=True):
                    p.grad = g
                reference_.step()
            assert all(torch.equal(a, b) for a, b in zip(params, plain, strict=True)), (step, unscales)
        assert scaler.get_scale() == 512.0


class Flag:
    """``found_inf`` as on a GPU."""

    is_cpu = False

    def __init__(self, overflowed: bool) -> None:
        self.value = torch.tensor([float(overflowed)])

    def to(self, device: torch.device, non_blocking: bool) -> torch.Tensor:
        return self.value

    def item(self) -> float:
        return self.value.item()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("skipped", [None, 0, 1])
def test_on_a_gpu_an_overflow_is_undone_by_values_alone(path: str, skipped: int | None):
    """With a flag that says that it is not on the CPU, the first step, which makes the buffers, or the second."""

    params, plain = tensors(), tensors()
    optimizer, expected = (LARS(by(path, torch.optim.SGD(p, lr=0.1, momentum=0.9))) for p in (params, plain))
    for step in range(3):
        for p, q, g in zip(params, plain, gradients(params, step), strict=True):
            p.grad, q.grad = g * (torch.inf if step == skipped else 1), g
        if step != skipped:
            expected.step()
        optimizer.found_inf = Flag(step == skipped)
        optimizer.step()
        assert_equal(params, plain)


def dampened(params: list, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(params, lr=lr, momentum=0.9, dampening=0.5)


@pytest.mark.parametrize("base", [torch.optim.NAdam, torch.optim.Rprop, torch.optim.ASGD, dampened])
def test_a_first_step_that_overflows_leaves_no_state(base: Any):
    params, plain = tensors(), tensors()
    optimizer, expected = (LARS(base(p, lr=0.1), trust_coef=0.1) for p in (params, plain))
    for p in params:
        p.grad = torch.full_like(p, float("inf"))
    optimizer.found_inf = Flag(True)
    optimizer.step()
    assert_equal(params, tensors())
    optimizer.found_inf = Flag(False)
    stepped(optimizer, params)
    stepped(expected, plain)
    assert_equal(params, plain)
