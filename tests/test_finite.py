"""A loss or gradient that is not finite is recorded without waiting for the device."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from train.engine.finite import FiniteCheck

ONE = torch.ones(())  # the scale of a loss that is not scaled


def parameters() -> nn.ParameterDict:
    return nn.ParameterDict({name: nn.Parameter(torch.ones(3)) for name in "abc"})


def test_the_first_bad_step_and_its_layers_are_remembered():
    model = parameters()
    check = FiniteCheck(model, torch.device("cpu"))
    for step, bad in enumerate(("", "b", "abc")):
        for name, p in model.items():
            p.grad = torch.full((3,), float("nan") if name in bad else 1.0)
        check.record(step, torch.tensor(1.0), ONE)
        assert check.first_failure() == (None if step == 0 else (1, ["b"]))
    check = FiniteCheck(model, torch.device("cpu"))
    for p in model.values():
        p.grad = torch.ones(3)
    check.record(7, torch.tensor(float("inf")), ONE)
    assert check.first_failure() == (7, [])


def test_recording_never_waits_for_the_device():
    with FakeTensorMode():
        model = nn.Linear(3, 3, device="cuda")
        for p in model.parameters():
            p.grad = torch.empty_like(p)
        check = FiniteCheck(model, torch.device("cuda"))
        check.record(0, torch.empty((), device="cuda"), torch.empty((), device="cuda"))


def test_gradients_that_overflow_are_no_failure_while_the_scale_can_fall():
    model = parameters()
    for p in model.values():
        p.grad = torch.full((3,), float("inf"))
    check = FiniteCheck(model, torch.device("cpu"))
    check.record(3, torch.tensor(1.0), torch.tensor(2.0))
    assert check.first_failure() is None
    check.record(4, torch.tensor(1.0), ONE)
    assert check.first_failure() == (4, ["a", "b", "c"])
    check = FiniteCheck(model, torch.device("cpu"))
    # no scale makes a loss finite
    check.record(5, torch.tensor(float("nan")), torch.tensor(2.0))
    assert check.first_failure() is not None
