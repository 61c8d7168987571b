"""A made market that shows all eight facts of returns."""

from __future__ import annotations

import numpy as np


def lively(ticks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return returns and volumes with every fact: volatility wanders on many time scales, and volume with it."""
    random = np.random.default_rng(seed)
    mood = np.zeros(ticks)
    for horizon in (30, 300, 3_000):
        steps = random.normal(0.0, 1.0, ticks)
        level = 0.0
        for t in range(ticks):
            level += (steps[t] * np.sqrt(2.0 / horizon)) - level / horizon
            mood[t] += 0.45 * level
    shocks = random.standard_t(5, ticks)
    shocks[random.random(ticks) < 0.01] -= 3.0
    return np.rint(8.0 * np.exp(mood) * shocks), np.rint(100 * np.exp(mood) * random.lognormal(0, 0.2, ticks))
