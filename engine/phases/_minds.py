"""The psychology of every resident, every tick: moods drift toward the targets of their home market.

Kernels of the behaviour phase. Source: ECONOMY A8; heterogeneous horizons as in HARCH models (Muller et al. 1997).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from engine.phases._kernels import draw_all
from engine.state import (
    MOOD_CONFIDENCE,
    MOOD_DEVIATION,
    MOOD_FEAR,
    MOOD_GREED,
    MOOD_MEMORY,
    MOOD_SENTIMENT,
    MOOD_SQUARE,
)

MIDDLE = 16_384
"""A sentiment of one half, Q15."""
MEMORY_RATE = 12
"""Memory moves by 2^-12 of its distance to the own sentiment a tick."""

Moods = NDArray[np.int16]


@kernel
def drift(
    first: int,
    home: int,
    k0: np.uint32,
    k1: np.uint32,
    targets: NDArray[np.int64],
    sentiment: Moods,
    fear: Moods,
    greed: Moods,
    confidence: Moods,
    memory: Moods,
    draws: NDArray[np.uint32],
    mood_sum: NDArray[np.int64],
) -> None:
    """Move the moods (slices, Q15) of the residents first, first + 1, .. and add the new ones to home's sums.

    targets: shape (4, markets), 0..32700: sentiment, fear, greed, confidence. x += (target - x + r) >> k with
    k = 4, 6, 8, 10 by id mod 4 (half-lives of 11 to 710 ticks) and r the low k bits of the draw; memory with k = 12
    and bits 3-14. draws is scratch.
    """
    draw_all(first, k0, k1, draws)
    mood_sum[MOOD_FEAR, home] += _approach(first, targets[1, home], draws, fear)
    mood_sum[MOOD_GREED, home] += _approach(first, targets[2, home], draws, greed)
    mood_sum[MOOD_CONFIDENCE, home] += _approach(first, targets[3, home], draws, confidence)
    mood_sum[MOOD_SENTIMENT, home] += _approach(first, targets[0, home], draws, sentiment)
    mood_sum[MOOD_MEMORY, home] += _remember(draws, sentiment, memory)
    deviation = square = 0
    for j in range(len(sentiment)):
        distance = int(sentiment[j]) - MIDDLE
        deviation += abs(distance)
        square += distance * distance
    mood_sum[MOOD_DEVIATION, home] += deviation
    mood_sum[MOOD_SQUARE, home] += square


@kernel
def _approach(first: int, target: int, draws: NDArray[np.uint32], mood: Moods) -> int:
    """Move one mood toward its target and return the sum of the new values."""
    total = 0
    goal = np.int32(target)
    # int32 at every step: twice the lanes of int64
    for j in range(len(mood)):
        rate = np.int32(4 + 2 * ((first + j) & 3))
        noise = np.int32(draws[j] & np.uint32((1 << rate) - 1))
        old = np.int32(mood[j])
        new = np.int32(old + np.int32(np.int32(goal - old + noise) >> rate))
        mood[j] = new
        total += int(new)
    return total


@kernel
def _remember(draws: NDArray[np.uint32], sentiment: Moods, memory: Moods) -> int:
    """Move memory toward the own sentiment and return the sum of the new values."""
    total = 0
    for j in range(len(memory)):
        noise = np.int32((draws[j] >> np.uint32(3)) & np.uint32((1 << MEMORY_RATE) - 1))
        old = np.int32(memory[j])
        new = np.int32(old + np.int32(np.int32(np.int32(sentiment[j]) - old + noise) >> np.int32(MEMORY_RATE)))
        memory[j] = new
        total += int(new)
    return total
