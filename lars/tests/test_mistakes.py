"""What LARS refuses, and what it says: each message names the value and the fix, and no weight has moved."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from lars import LARS, LarsSGD, load_torchlars, split_parameters
from lars.tests.reference import assert_equal, gradients, stepped, tensors


@pytest.mark.parametrize("options", [{}, {"lr": 1.0}, {"lr": 1.0, "momentum": 0.9, "weight_decay": 1e-4}])
@pytest.mark.parametrize("given", [tensors(), iter(tensors()), torch.nn.Linear(2, 2).parameters(), tensors()[0]])
def test_parameters_instead_of_an_optimizer_lead_to_lars_sgd(given, options):
    with pytest.raises(TypeError, match=r"wraps a torch.optim.Optimizer, not .*: write LarsSGD\(params, lr=...\)"):
        LARS(given, **options)


def test_parameters_by_keyword_lead_to_lars_sgd_too():
    with pytest.raises(TypeError, match=r"not parameters: write LarsSGD\(params, lr=...\)"):
        LARS(params=tensors(), lr=1.0)


def test_parameters_have_no_names_to_split_by():
    with pytest.raises(TypeError, match="give it the model, not model.parameters()"):
        split_parameters(torch.nn.Linear(2, 2).parameters(), 1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"lr": 1.0}, {"momentum": 0.9}, {"warmup": 5}])
def test_an_argument_of_sgd_or_a_misspelt_one_is_named(options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(TypeError, match=rf"LARS has no argument {name}={value}: .* LarsSGD\(params, lr=...\)"):
        LARS(torch.optim.SGD(tensors(), lr=0.1), **options)


@pytest.mark.parametrize("other", ["eta", "eeta", "trust_coeff", "trust_coefficient", "epsilon", "trust_clip"])
def test_what_other_implementations_call_an_argument_is_answered_with_its_name_here(other):
    with pytest.raises(TypeError, match=f"LarsSGD has no argument {other}=0.1: it is called (trust_coef|eps|clip) "):
        LarsSGD(tensors(), lr=1.0, **{other: 0.1})


@pytest.mark.parametrize("other", ["fused", "foreach", "lars"])
def test_lars_sgd_does_not_lead_to_itself(other):
    with pytest.raises(TypeError, match=rf"LarsSGD has no argument {other}=True: see help\(LarsSGD\)"):
        LarsSGD(tensors(), lr=1.0, **{other: True})


WRONG: dict[str, dict[str, Any]] = {
    "eps=-1 and trust_coef=0.001 must be": {"eps": -1},
    "eps=1e-08 and trust_coef=nan must be": {"trust_coef": float("nan")},
    "eps='1e-8' and trust_coef=0.001 must be": {"eps": "1e-8"},
    "eps=1e-08 and trust_coef=None must be": {"trust_coef": None},
    "max_ratio='50' and clamp=None must be above 0, or None": {"max_ratio": "50"},
    "ratio='papers' is not one of 'paper', 'decayed'": {"ratio": "papers"},
    "momentum_form='tf' is not one of": {"momentum_form": "tf"},
    "max_ratio=0 and clamp=None must be above 0, or None": {"max_ratio": 0},
    "Invalid learning rate: -1": {"lr": -1},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_value_out_of_range_is_named(message):
    with pytest.raises(ValueError, match=message):
        LarsSGD(tensors(), **{"lr": 0.1, **WRONG[message]})


def test_lbfgs_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match="LARS cannot wrap LBFGS, .*: wrap torch.optim.SGD"):
        LARS(torch.optim.LBFGS(tensors()))


def test_decoupled_weight_decay_is_refused_wherever_it_comes_from_and_nothing_changes():
    refused = pytest.raises(ValueError, match="AdamW has decoupled weight decay, .* weight_decay=0, not 0.01, or use")
    with refused:
        LARS(torch.optim.AdamW(tensors(), weight_decay=0.01))
    params = tensors()
    optimizer = LARS(torch.optim.AdamW(params[:3], weight_decay=0.0))
    with refused:
        optimizer.add_param_group({"params": params[3:], "weight_decay": 0.01})
    assert len(optimizer.param_groups) == 1
    stepped(optimizer, params[:3], 1)
    before = copy.deepcopy(optimizer.state_dict())
    with refused:
        optimizer.load_state_dict(torch.optim.AdamW(tensors()[:3], weight_decay=0.01).state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i, state in before["state"].items():
        assert_equal(list(state.values()), list(after["state"][i].values()))


def test_a_groups_own_numbers_are_checked_too():
    with pytest.raises(ValueError, match="a group's trust_coef=-1 and lars_eps=1e-08 must be finite and not negative"):
        LarsSGD([{"params": tensors(), "trust_coef": -1}], lr=0.1)


def test_a_momentum_form_that_the_base_lacks_is_named():
    with pytest.raises(ValueError, match="momentum_form='caffe' needs a torch.optim.SGD, not RMSprop"):
        LARS(torch.optim.RMSprop(tensors()), momentum_form="caffe")
    params = tensors()
    groups = [{"params": params[:3]}, {"params": params[3:], "dampening": 0.5}]
    optimizer = LarsSGD(groups, lr=0.1, momentum=0.9, momentum_form="nus")
    with pytest.raises(ValueError, match="does not support dampening=0.5: .* momentum_form='torch'"):
        stepped(optimizer, params)
    assert_equal(params, tensors())


def test_a_step_that_should_be_differentiated_is_refused():
    with pytest.raises(ValueError, match="differentiable=True: LARS does not differentiate"):
        LARS(torch.optim.SGD(tensors(), lr=0.1, differentiable=True))


def test_decoupled_decay_that_is_raised_later_is_refused_too():
    params = tensors()
    optimizer = LARS(torch.optim.AdamW(params, weight_decay=0.0))
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match="AdamW has decoupled weight decay"):
        stepped(optimizer, params)
    assert_equal(params, tensors())


def test_a_sparse_gradient_is_refused_by_its_tensors_name():
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = LARS(torch.optim.SGD(split_parameters(table, 0.0), lr=0.1))
    table(torch.tensor([1])).sum().backward()
    before = table.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"that of weight is sparse: give it a group with lars=False"):
        optimizer.step()
    assert torch.equal(table.weight, before)


def test_a_group_on_two_devices_is_refused_by_their_names():
    params = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2, device="meta"))]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = LarsSGD(params, lr=0.1)
    with pytest.raises(RuntimeError, match=r"not on \['cpu', 'meta'\]: make a group of each"):
        optimizer.step()
    assert torch.equal(params[0], torch.ones(2))


def test_hooks_on_the_sgd_below_nus_are_refused():
    params = tensors()
    sgd = torch.optim.SGD(params, lr=0.1)
    sgd.register_step_post_hook(lambda *_: None)
    with pytest.raises(ValueError, match="momentum_form='nus' .*: put hooks and schedulers on it, not on the SGD"):
        stepped(LARS(sgd, momentum_form="nus"), params, 1)
    assert_equal(params, tensors())


def adam_of(params: list[torch.nn.Parameter]) -> dict[str, Any]:
    optimizer = torch.optim.Adam(params)
    stepped(optimizer, params, 1)
    return optimizer.state_dict()


def sgd_of(params: Any) -> dict[str, Any]:
    return torch.optim.SGD(params, lr=0.1, momentum=0.9).state_dict()


def of_other_shapes() -> dict[str, Any]:
    params = [torch.nn.Parameter(torch.ones(3)) for _ in tensors()]
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    stepped(optimizer, params, 1)
    return optimizer.state_dict()


FOREIGN = {
    "group 0 of the state has no momentum, dampening, nesterov: it is another optimizer's, not one of SGD": lambda: (
        adam_of(tensors())
    ),
    "the state has 2 parameter groups and this optimizer 1": lambda: sgd_of(
        [{"params": tensors()[:2]}, {"params": tensors()[2:]}]
    ),
    "group 0 of the state has 2 tensors and this optimizer's 5": lambda: sgd_of(tensors()[:2]),
    r"has the shape \(3,\) and its tensor \(16, 3, 3, 3\)": of_other_shapes,
    r"its keys are \['epoch', 'optimizer'\]; .* checkpoint\['optimizer'\]": lambda: {"epoch": 1, "optimizer": {}},
}


@pytest.mark.parametrize("message", FOREIGN)
def test_a_state_that_is_not_this_optimizers_is_refused_and_nothing_changes(message):
    params = tensors()
    optimizer = LarsSGD(params, lr=0.3, momentum=0.9)
    stepped(optimizer, params, 1)
    buffers = [optimizer.state[p]["momentum_buffer"] for p in params]
    before = [x.clone() for x in (*params, *buffers)]
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(FOREIGN[message]())
    assert_equal(before, [*params, *(optimizer.state[p]["momentum_buffer"] for p in params)])
    assert optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize("dump", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_pickle_with_other_classes_is_refused_with_the_way_out(dump, tmp_path: Path):
    optimizer = torch.optim.SGD(tensors(), lr=0.1)
    optimizer.param_groups[0]["schedule"] = Path("schedule.json")
    dump(optimizer, tmp_path / "bad")
    with pytest.raises(pickle.UnpicklingError, match=r"Path does not belong .*: .* save optimizer.state_dict\(\)"):
        load_torchlars(tmp_path / "bad")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("tensor", "what"), [(0, "weight"), (0, "gradient"), (2, "gradient"), (4, "gradient")])
def test_first_not_finite_names_the_tensor_and_tells_weight_from_gradient(tensor, what, bad):
    params = tensors()
    optimizer = LarsSGD([{"params": params[:3]}, {"params": params[3:], "lars": False}], lr=0.1)
    assert optimizer.first_not_finite() is None
    stepped(optimizer, params)
    assert optimizer.first_not_finite() is None
    for p, g in zip(params, gradients(params, 0), strict=True):
        p.grad = g
    spoilt = params[tensor].detach() if what == "weight" else params[tensor].grad
    spoilt.view(-1)[0] = bad
    optimizer.step()
    assert optimizer.first_not_finite() == (["0.0", "0.1", "0.2", "1.0", "1.1"][tensor], what)


def test_a_weight_that_was_not_finite_comes_before_the_gradients_that_it_spoilt():
    params = tensors()
    optimizer = LarsSGD(params, lr=0.1)
    params[2].detach()[0] = float("nan")
    for p, g in zip(params, gradients(params, 0), strict=True):
        p.grad = g * float("nan")
    optimizer.step()
    assert optimizer.first_not_finite() == ("0.2", "weight")
