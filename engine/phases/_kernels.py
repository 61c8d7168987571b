"""What the kernels of the behaviour phase share: draws of a block, bits of a draw, division without dividing."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.kernels import kernel
from engine.rng import draw


@kernel
def draw_all(first: int, k0: np.uint32, k1: np.uint32, draws: NDArray[np.uint32]) -> None:
    """Write the draws of the indices first, first + 1, .. under a key."""
    for j in range(len(draws)):
        draws[j] = draw(first + j, k0, k1)


@njit(inline="always")
def bits(h: np.uint32, lowest: int, count: int) -> int:
    """Return so many bits of a draw, from the lowest one on, as a number."""
    return int(np.int64((h >> np.uint32(lowest)) & np.uint32((1 << count) - 1)))


@njit(inline="always")
def quotient(a: int, b: int, reciprocal: float) -> int:
    """Return floor(a / b) for a in [0, 2^63), b > 0 and a quotient below 2^50; reciprocal = 1.0 / b.

    The rounded product is at most one off; the remainder tells. Unlike a division it vectorises.
    """
    guess = int(float(a) * reciprocal)
    rest = a - guess * b
    return guess + (rest >= b) - (rest < 0)
