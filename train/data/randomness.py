"""Randomness as a pure function of what it is for: no state to save, the same on any number of processes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = 0x9E3779B97F4A7C15


def random_bits(*key: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for each entry of ``key``, non-negative integers or arrays of them that broadcast.

    SplitMix64 (Steele, Lea, Flood 2014) chained over the parts of the key. It is integer arithmetic modulo 2^64, which
    cannot change between releases of numpy.

    >>> hex(int(random_bits(1, 2)))
    '0xc7667e4957d18953'
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in key:
            state = _mix(state * np.uint64(_GOLDEN) + np.asarray(part, np.uint64) + np.uint64(_GOLDEN))
    return np.asarray(state)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(*key: ArrayLike) -> NDArray[np.float64]:
    """A number in [0, 1) for each entry of ``key``, from the upper 53 bits of ``random_bits``."""
    return (random_bits(*key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(n: int, *key: ArrayLike) -> NDArray[np.int64]:
    """An integer in [0, n) for each entry of ``key``."""
    return (uniform(*key) * n).astype(np.int64)


# The first part of a key is the purpose of the number, so that no two purposes share a stream.
ORDER, FLIP, SHIFT_X, SHIFT_Y, CROP = range(1, 6)


def epoch_order(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    """The order of the ``images`` in ``epoch``: a permutation of ``range(images)``."""
    return np.argsort(random_bits(ORDER, seed, epoch, np.arange(images)), kind="stable")
