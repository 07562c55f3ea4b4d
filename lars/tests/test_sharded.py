"""LARS over several processes: FSDP2, tensors sharded each in its own way, and ZeRO."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lars import LARS, LarsSGD, split_parameters
from lars.tests.reference import gradients, spawn, tensors

dtensors = pytest.mark.skipif(torch.__version__ < "2.6", reason="FSDP2 and DTensor are tested from torch 2.6 on")


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3)).double()


def _train(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for step in range(5):
        optimizer.zero_grad()
        model(
            torch.randn(8, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        ).square().mean().backward()
        optimizer.step()


@contextlib.contextmanager
def _group(rank: int, size: int, port: int):
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=size)
    yield
    dist.destroy_process_group()


def _fully_sharded(rank: int, size: int, port: int, out: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.debug import CommDebugMode

    with _group(rank, size, port):
        model = _model()
        fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
        optimizer = LARS(torch.optim.SGD(split_parameters(model, 0.01), lr=1.0, momentum=0.9))
        _train(model, optimizer)
        for p in model.parameters():
            p.grad = p.grad if p.grad is not None else torch.ones_like(p)
        with CommDebugMode() as communication:
            optimizer.step()
        whole = [p.full_tensor() for p in model.parameters()]
        if rank == 0:
            torch.save({"params": whole, "collectives": communication.get_total_counts()}, out / "sharded.pt")


@dtensors
def test_two_fsdp2_processes_step_as_one_with_one_collective(tmp_path: Path):
    pytest.importorskip("numpy", reason="torch counts collectives with numpy")
    spawn(_fully_sharded, 2, tmp_path)
    got = torch.load(tmp_path / "sharded.pt")
    model = _model()
    optimizer = LARS(torch.optim.SGD(split_parameters(model, 0.01), lr=1.0, momentum=0.9))
    _train(model, optimizer)
    optimizer.step()
    for a, b in zip(got["params"], model.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-10, atol=1e-12)
    assert got["collectives"] == 1


def _sharded_in_many_ways(rank: int, size: int, port: int, out: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    with _group(rank, size, port):
        mesh = init_device_mesh("cpu", (size,))
        ways = [None, Shard(0), Replicate(), Shard(0), Shard(0)]

        def spread(x: torch.Tensor, way: Any) -> torch.Tensor:
            return x if way is None else distribute_tensor(x, mesh, [way])

        whole = tensors()
        parts = [torch.nn.Parameter(spread(p.detach(), way)) for p, way in zip(tensors(), ways, strict=True)]
        for params, kinds in ((whole, [None] * len(ways)), (parts, ways)):
            optimizer = LARS(torch.optim.SGD(params, lr=1.0, momentum=0.9, weight_decay=0.01))
            for step in range(3):
                for p, g, way in zip(params, gradients(whole, step), kinds, strict=True):
                    p.grad = spread(g, way)
                    if way == Replicate():
                        # as tensor parallelism leaves it: what the processes have adds up to the gradient
                        part = g if rank == 0 else torch.zeros_like(g)
                        p.grad = DTensor.from_local(part, mesh, [Partial()], run_check=False)
                optimizer.step()
        for a, b, way in zip(whole, parts, ways, strict=True):
            torch.testing.assert_close(b if way is None else b.full_tensor(), a, rtol=1e-10, atol=1e-12)


@dtensors
def test_parameters_of_one_group_may_be_sharded_each_in_its_own_way(tmp_path: Path):
    spawn(_sharded_in_many_ways, 2, tmp_path)


def _tensor_parallel(rank: int, size: int, port: int, out: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    with _group(rank, size, port):
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
        model = _even_model()
        parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(model, mesh=mesh["data"])
        _train(model, LARS(torch.optim.SGD(split_parameters(model, 0.01), lr=1.0, momentum=0.9)))
        whole = [p.full_tensor() for p in model.parameters()]
        if rank == 0:
            torch.save(whole, out / "parallel.pt")


def _even_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).double()


@dtensors
def test_fsdp2_with_tensor_parallelism_steps_as_one_process(tmp_path: Path):
    spawn(_tensor_parallel, 4, tmp_path)
    model = _even_model()
    _train(model, LARS(torch.optim.SGD(split_parameters(model, 0.01), lr=1.0, momentum=0.9)))
    for a, b in zip(torch.load(tmp_path / "parallel.pt"), model.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-10, atol=1e-12)


def _with_ddp(rank: int, size: int, port: int, out: Path) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    with _group(rank, size, port):
        for kind in ("plain", "zero", "zero, groups"):
            model = DistributedDataParallel(_model())
            params = model.parameters() if kind == "zero" else split_parameters(model, 0.01)
            numbers = {"lr": 1.0, "momentum": 0.9, "weight_decay": 0.01}
            optimizer: torch.optim.Optimizer
            if kind == "plain":
                optimizer = LarsSGD(params, **numbers)
            else:
                optimizer = ZeroRedundancyOptimizer(params, optimizer_class=LarsSGD, **numbers)
            _train(model, optimizer)
            if kind == "zero, groups":
                names = {name: p for name, p in model.named_parameters()}
                assert all(names[name] is p for p, name in optimizer.optim._names().items())
            torch.save([p.detach() for p in model.parameters()], out / f"{kind}-{rank}.pt")


def test_ddp_and_zero_redundancy_optimizer_step_as_one_process(tmp_path: Path):
    spawn(_with_ddp, 2, tmp_path)
    for kind in ("plain", "zero", "zero, groups"):
        model = _model()
        params = model.parameters() if kind == "zero" else split_parameters(model, 0.01)
        _train(model, LarsSGD(params, lr=1.0, momentum=0.9, weight_decay=0.01))
        for rank in (0, 1):
            for a, b in zip(torch.load(tmp_path / f"{kind}-{rank}.pt"), model.parameters(), strict=True):
                torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-14)
