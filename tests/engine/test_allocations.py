"""What a tick allocates: arrays of the world are made once, and what a tick needs beside them does not grow."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np

from engine.economy import CHECK_EVERY, Economy
from engine.state import array_fields
from tests.support.worlds import RandomBots, small_config

KEPT_MAX = 32_768
"""Bytes that may stay after hundreds of ticks, in the best of three goes: Python frees numbers and small objects when
it likes. One array of 32 prices kept a tick would be three times as much."""
PEAK_DIFFERENCE_MAX = 40_000
"""Bytes a tick of 30,000 residents may need more than one of 3,000: tables of blocks, of which there are more."""


def warm(residents: int, ticks: int = 60, checks: int = CHECK_EVERY) -> Economy:
    """Return a world that has ticked for longer than two days."""
    economy = Economy(small_config(residents=residents), 5, checks=checks)
    for _ in range(ticks):
        economy.advance()
    return economy


def traced(economy: Economy, ticks: int, bots: RandomBots | None = None) -> tuple[int, int]:
    """Return the bytes that stay after so many ticks and the most that a tick needed meanwhile."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(ticks):
        economy.advance() if bots is None else economy.advance(bots.rows(economy, 20))
    gc.collect()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before, peak - before


def test_steady_ticks_keep_nothing() -> None:
    """After hundreds of ticks the memory is that of one report, whatever happened in between."""
    economy = warm(2_000)

    kept = min(traced(economy, 240)[0] for _ in range(3))

    assert kept < KEPT_MAX


def test_ticks_with_outside_actions_keep_nothing() -> None:
    """Orders, loans and agents live in arrays that were there from the start."""
    economy = warm(2_000)
    bots = RandomBots(20, 1)
    for _ in range(48):
        economy.advance(bots.rows(economy, 20))

    kept = min(traced(economy, 120, bots)[0] for _ in range(3))

    assert kept < KEPT_MAX


def test_a_tick_needs_no_memory_for_its_residents() -> None:
    """Ten times the residents, the same scratch: nothing of their number is allocated in a tick, checks included."""
    small, large = (traced(warm(residents, checks=1), 24)[1] for residents in (3_000, 30_000))

    assert large - small < PEAK_DIFFERENCE_MAX
    assert large < 27_000 * 8, "not even one number per resident"


def test_arrays_stay_where_they_are() -> None:
    """Every array of the world is written in place: kernels get the same memory in every tick."""
    economy = warm(2_000, 2)
    places = {item.name: getattr(economy.state, item.name).ctypes.data for item in array_fields()}

    for _ in range(48):
        economy.advance()

    assert {name: getattr(economy.state, name).ctypes.data for name in places} == places


def test_an_array_that_is_kept_would_be_seen() -> None:
    """The measure itself: a world that keeps a copy of its prices each tick fails the test above."""
    economy = warm(2_000)
    kept: list[np.ndarray] = []
    advance = economy.advance

    def hoard() -> None:
        advance()
        kept.append(economy.state.price.copy())

    economy.advance = hoard  # type: ignore[method-assign, assignment]

    assert min(traced(economy, 240)[0] for _ in range(3)) > KEPT_MAX
