"""What a step of LARS costs: passes over the parameters and calls of torch, as lars/README.md states them."""

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lars import LARS
from scripts.benchmarks.traffic import Traffic


@pytest.mark.parametrize(("path", "most"), [("alone", 7.01), ("multi-tensor", 13.01)])
def test_a_step_costs_no_more_passes_over_the_parameters_than_stated(path, most):
    device = "cpu" if path == "alone" else "cuda"
    with contextlib.nullcontext() if device == "cpu" else FakeTensorMode():
        params = [torch.nn.Parameter(torch.randn(20_000, device=device)) for _ in range(10)]
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer = LARS(torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-4))
        optimizer.step()
        with Traffic() as traffic:
            optimizer.step()
    assert 0.9 * most < traffic.read_and_written / 200_000 <= most
    assert traffic.calls <= (3 * 10 + 5 if path == "alone" else 25)
