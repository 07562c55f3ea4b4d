"""The LARS optimizer: each tensor's step is in proportion to the tensor's own norm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, SupportsFloat

import torch
from torch import Tensor
from torch.optim import LBFGS, SGD
from torch.optim.optimizer import Optimizer

from lars.groups import NAMES
from lars.overflow import unless_overflow
from lars.ratio import Variant
from lars.state import check_state
from lars.update import (
    LayerStatistics,
    fused_cpu,
    grads_of,
    is_distributed,
    is_finite,
    lr_inside,
    multi_tensor,
    scaled_gradients,
    takes_fused_cpu,
    takes_multi_tensor,
)

# Their weight decay bypasses the gradient, so no trust ratio can scale it.
DECOUPLED = ("AdamW", "Adafactor", "Muon")

# what other implementations call an argument of ours
OTHER_NAMES = {
    **dict.fromkeys(("eta", "eeta", "trust_coeff", "trust_coefficient"), "trust_coef"),
    "epsilon": "eps",
    **dict.fromkeys(("trust_clip", "clip_lars_lr"), "clip"),
}


class LARS(Optimizer):
    """Wrap ``optimizer`` so that the step of each tensor is relative to the norm of the tensor's weights.

    For every weight tensor ``w`` with gradient ``g`` (same shape, any rank, floating or complex) and the
    group's ``weight_decay`` wd, ``lr`` and momentum m, with L2 norms over the whole tensor, in fp32 or wider::

        d = g + wd w
        ratio = trust_coef |w| / (|g| + wd |w| + eps)    "paper": You, Gitman, Ginsburg 2017 (arXiv
                                                         1708.03888), equation 6; torchlars, timm, apex, MLPerf
        ratio = trust_coef |w| / (|d| + eps)             "decayed": optax, SimCLR, MoCo v3, MAE
        ratio = 1                                        where |w| or |g| is 0

    and around ``torch.optim.SGD``::

        v = m v + ratio d;      w = w - lr v             momentum_form "torch": lr outside; torchlars, timm
        v = m v + lr ratio d;   w = w - v                "caffe": lr inside; the paper's Algorithm 1, MLPerf, optax
        v = m v + d;            w = w - lr ratio v       "nus": ratio outside; NUS LARS-ImageNet-PyTorch

    The three differ once lr or the ratio changes. Any other base optimizer is given ``ratio d`` as its gradient and
    weight decay 0. That is useful where the step grows with the gradient. Adam and its family divide by the
    gradient's scale, so that the ratio has almost no effect on them.

    Args:
        optimizer: the optimizer to wrap; ``param_groups``, ``state`` and ``defaults`` are its own.
        eps: added to the denominator, at least 0.
        trust_coef: the paper's eta, at least 0.
        ratio: "paper" or "decayed".
        momentum_form: "torch", "caffe" or "nus"; the last two need a ``torch.optim.SGD``.
        clip: LARC (apex, timm): ``ratio = min(ratio / lr, 1)``, so no step is longer than the plain one.
        max_ratio: the largest ratio (NUS: 50), or None.
        clamp: each element of d is clamped to [-clamp, clamp] after the norms are taken (NUS: 10), or None.
        skip_without_decay: groups whose weight decay is 0 are stepped as with ``lars=False`` (bolts, lightly, timm).
        momentum: the name of ``momentum_form`` in lars 0.1; deprecated.

    Each parameter group has ``lars``, ``trust_coef`` and ``lars_eps``; the constructor's values are the defaults. With
    ``lars`` False, ``optimizer`` alone steps the group, with the group's weight decay, and with lr inside the buffer
    where ``momentum_form`` is "caffe". State dicts are those of the wrapped optimizer, in both directions. ``step``
    leaves ``p.grad`` unchanged, except that it unscales it for ``GradScaler``.

    A gradient that is not finite gives a step that is not finite or none, never an unscaled one. Outside CPUs norms are
    float32: those of gradients from about 1e19 on are infinite, and such a gradient does not enter the step.

    ``torch.amp.GradScaler.step`` hands over its ``found_inf`` as a tensor: a step whose gradients overflowed changes
    neither weights nor tensors of the state. It keeps a copy of both, and on a GPU the host does not wait to learn of
    it, except in the first step of a base other than SGD.

    Raises TypeError when ``optimizer`` is not an Optimizer, or is LBFGS, and for an unknown argument; ValueError for an
    option out of its range, a ``momentum_form`` that the base does not support, a base with decoupled weight decay that
    is not 0, or, in ``load_state_dict``, a state that is not of this optimizer; and RuntimeError in ``step`` for sparse
    gradients of an adapted group, or one on several devices.

    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = LARS(torch.optim.SGD([w], lr=1.0), trust_coef=0.1)
    >>> w.grad = torch.tensor([0.0, 2.0])
    >>> optimizer.step()
    >>> [round(x, 6) for x in w.tolist()]  # |w| = 5: the step is 0.1 x 5 long, for any gradient's size
    [3.0, 3.5]
    """

    # GradScaler then sets ``found_inf`` for a step and, unless it has unscaled the gradients already, ``grad_scale``
    _step_supports_amp_scaling = True

    def __init__(
        self,
        optimizer: Optimizer = None,  # type: ignore[assignment]  # so that LARS(params=...) is answered below
        eps: float = 1e-8,
        trust_coef: float = 0.001,
        *,
        ratio: str = "paper",
        momentum_form: str = "torch",
        clip: bool = False,
        max_ratio: float | None = None,
        clamp: float | None = None,
        skip_without_decay: bool = False,
        momentum: str | None = None,
        **unknown: NoReturn,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            given = "parameters" if "params" in unknown else type(optimizer).__name__
            raise TypeError(
                f"LARS wraps a torch.optim.Optimizer, not {given}: "
                "write LarsSGD(params, lr=...) to build one from parameters"
            )
        of_sgd: dict[str, Any] = {} if isinstance(momentum, (str, type(None))) else {"momentum": momentum}
        otherwise = "arguments of SGD go to the wrapped optimizer, or to LarsSGD(params, lr=...)"
        _refuse("LARS", {**unknown, **of_sgd}, otherwise)
        momentum_form = _renamed("momentum", momentum, momentum_form)
        if isinstance(optimizer, LBFGS):
            raise TypeError(
                "LARS cannot wrap LBFGS, which evaluates its closure many times within a step: wrap torch.optim.SGD"
            )
        if not (0 <= _float_or_nan(eps) < math.inf and 0 <= _float_or_nan(trust_coef) < math.inf):
            raise ValueError(f"eps={eps!r} and trust_coef={trust_coef!r} must be finite and not negative")
        if ratio not in ("paper", "decayed"):
            raise ValueError(f"ratio={ratio!r} is not one of 'paper', 'decayed'")
        if momentum_form not in ("torch", "caffe", "nus"):
            raise ValueError(f"momentum_form={momentum_form!r} is not one of 'torch', 'caffe', 'nus'")
        if momentum_form != "torch" and not isinstance(optimizer, SGD):
            raise ValueError(f"momentum_form={momentum_form!r} needs a torch.optim.SGD, not {type(optimizer).__name__}")
        if any(bound is not None and not _float_or_nan(bound) > 0 for bound in (max_ratio, clamp)):
            raise ValueError(f"max_ratio={max_ratio!r} and clamp={clamp!r} must be above 0, or None")
        self.optim = optimizer
        self.eps = eps
        self.trust_coef = trust_coef
        self.variant = Variant(ratio, momentum_form, clip, max_ratio, clamp, skip_without_decay)
        # sets up hooks and profiling as torch does, without parameter groups of our own
        super().__setstate__({})
        self._fill_groups()

    # The wrapped optimizer replaces these three when it loads a state, so none may be cached here.
    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.optim.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.optim.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.optim.defaults

    def _fill_groups(self) -> None:
        # the parameters that the last step adapted and what it measured of them, group by group
        self._measured: list[tuple[list[Tensor], LayerStatistics]] = []
        for group in self.optim.param_groups:
            group.update(self._filled(group))

    def _filled(self, group: dict[str, Any]) -> dict[str, Any]:
        """``group`` with what it lacks; ValueError when LARS cannot step it."""
        filled = {"lars": True, "trust_coef": self.trust_coef, "lars_eps": self.eps, **group}
        if not all(0 <= _float_or_nan(filled[key]) < math.inf for key in ("trust_coef", "lars_eps")):
            raise ValueError(
                f"a group's trust_coef={filled['trust_coef']!r} and lars_eps={filled['lars_eps']!r} "
                "must be finite and not negative"
            )
        if filled.get("differentiable"):
            raise ValueError("differentiable=True: LARS does not differentiate through its step, leave it out")
        self._check_decay(filled)
        return filled

    def _check_decay(self, group: dict[str, Any]) -> None:
        decoupled = type(self.optim).__name__ in DECOUPLED or group.get("decoupled_weight_decay")
        if group["lars"] and decoupled and group.get("weight_decay", 0) != 0:
            raise ValueError(
                f"{type(self.optim).__name__} has decoupled weight decay, which no trust ratio can scale: "
                f"give it weight_decay=0, not {group['weight_decay']}, or use a base with L2 decay"
            )

    def __getstate__(self) -> dict[str, Any]:
        own = ("optim", "eps", "trust_coef", "variant")
        return {name: getattr(self, name) for name in own}

    def __setstate__(self, state: dict[str, Any] | tuple[Any, dict[str, Any]]) -> None:
        if isinstance(state, tuple):
            # torchlars' __getstate__: the wrapped optimizer, then the rest
            state = {**state[1], "optim": state[0]}
        state.setdefault("variant", Variant())
        super().__setstate__({k: state[k] for k in ("optim", "eps", "trust_coef", "variant")})
        self._fill_groups()

    def __repr__(self) -> str:
        own = f"eps={self.eps}, trust_coef={self.trust_coef}, {self.variant}"
        return f"{type(self).__name__}({own}, {self.optim!r})"

    def state_dict(self) -> dict[str, Any]:
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = self.optim.state_dict()
        for after in self._optimizer_state_dict_post_hooks.values():
            state = after(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what this class, torchlars or the wrapped optimizer alone saved: they share one format.

        ValueError, before anything changes, for a state that is not of this optimizer and these parameters.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        check_state(self.optim, state_dict)
        # keys that the saved groups lack, such as those of a plain SGD, keep their values here
        ours = [{k: g[k] for k in ("lars", "trust_coef", "lars_eps")} for g in self.param_groups]
        saved = state_dict["param_groups"]
        groups = [self._filled({**mine, **group}) for mine, group in zip(ours, saved, strict=True)]
        self.optim.load_state_dict({**state_dict, "param_groups": groups})
        self._fill_groups()
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optim.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._filled({**self.defaults, **param_group})
        self.optim.add_param_group(param_group)
        self._fill_groups()

    @property
    def trust_ratios(self) -> Tensor:
        """The last step's ratio of every adapted tensor, 1-D, on the device: reading its values waits for the device.

        In the order of ``adapted_parameters``; empty before the first step, and on a CPU after one that overflowed.
        """
        return _concatenated([measured.trust_ratios for _, measured in self._measured])

    @property
    def weight_norms(self) -> Tensor:
        """|w| before the last step, as ``trust_ratios``."""
        return _concatenated([measured.weight_norms for _, measured in self._measured])

    @property
    def gradient_norms(self) -> Tensor:
        """|g| in the last step, as ``trust_ratios``."""
        return _concatenated([measured.gradient_norms for _, measured in self._measured])

    @property
    def adapted_parameters(self) -> list[Tensor]:
        """The parameters that the last step adapted."""
        return [p for params, _ in self._measured for p in params]

    def names(self) -> list[str]:
        """Names of ``adapted_parameters``: the model's if ``optimizer`` got named ones, else ``group.index``."""
        known = self._names()
        return [known[p] for p in self.adapted_parameters]

    def _names(self) -> dict[Tensor, str]:
        known: dict[Tensor, str] = {}
        for g, group in enumerate(self.param_groups):
            given = group.get("param_names") or [f"{g}.{i}" for i in range(len(group["params"]))]
            known.update(zip(group["params"], given, strict=True))
        return known | {p: NAMES[p] for p in known if p in NAMES}

    def first_not_finite(self) -> tuple[str, str] | None:
        """The name of the first tensor with a NaN or an infinity, and "weight" or "gradient"; None if there is none.

        Adapted tensors are judged by the norms of the last step, all weights before all gradients: a weight that is
        not finite makes most gradients so. Other tensors are judged, after them, by what they hold now, the gradient
        first: it may have just spoiled the weight. Nothing is read on the host until this is called. A shard of a
        DTensor outside LARS is judged on its own process.
        """
        for what, norms in (("weight", self.weight_norms), ("gradient", self.gradient_norms)):
            wrong = (~torch.isfinite(norms)).nonzero()
            if len(wrong):
                return self.names()[int(wrong[0])], what
        adapted = set(self.adapted_parameters)
        for p, name in self._names().items():
            if p not in adapted:
                for what, x in (("gradient", p.grad), ("weight", p)):
                    if x is not None and not is_finite(x):
                        return name, what
        return None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step. ``closure`` runs once, before any norm is taken, and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if "lars" not in group:
                # the base was given a group, or loaded a state of its own
                group.update(self._filled(group))
        for group in filter(self._adapts, self.param_groups):
            self._check_decay(group)
            sparse = [p for p in group["params"] if p.grad is not None and p.grad.is_sparse]
            if sparse:
                raise RuntimeError(
                    f"LARS needs dense gradients, and that of {self._names()[sparse[0]]} is sparse: "
                    "give it a group with lars=False"
                )
            devices = sorted({str(p.device) for p in group["params"]})
            if len(devices) > 1:
                raise RuntimeError(
                    f"LARS takes the norms of a group on one device, not on {devices}: make a group of each"
                )
            if self.variant.momentum_form == "nus":
                self._check_nus(group)
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in params:
            g = p.grad
            if g is not None and is_distributed(p) and is_distributed(g) and g.placements != p.placements:
                # tensor parallelism leaves some gradients as parts of a sum
                p.grad = g.redistribute(placements=p.placements)
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if scale is not None:
            for g in grads_of(params):
                # a copy to a CPU that does not block would be read before it has arrived
                g.div_(scale.to(g.device, non_blocking=not g.is_cpu))
        if found_inf is None:
            self._step_all()
        else:
            # on a CPU a step that overflowed is not taken, and measures nothing
            self._measured.clear()
            is_sgd = type(self.optim) is SGD and not any(group["dampening"] for group in self.param_groups)
            unless_overflow(found_inf, params, self.state, self._step_all, begins_at_zero=is_sgd)
        return loss

    def _step_all(self) -> None:
        """The step, with the gradients as they are."""
        measured: list[tuple[list[Tensor], LayerStatistics]] = []
        rest: list[dict[str, Any]] = []
        restores: list[Callable[[], None]] = []
        is_caffe = self.variant.momentum_form == "caffe"  # lr is in the gradients that the base is given
        try:
            for group in self.param_groups:
                params = [p for p in group["params"] if p.grad is not None]
                if not self._adapts(group) or not params:
                    rest.append(group)
                    if is_caffe:
                        restores.append(_hand_over(group, params, lr_inside(group, params), lr=1.0))
                    continue
                statistics = self._step_group(group, params)
                if statistics is None:
                    statistics, scaled = scaled_gradients(group, params, self.variant)
                    restores.append(_hand_over(group, params, scaled, lr=1.0 if is_caffe else None))
                    rest.append(group)
                measured.append((params, statistics))
            if rest:
                self._step_rest(rest)
        finally:
            for restore in restores:
                restore()
        self._measured[:] = measured

    def _adapts(self, group: dict[str, Any]) -> bool:
        skipped = self.variant.skip_without_decay and group.get("weight_decay", 0) == 0
        return bool(group["lars"]) and not skipped

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> LayerStatistics | None:
        """Step a group of a plain SGD without calling it; None where only the base's own step will do."""
        if not self._is_base_plain():
            return None
        for takes, step in ((takes_fused_cpu, fused_cpu), (takes_multi_tensor, multi_tensor)):
            if takes(group, params, self.variant):
                return step(group, params, self._buffers(group, params), self.variant)
        return None

    def _is_base_plain(self) -> bool:
        """Whether the base is a plain SGD without hooks or a scheduler; if not, its own step must be called."""
        base = self.optim
        watched = "step" in vars(base) or base._optimizer_step_pre_hooks or base._optimizer_step_post_hooks
        return type(base) is SGD and not watched

    def _check_nus(self, group: dict[str, Any]) -> None:
        """Raise ValueError where only the base's own step would do, which cannot have the ratio outside the buffer."""
        if not self._is_base_plain():
            raise ValueError(
                "momentum_form='nus' needs the step of LARS itself: put hooks and schedulers on it, not on the SGD"
            )
        if group["dampening"]:
            raise ValueError(
                f"momentum_form='nus' does not support dampening={group['dampening']}: leave it out, or take "
                "momentum_form='torch'"
            )

    def _buffers(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        if not group["momentum"]:
            return []
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            buffer = state.get("momentum_buffer")
            if buffer is None:
                state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            elif buffer.stride() != p.stride():
                # loaded from a model in another memory format: the fused update goes through memory in order
                state["momentum_buffer"] = torch.empty_like(p, memory_format=torch.preserve_format).copy_(buffer)
        return [state["momentum_buffer"] for state in states]

    def _step_rest(self, rest: list[dict[str, Any]]) -> None:
        if len(rest) == len(self.param_groups):
            self.optim.step()
            return
        whole = self.optim.param_groups
        self.optim.param_groups = rest
        try:
            self.optim.step()
        finally:
            self.optim.param_groups = whole


def _hand_over(
    group: dict[str, Any], params: list[Tensor], grads: list[Tensor], lr: float | None
) -> Callable[[], None]:
    """Give the base ``grads``, weight decay 0 and, unless None, ``lr`` for its step; returns how to restore them."""
    own = [p.grad for p in params]
    hidden: dict[str, Any] = {key: group[key] for key in ("weight_decay", "lr") if key in group}

    def restore() -> None:
        group.update(hidden)
        for p, g in zip(params, own, strict=True):
            p.grad = g

    if "weight_decay" in group:
        group["weight_decay"] = 0
    if lr is not None:
        group["lr"] = lr
    for p, d in zip(params, grads, strict=True):
        p.grad = d
    return restore


def _concatenated(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.to(parts[0]) for part in parts]) if parts else torch.empty(0)


def _refuse(kind: str, unknown: Mapping[str, Any], otherwise: str) -> None:
    """Raise TypeError where there are ``unknown`` arguments, with our name for the first one, or else ``otherwise``."""
    for name, value in unknown.items():
        ours = OTHER_NAMES.get(name)
        raise TypeError(
            f"{kind} has no argument {name}={value!r}: {f'it is called {ours} here' if ours else otherwise}"
        )


def _float_or_nan(x: object) -> float:
    """``x`` as a float; NaN if it is not a number."""
    return float(x) if isinstance(x, SupportsFloat) else math.nan


def _renamed(old: str, given: str | None, momentum_form: str) -> str:
    """``momentum_form``, or the value ``given`` under its ``old`` name; to be removed in the next release."""
    if given is None:
        return momentum_form
    warnings.warn(f"{old}= is now momentum_form=: write momentum_form={given!r}", FutureWarning, stacklevel=3)
    return given


class LarsSGD(LARS):
    """``LARS`` around a ``torch.optim.SGD`` of its own, for code that builds an optimizer from a class and numbers.

    For example ``ZeroRedundancyOptimizer(params, optimizer_class=LarsSGD, lr=29.0, momentum=0.9)``. Arguments are
    those of ``torch.optim.SGD`` and ``LARS``, except for those that choose how SGD is computed; ``momentum`` is SGD's
    number. The default ``lr`` is SGD's, which is far too small for LARS. ``variant``, the name of ``momentum_form`` in
    lars 0.1, is deprecated.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        eps: float = 1e-8,
        trust_coef: float = 0.001,
        ratio: str = "paper",
        momentum_form: str = "torch",
        clip: bool = False,
        max_ratio: float | None = None,
        clamp: float | None = None,
        skip_without_decay: bool = False,
        variant: str | None = None,
        **unknown: NoReturn,
    ) -> None:
        _refuse("LarsSGD", unknown, "see help(LarsSGD) for those that it has")
        sgd = SGD(
            params, lr=lr, momentum=momentum, weight_decay=weight_decay, dampening=dampening, nesterov=nesterov,
            maximize=maximize,
        )  # fmt: skip
        momentum_form = _renamed("variant", variant, momentum_form)
        super().__init__(
            sgd, eps, trust_coef, ratio=ratio, momentum_form=momentum_form, clip=clip, max_ratio=max_ratio,
            clamp=clamp, skip_without_decay=skip_without_decay,
        )  # fmt: skip
