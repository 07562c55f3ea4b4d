"""The learning rate as a pure function of the step: linear warm-up, then polynomial, cosine or step decay."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from train.keys import key
from train.plan import Plan


@dataclass(kw_only=True)
class ScheduleConfig:
    decay: str = key(one_of=("poly", "cosine", "step"))
    power: float = key(least=0)
    end_lr: float = key(least=0, most=1e38)
    milestones: list[int] = key(ascending=True)
    factor: float = key(least=0, most=1)
    origin: str = key(one_of=("start", "warmup"))
    warmup_lr: float = key(least=0, most=1e38)
    warmup_epochs: float = key(least=0)


def make_schedule(config: ScheduleConfig, lr: float, plan: Plan) -> Callable[[int], float]:
    """The learning rate of each step of ``plan``, counted from 0; there is nothing to store or restore.

    Where the batch grows, a step has the lr that the first batch has as many epochs into the run.

    In the warm-up it rises linearly from ``warmup_lr`` and reaches ``lr`` in the warm-up's last step. Afterwards,
    with ``p`` the fraction of the run that is over::

        poly    end_lr + (lr - end_lr) (1 - p)^power
        cosine  end_lr + (lr - end_lr) (1 + cos(pi p)) / 2
        step    lr factor^(milestones passed)

    With ``origin="start"`` ``p`` counts from step 0, as in the authors' Caffe (NVIDIA/caffe,
    src/caffe/solvers/sgd_solver.cpp, ``GetLearningRate``), so that poly(2) is at 0.892 of ``lr`` after a warm-up of
    5 in 90 epochs. With ``origin="warmup"`` it counts from the end of the warm-up, as MLPerf and NUS-HPC-AI-Lab do.
    """
    # rounded, because 2.2 epochs of 25 steps would be 55.00000000000001
    warmup_steps = round(config.warmup_epochs * plan.steps_per_epoch, 6)
    milestones = [epoch * plan.steps_per_epoch for epoch in config.milestones]
    start = warmup_steps if config.origin == "warmup" else 0.0

    def poly(p: float) -> float:
        return config.end_lr + (lr - config.end_lr) * (1 - p) ** config.power

    def cosine(p: float) -> float:
        return config.end_lr + (lr - config.end_lr) * ((1 + math.cos(math.pi * p)) / 2)

    def learning_rate(step: int) -> float:
        now = round(plan.as_first(step), 6)
        if now < warmup_steps:
            return config.warmup_lr + (lr - config.warmup_lr) * min(plan.as_first(step + 1) / warmup_steps, 1.0)
        if config.decay == "step":
            return lr * config.factor ** sum(now >= milestone for milestone in milestones)
        p = (now - start) / (plan.epochs * plan.steps_per_epoch - start)
        return poly(p) if config.decay == "poly" else cosine(p)

    return learning_rate
