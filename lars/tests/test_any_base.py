"""LARS around every optimizer of torch, by torch's own database of them."""

import copy

import pytest
import torch

from lars import LARS
from lars.tests.reference import assert_equal

# needs expecttest and numpy, and torch 2.3 or newer
optim_db = pytest.importorskip("torch.testing._internal.common_optimizers", exc_type=ImportError).optim_db

UNSUITABLE = {"LBFGS", "SparseAdam"}


CASES = [
    pytest.param(info, case, id=f"{info.optim_cls.__name__}-{case.desc}")
    for info in optim_db
    if info.optim_cls.__name__ not in UNSUITABLE
    for case in info.optim_inputs_func(device="cpu")
]


@pytest.mark.parametrize("with_closure", [False, True])
@pytest.mark.parametrize(("info", "case"), CASES)
def test_every_optimizer_of_torch_can_be_wrapped_or_says_why_not(info, case, with_closure):
    """Off, the wrapper is the base exactly; on, it is the base fed with scaled gradients."""
    results = []
    for kind in ("base", "off", "on", "by hand"):
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, 3)
        params = [layer.weight] if info.optim_cls.__name__ == "Muon" else list(layer.parameters())
        base = info.optim_cls(params, **copy.deepcopy(case.kwargs))
        decay = base.param_groups[0].get("weight_decay", 0)
        optimizer = base
        if kind == "off":
            base.param_groups[0]["lars"] = False
            optimizer = LARS(base)
        elif kind == "on":
            decoupled = info.optim_cls.__name__ in ("AdamW", "Adafactor", "Muon")
            if decay and (decoupled or base.param_groups[0].get("decoupled_weight_decay")):
                with pytest.raises(ValueError, match="has decoupled weight decay"):
                    LARS(base)
                return
            optimizer = LARS(base)
        elif kind == "by hand":
            base.param_groups[0].update({"weight_decay": 0} if "weight_decay" in base.param_groups[0] else {})
        for step in range(4):
            x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))

            def closure(layer=layer, x=x, optimizer=optimizer):
                optimizer.zero_grad()
                loss = layer(x).square().sum()
                loss.backward()
                return loss

            if kind == "by hand":
                loss = closure()
                sign = -1 if base.param_groups[0].get("maximize") else 1
                for p in params:
                    with torch.no_grad():
                        g = p.grad.clone()
                        ratio = 0.001 * p.norm() / (g.norm() + decay * p.norm() + 1e-8)
                        p.grad = ratio * (g + sign * decay * p)
                optimizer.step()
            elif with_closure:
                loss = optimizer.step(closure)
            else:
                loss = closure()
                optimizer.step()
            assert loss is not None
        results.append([p.detach().clone() for p in params])
    base, off, on, by_hand = results
    assert_equal(base, off)
    for a, b in zip(on, by_hand, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-7)
