"""The learning rate as a pure function of the step: linear warm-up, then a polynomial to zero."""


def learning_rate(
    step: int, *, base: float, steps: int, warmup_steps: float, power: float, from_warmup: bool = False
) -> float:
    """The lr of ``step`` (from 0) in a run of ``steps``; nothing to store and nothing to restore.

    In the warm-up ``base * (step + 1) / warmup_steps``; after it ``base * (1 - step / steps) ** power``. The
    polynomial counts from step 0, as in the authors' Caffe (NVIDIA/caffe, src/caffe/solvers/sgd_solver.cpp,
    ``GetLearningRate``), so lr falls to 0.892 of ``base`` where a warm-up of 5 in 90 epochs ends. With
    ``from_warmup`` it counts from the end of the warm-up, as MLPerf and NUS-HPC-AI-Lab have it.

    >>> [learning_rate(t, base=8.0, steps=4, warmup_steps=2, power=2) for t in range(4)]
    [4.0, 8.0, 2.0, 0.5]
    """
    if step < warmup_steps:
        return base * min((step + 1) / warmup_steps, 1.0)
    start = warmup_steps if from_warmup else 0.0
    return base * (1 - (step - start) / (steps - start)) ** power
