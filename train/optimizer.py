"""The optimizer that a configuration names."""

from torch import nn
from torch.optim import SGD, Optimizer

from lars import LARS, split_parameters
from train.config import LARSConfig, OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """SGD over all parameters of ``model``, with LARS around it where ``config`` is LARS's."""
    whole = [{"params": list(model.parameters())}]
    groups = split_parameters(model, config.weight_decay) if config.exclude_norm_and_bias else whole
    sgd = SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
    )
    if not isinstance(config, LARSConfig):
        return sgd
    return LARS(
        sgd,
        eps=config.eps,
        trust_coef=config.trust_coef,
        ratio=config.ratio,
        # v = m (lr_t / lr_{t-1}) v + lr_t d is lr_t times the buffer of torch's form: the same steps
        momentum="torch" if config.momentum_correction else config.momentum_form,
        clip=config.clip,
        max_ratio=config.max_ratio,
        clamp=config.clamp,
    )
