"""The behaviour phase against its naive twin on random worlds, its bounds, and its independence of threads."""

from __future__ import annotations

import numpy as np
import pytest

from engine.config import Config
from engine.phases import behaviour
from engine.state import CENTRE, State
from tests.support.naive_behaviour import NaiveBehaviour
from tests.support.random_states import random_state

CONFIG = Config(residents=2_000, max_agents=1, order_book_max=1_024)
SUMS = ("flows", "goods_flow", "dividends", "mood_sum", "mood_count")


def differences(state: State, twin: NaiveBehaviour) -> list[str]:
    """Return the names of the arrays in which the phase and its twin differ."""
    names = [n for n in NaiveBehaviour.CHANGED + SUMS if getattr(state, n).tolist() != getattr(twin, n)]
    return names + ([] if book(state) == twin.book else ["histogram"])


def book(state: State) -> dict[tuple[int, int, int], int]:
    """Return the histogram as (market, side, level) -> lots."""
    merged = state.histogram.sum(axis=0)
    return {
        (m, side, slot - CENTRE + int(state.level[m])): int(merged[m, side, slot])
        for m, side, slot in np.argwhere(merged).tolist()
    }


@pytest.mark.parametrize("seed", range(12))
def test_step_equals_its_naive_twin(seed: int) -> None:
    """Every array, every sum and the next histogram are the twin's, bit for bit."""
    state = random_state(CONFIG, seed)
    twin = NaiveBehaviour(state, CONFIG.max_price_change)

    behaviour.step(state, CONFIG)
    twin.run()

    assert differences(state, twin) == []
