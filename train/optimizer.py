"""The optimizers: the configuration of each, and how it is made.

A new one is a file in ``configs/optimizer`` and an entry of ``KINDS``. torch is imported only when an optimizer
is made, so that the command line is checked first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.errors import UserError
from train.keys import key

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from lars import LARS

# the names of the layers measured in the last step, and each measured quantity
NamedStatistics = tuple[list[str], "dict[str, Tensor]"]


@dataclass(kw_only=True)
class OptimizerConfig:
    name: str
    lr: float = key(least=0, most=1e38)  # of float32
    weight_decay: float = key(least=0, most=1e38)
    variance_reduction: bool
    variance_groups: int | None = key(least=2)

    def check(self) -> None:
        """Raise UserError for values that do not go together."""

    def check_groups(self, micro_batches: int, processes: int = 1) -> None:
        """Raise UserError unless the ``micro_batches`` of a step form whole groups on each of ``processes``."""
        if not self.variance_reduction:
            return
        if micro_batches == 1:
            raise UserError(
                "optimizer.variance_reduction=true compares the micro-batches of a step, and here it has one: "
                "give a smaller batch.micro that divides batch.total"
            )
        groups = self.variance_groups or micro_batches
        if micro_batches % groups or groups % processes:
            shared = f" on {processes} processes" if processes > 1 else ""
            raise UserError(
                f"optimizer.variance_groups={groups} does not divide the {micro_batches} micro-batches of a step"
                f"{shared} into whole ones: give null, so that each micro-batch is one"
            )


@dataclass(kw_only=True)
class SGDConfig(OptimizerConfig):
    momentum: float = key(least=0, below=1)
    nesterov: bool
    exclude_norm_and_bias: bool

    def check(self) -> None:
        if self.nesterov and not self.momentum:
            raise UserError("optimizer.nesterov=true needs a momentum: give optimizer.momentum=0.9, or leave it out")


@dataclass(kw_only=True)
class LARSConfig(SGDConfig):
    trust_coef: float = key(least=0, most=1e38)
    eps: float = key(least=0, most=1e38)
    ratio: str = key(one_of=("paper", "decayed"))
    momentum_form: str = key(one_of=("torch", "caffe", "nus"))
    momentum_correction: bool
    clip: bool
    max_ratio: float | None = key(above=0, most=1e38)
    clamp: float | None = key(above=0, most=1e38)

    def check(self) -> None:
        super().check()
        if self.momentum_correction and self.momentum_form != "caffe":
            raise UserError(
                "optimizer.momentum_correction=true is for optimizer.momentum_form=caffe: with "
                f"{self.momentum_form} lr is already outside the buffer"
            )


def make_sgd(model: nn.Module, config: SGDConfig) -> Optimizer:
    from torch.optim import SGD

    from lars import split_parameters

    groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if config.exclude_norm_and_bias:
        groups = split_parameters(model, config.weight_decay)
    return SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
    )


def make_lars(model: nn.Module, config: LARSConfig) -> LARS:
    """LARS around SGD."""
    from lars import LARS

    return LARS(
        make_sgd(model, config),
        eps=config.eps,
        trust_coef=config.trust_coef,
        ratio=config.ratio,
        # v = m (lr_t / lr_{t-1}) v + lr_t d is lr_t times the buffer of torch's form: the same steps
        momentum_form="torch" if config.momentum_correction else config.momentum_form,
        clip=config.clip,
        max_ratio=config.max_ratio,
        clamp=config.clamp,
    )


def lars_statistics(model: nn.Module, lars: LARS) -> NamedStatistics:
    """Trust ratio, weight norm and gradient norm of every adapted layer in the last step; none before the first."""
    known = {id(p): name for name, p in model.named_parameters()}
    names = [known[id(p)] for p in lars.adapted_parameters]
    return names, {
        "trust_ratio": lars.trust_ratios,
        "weight_norm": lars.weight_norms,
        "gradient_norm": lars.gradient_norms,
    }


def adapted_norms(model: nn.Module, lars: LARS) -> dict[str, float]:
    """The norm of the weights, as they are now, of every layer that LARS adapts."""
    import torch

    adapted = {p for group in lars.param_groups if group["lars"] for p in group["params"]}
    layers = {name: p.detach() for name, p in model.named_parameters() if p in adapted}
    if not layers:
        return {}
    return dict(zip(layers, torch.stack(torch._foreach_norm(list(layers.values()))).tolist(), strict=True))


@dataclass(frozen=True)
class Kind:
    """An optimizer: its configuration, how it is made, and what there is to know of the layers that it adapts."""

    config: type[OptimizerConfig]
    make: Callable[[nn.Module, Any], Optimizer]
    layer_statistics: Callable[[nn.Module, Any], NamedStatistics] = lambda model, optimizer: ([], {})
    adapted_norms: Callable[[nn.Module, Any], dict[str, float]] = lambda model, optimizer: {}


KINDS = {"sgd": Kind(SGDConfig, make_sgd), "lars": Kind(LARSConfig, make_lars, lars_statistics, adapted_norms)}


def config_class(name: str) -> type[OptimizerConfig]:
    if name not in KINDS:
        raise UserError(f"optimizer.name={name} is not one of {', '.join(KINDS)}")
    return KINDS[name].config


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The optimizer that ``config`` describes, over all parameters of ``model`` that are not frozen."""
    return KINDS[config.name].make(model, config)
