"""LARS compiled, and on tensors that have no values; asks for a recent torch."""

import pytest
import torch
import torch._dynamo.testing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lars import LARS
from lars.tests.reference import gradients, stepped, tensors

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.6", reason="compiled and fake tensors are tested from torch 2.6 on"
)


@pytest.mark.parametrize("form", ["torch", "caffe", "nus"])
def test_compiles_without_breaks_and_once_for_every_lr(form):
    plain, compiled = tensors(dtype=torch.float32), tensors(dtype=torch.float32)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    optimizers = []
    for params in (plain, compiled):
        lr = torch.tensor(1.0)
        optimizers.append(LARS(torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=1e-4), momentum_form=form))
    stepped(optimizers[0], plain, 1)
    stepped(optimizers[1], compiled, 1)
    torch._dynamo.reset()
    step = torch.compile(optimizers[1].step, backend=counter, fullgraph=True)
    for t in range(1, 5):
        for params, move, optimizer in ((plain, optimizers[0].step, optimizers[0]), (compiled, step, optimizers[1])):
            optimizer.param_groups[0]["lr"].fill_(1.0 / t)
            for p, g in zip(params, gradients(params, t), strict=True):
                p.grad = g
            move()
    assert counter.frame_count == 1
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(optimizers[1].gradient_norms, optimizers[0].gradient_norms)


def test_compiled_by_inductor_it_takes_the_same_steps_at_7_n():
    """What a GPU would run as one kernel for the norms and one for the update, here as inductor's C++."""
    from torch._inductor import metrics

    eager, compiled = ([torch.nn.Parameter(p.detach()) for p in big()] for _ in range(2))
    optimizers = [
        LARS(torch.optim.SGD(p, lr=torch.tensor(1.0), momentum=0.9, weight_decay=1e-4)) for p in (eager, compiled)
    ]
    stepped(optimizers[0], eager, 1)
    stepped(optimizers[1], compiled, 1)
    torch._dynamo.reset()
    metrics.reset()
    step = torch.compile(optimizers[1].step, fullgraph=True)
    for t in range(1, 4):
        for params, move in ((eager, optimizers[0].step), (compiled, step)):
            for p, g in zip(params, gradients(params, t), strict=True):
                p.grad = g
            move()
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert metrics.num_bytes_accessed / (4 * sum(p.numel() for p in eager)) < 7.1


def big() -> list[torch.Tensor]:
    return [torch.randn(300, 200, generator=torch.Generator().manual_seed(i)) for i in range(3)]


class NothingCrosses(TorchDispatchMode):
    """Refuses copies from one device to another, and conditions on the host: a GPU's stream is waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten._to_copy, torch.ops.aten.where):
            given = tree_flatten((args, kwargs))[0]
            devices = {x.device.type for x in given if isinstance(x, torch.Tensor)}
            devices |= {x.type for x in given if isinstance(x, torch.device)}
            assert len(devices) == 1, f"{func} between {devices}"
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch was built without CUDA")
@pytest.mark.parametrize(
    "variant", [{}, {"momentum_form": "caffe"}, {"momentum_form": "nus"}, {"ratio": "decayed"}, {"clip": True}]
)
def test_a_step_on_cuda_never_waits_for_the_device(variant):
    """Fake tensors have no values: whatever would read one on the host raises."""
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.empty(64, 3, 7, 7, device="cuda")) for _ in range(3)]
        optimizer = LARS(torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-4), **variant)
        for _ in range(2):
            for p in params:
                p.grad = torch.empty_like(p)
            with NothingCrosses():
                optimizer.step()
        assert optimizer.trust_ratios.device.type == "cuda" and optimizer.trust_ratios.shape == (3,)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch was built without CUDA")
def test_on_a_gpu_nothing_waits_for_the_flag():
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.empty(64, 3, 7, 7, device="cuda")) for _ in range(3)]
        for p in params:
            p.grad = torch.empty_like(p)
        optimizer = LARS(torch.optim.SGD(params, lr=0.1, momentum=0.9))
        optimizer.found_inf, optimizer.grad_scale = torch.empty(1, device="cuda"), torch.empty(1, device="cuda")
        for _ in range(2):
            optimizer.step()
