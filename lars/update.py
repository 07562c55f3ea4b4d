"""One step over one parameter group: fused on CPUs, multi-tensor elsewhere, or through the base optimizer.

Below, N is one read or write of all parameters. ``fused_cpu`` takes 7 N, ``multi_tensor`` 13 N, ``scaled_gradients``
7 N and a temporary of N before the base's own step.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from lars.ratio import Variant

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


SMALLEST_INSIDE = 1e-6  # below it 1 - (1 - x) is off by more than 1e-10 of x in float64


class LayerStatistics(NamedTuple):
    """What a step measured of T tensors, each 1-D of length T: |w| and |g| before the step, and the trust ratio."""

    weight_norms: Tensor
    gradient_norms: Tensor
    trust_ratios: Tensor


def grads_of(params: Sequence[Tensor]) -> list[Tensor]:
    return [p.grad for p in params if p.grad is not None]


def takes_fused_cpu(group: dict[str, Any], params: Sequence[Tensor], variant: Variant) -> bool:
    """Whether ``fused_cpu`` can compute the step of this group of a torch.optim.SGD."""
    if torch.compiler.is_compiling() or isinstance(group["lr"], Tensor):
        return False
    if variant.clamp is not None or group["dampening"] or (group["nesterov"] and variant.momentum_form != "nus"):
        return False
    grads = grads_of(params)
    same = all(p.stride() == g.stride() and p.dtype == g.dtype for p, g in zip(params, grads, strict=True))
    return same and all(map(_is_dense_cpu, params)) and all(map(_is_dense_cpu, grads))


def _is_dense_cpu(x: Tensor) -> bool:
    """Whether x's elements are one gapless stretch of host memory in single or double precision."""
    return (
        type(x) in (torch.nn.Parameter, Tensor)
        and x.is_cpu
        and x.dtype in (torch.float32, torch.float64)
        and x.layout == torch.strided
        and (x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)))
    )


def fused_cpu(
    group: dict[str, Any], params: Sequence[Tensor], buffers: Sequence[Tensor], variant: Variant
) -> LayerStatistics:
    """SGD on a CPU: each tensor's norms by dot products, then its update by torch's fused SGD.

    torch's fused SGD computes ``v = momentum v + (1 - dampening) (g + decay w)``. The ratio is passed in the place of
    ``1 - dampening``, so no temporary of a parameter's size is allocated; a ratio that 1 - (1 - ratio) would round away
    takes single operations instead. The statistics are float32 on the CPU.
    """
    lr, momentum, decay = float(group["lr"]), group["momentum"], float(group["weight_decay"])
    trust_coef, eps = group["trust_coef"], group["lars_eps"]
    nesterov, maximize = group["nesterov"], group["maximize"]
    rows: list[tuple[float, float, float]] = []
    for i, w in enumerate(params):
        g = w.grad
        assert g is not None
        w_norm, g_norm, d_norm = _norm(w), _norm(g), 0.0
        if variant.ratio == "decayed":
            d_norm = _norm_of_sum(w, g, w_norm, g_norm, -decay if maximize else decay)
        ratio = variant.trust_ratio(w_norm, g_norm, d_norm, lr, decay, trust_coef, eps)
        rows.append((w_norm, g_norm, ratio))
        # what multiplies the gradient before it enters the buffer, and the buffer before it is subtracted
        if not momentum or variant.momentum_form == "nus":
            inside, outside = 1.0, lr * ratio
        elif variant.momentum_form == "caffe":
            inside, outside = lr * ratio, 1.0
        else:
            inside, outside = ratio, lr
        if abs(inside) < SMALLEST_INSIDE and momentum:
            v = buffers[i].mul_(momentum).add_(g, alpha=-inside if maximize else inside).add_(w, alpha=inside * decay)
            w.sub_(v, alpha=outside)
            continue
        torch._fused_sgd_(
            [w],
            [g],
            [buffers[i]] if momentum else [],
            weight_decay=decay,
            momentum=momentum,
            lr=outside,
            dampening=1.0 - inside,
            nesterov=nesterov,
            maximize=maximize,
            is_first_step=False,
        )
    return LayerStatistics(*torch.tensor(rows, dtype=torch.float32).T)


def _norm(x: Tensor) -> float:
    """|x| by one dot product in x's own precision, repeated in float64 where the squares leave its range."""
    flat = _flat(x)
    square = torch.dot(flat, flat).item()
    if 1e-30 < square < 1e37:
        return square**0.5
    return torch.linalg.vector_norm(flat, dtype=torch.float64).item()


def _norm_of_sum(w: Tensor, g: Tensor, w_norm: float, g_norm: float, decay: float) -> float:
    """|g + decay w| without a temporary, unless the two nearly cancel."""
    both = g_norm**2 + (decay * w_norm) ** 2
    square = both + 2 * decay * torch.dot(_flat(w), _flat(g)).item()
    if square > 1e-2 * both:
        return square**0.5
    return torch.linalg.vector_norm(torch.add(_flat(g), _flat(w), alpha=decay), dtype=torch.float64).item()


def _flat(x: Tensor) -> Tensor:
    # in memory order, which w and g share
    return x if x.dim() == 1 else x.as_strided((x.numel(),), (1,))


def takes_multi_tensor(group: dict[str, Any], params: Sequence[Tensor], variant: Variant) -> bool:
    """Whether ``multi_tensor`` can compute the step of this group of a torch.optim.SGD."""
    if group["dampening"]:
        return False
    if variant.momentum_form == "nus":
        return True
    if variant.clamp is not None or group["nesterov"]:
        return False
    kinds = {(p.dtype, p.device, g.dtype, g.layout) for p, g in zip(params, grads_of(params), strict=True)}
    # a ratio in half precision would lose its range
    return len(kinds) == 1 and params[0].dtype in (torch.float32, torch.float64)


def multi_tensor(
    group: dict[str, Any], params: Sequence[Tensor], buffers: Sequence[Tensor], variant: Variant
) -> LayerStatistics:
    """SGD in a few multi-tensor calls; every ratio stays on the device, and nothing is read on the host."""
    lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
    sign = -1 if group["maximize"] else 1
    ws, gs, vs = _local(params), _local(grads_of(params)), _local(buffers)
    measured, ds = measure(group, params, variant)
    ratios = measured.trust_ratios
    if not momentum or variant.momentum_form == "nus":
        if ds is None:
            ds = _decayed(group, ws, gs, variant.clamp)
        if momentum:
            torch._foreach_mul_(vs, momentum)
            torch._foreach_add_(vs, ds)
            ds = list(torch._foreach_add(ds, vs, alpha=momentum)) if group["nesterov"] else vs
        steps = [d * step for d, step in zip(ds, (ratios * lr).unbind(), strict=True)]
        torch._foreach_sub_(ws, steps)
        return measured
    inside = (ratios * lr if variant.momentum_form == "caffe" else ratios).to(ws[0].dtype)
    torch._foreach_mul_(vs, momentum)
    # recent CUDA builds fuse 0-d tensors in this place; elsewhere it is a call each
    torch._foreach_addcmul_(vs, inside.unbind(), gs, value=sign)
    if decay:
        torch._foreach_addcmul_(vs, (inside * decay).unbind(), ws)
    if variant.momentum_form == "caffe":
        torch._foreach_sub_(ws, vs)
    elif isinstance(lr, Tensor):
        step = lr.reshape(()).to(ws[0].device, ws[0].dtype, non_blocking=True)
        torch._foreach_addcmul_(ws, [step] * len(ws), vs, value=-1)
    else:
        torch._foreach_add_(ws, vs, alpha=-lr)
    return measured


def scaled_gradients(
    group: dict[str, Any], params: Sequence[Tensor], variant: Variant
) -> tuple[LayerStatistics, list[Tensor]]:
    """The statistics, and for each parameter a new gradient to hand to any base optimizer.

    It is ``ratio * (g + decay w)``, or ``lr * ratio * (g + decay w)`` for ``caffe``.
    """
    measured, ds = measure(group, params, variant)
    grads = grads_of(params)
    if ds is None:
        ds = _decayed(group, _local(params), _local(grads), variant.clamp)
    if group.get("maximize"):
        # the base negates what it is given
        torch._foreach_neg_(ds)
    ratios = measured.trust_ratios
    factors = ratios * group["lr"] if variant.momentum_form == "caffe" else ratios
    for d, factor in zip(ds, factors.unbind(), strict=True):
        d.mul_(factor)
    return measured, [_like(d, g) for d, g in zip(ds, grads, strict=True)]


def lr_inside(group: dict[str, Any], params: Sequence[Tensor]) -> list[Tensor]:
    """``lr (g + decay w)``, for ``caffe``'s buffer in a group that is not adapted; sparse where g is and decay is 0."""
    decay = -group["weight_decay"] if group["maximize"] else group["weight_decay"]
    ds = [g.add(p, alpha=decay) if decay else g for p, g in zip(params, grads_of(params), strict=True)]
    return [d * group["lr"] for d in ds]


def measure(
    group: dict[str, Any], params: Sequence[Tensor], variant: Variant
) -> tuple[LayerStatistics, list[Tensor] | None]:
    """The statistics of a step, and ``g + decay w`` where the ratio needed it and nothing clamps it."""
    grads, decay = grads_of(params), group.get("weight_decay", 0)
    ds = None
    measured = [*params, *grads]
    if variant.ratio == "decayed":
        ds = _decayed(group, _local(params), _local(grads), None)
        measured += [_like(d, g) for d, g in zip(ds, grads, strict=True)]
    norms = _norms(measured).view(-1, len(params))
    ratios = variant.trust_ratios(
        norms[0], norms[1], norms[2] if ds else None, group["lr"], decay, group["trust_coef"], group["lars_eps"]
    )
    return LayerStatistics(norms[0], norms[1], ratios), ds if variant.clamp is None else None


def _decayed(group: dict[str, Any], ws: Sequence[Tensor], gs: Sequence[Tensor], clamp: float | None) -> list[Tensor]:
    """``g + decay w``, the direction in which w descends, clamped element by element."""
    gs = list(torch._foreach_neg(list(gs)) if group.get("maximize") else gs)
    ds = list(torch._foreach_add(gs, list(ws), alpha=group.get("weight_decay", 0)))
    return ds if clamp is None else [d.clamp_(-clamp, clamp) for d in ds]


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of each, 1-D, in fp32 or float64; tensors sharded the same way share one collective."""
    local = [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in _local(tensors)]
    wide = torch.float64 if any(t.dtype == torch.float64 for t in local) else torch.float32
    eager_cpu = local[0].is_cpu and not torch.compiler.is_compiling()
    if eager_cpu and all(map(_is_dense_cpu, local)):
        norms = torch.tensor([_norm(t) for t in local], dtype=wide)
    else:
        # On a CPU torch adds fp32 squares in a few lanes: 0.5 % off over 8 million elements.
        within = torch.float64 if eager_cpu else wide
        norms = torch.stack(torch._foreach_norm(local, 2, within)).to(wide)
    return _over_all_shards(tensors, norms) if any(map(is_distributed, tensors)) else norms


def _over_all_shards(tensors: Sequence[Tensor], norms: Tensor) -> Tensor:
    """The norms of whole tensors from those of their local shards."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    kinds: dict[Any, list[int]] = {}
    for i, t in enumerate(tensors):
        if is_distributed(t):
            kinds.setdefault((t.device_mesh, tuple(not p.is_replicate() for p in t.placements)), []).append(i)
    each = list(norms.unbind())
    for (mesh, sharded), members in kinds.items():
        squares = torch.stack([each[i] for i in members]).square()
        placements = [Partial() if along else Replicate() for along in sharded]
        whole = DTensor.from_local(squares, mesh, placements, run_check=False).full_tensor().sqrt()
        for i, norm in zip(members, whole.unbind(), strict=True):
            each[i] = norm
    return torch.stack(each)


def is_distributed(t: Tensor) -> TypeGuard[DTensor]:
    """Whether ``t`` is a DTensor; does not import torch.distributed.tensor for those who have none."""
    known = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)  # public since torch 2.5
    return known is not None and isinstance(t, known)


def is_finite(x: Tensor) -> bool:
    """Whether no element of ``x``, or of this process's shard of it, is NaN or infinite; waits for the device."""
    (local,) = _local([x])
    return bool(torch.isfinite(local.coalesce().values() if local.is_sparse else local).all())


def _local(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.to_local() if is_distributed(t) else t for t in tensors]


def _like(local: Tensor, whole: Tensor) -> Tensor:
    """``local`` as a shard of a tensor that is distributed as ``whole`` is."""
    if not is_distributed(whole):
        return local
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
