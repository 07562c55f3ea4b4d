"""The learning rate as a pure function of the step: linear warm-up, then polynomial, cosine or steps."""

import math
from collections.abc import Callable, Sequence

from train.config import Config, Plan


def learning_rate(
    step: int,
    *,
    base: float,
    steps: int,
    warmup_steps: float,
    power: float,
    from_warmup: bool = False,
    decay: str = "poly",
    end: float = 0.0,
    warmup_from: float = 0.0,
    milestones: Sequence[int] = (),
    factor: float = 1.0,
) -> float:
    """The lr of ``step`` (from 0) in a run of ``steps``; nothing to store and nothing to restore.

    In the warm-up it rises from ``warmup_from`` in equal parts to ``base``, which its last step has. After it, with
    ``p`` the share of the run that is over::

        poly    end + (base - end) (1 - p)^power
        cosine  end + (base - end) (1 + cos(pi p)) / 2
        step    base factor^(milestones, in steps, that are over)

    ``p`` counts from step 0, as in the authors' Caffe (NVIDIA/caffe, src/caffe/solvers/sgd_solver.cpp,
    ``GetLearningRate``), so poly(2) is at 0.892 of ``base`` where a warm-up of 5 in 90 epochs ends. With
    ``from_warmup`` it counts from the end of the warm-up, as MLPerf and NUS-HPC-AI-Lab have it.

    >>> [learning_rate(t, base=8.0, steps=4, warmup_steps=2, power=2) for t in range(4)]
    [4.0, 8.0, 2.0, 0.5]
    """
    if step < warmup_steps:
        return warmup_from + (base - warmup_from) * min((step + 1) / warmup_steps, 1.0)
    if decay == "step":
        return base * factor ** sum(step >= milestone for milestone in milestones)
    start = warmup_steps if from_warmup else 0.0
    over = (step - start) / (steps - start)
    return end + (base - end) * ((1 - over) ** power if decay == "poly" else (1 + math.cos(math.pi * over)) / 2)


def schedule_of(config: Config, plan: Plan) -> Callable[[int], float]:
    """lr as a function of the step, with the numbers of ``config``."""
    schedule = config.schedule

    def lr(step: int) -> float:
        return learning_rate(
            step,
            base=config.optimizer.lr,
            steps=plan.steps,
            warmup_steps=schedule.warmup_epochs * plan.steps_per_epoch,
            power=schedule.power,
            from_warmup=schedule.origin == "warmup",
            decay=schedule.decay,
            end=schedule.end_lr,
            warmup_from=schedule.warmup_lr,
            milestones=[epoch * plan.steps_per_epoch for epoch in schedule.milestones],
            factor=schedule.factor,
        )

    return lr
