"""The optimizer that a configuration names."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Optimizer

from lars import LARS
from train.config import LARSConfig, OptimizerConfig


def make_optimizer(params: Iterable[nn.Parameter], config: OptimizerConfig) -> Optimizer:
    """SGD over all ``params``, with LARS around it where ``config`` is LARS's; none is left out."""
    sgd = SGD(params, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    if isinstance(config, LARSConfig):
        return LARS(sgd, eps=config.eps, trust_coef=config.trust_coef)
    return sgd
