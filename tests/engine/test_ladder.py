"""The price ladder: its vectors, its order, and the way between prices and levels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ladder import (
    LAST_LEVEL,
    LEVELS,
    REFERENCE_HIGH,
    REFERENCE_LOW,
    level_above,
    level_below,
    prices,
    window,
)
from tests.support.naive_ladder import naive_prices

VECTORS = {0: 10_000, 1: 10_001, 2: 10_002, 46_054: 1_000_000, 76_013: 20_000_350, 184_399: 1_018_465_744_168}


def test_the_ladder_has_the_prices_of_the_specification() -> None:
    """P[j] = 10^4 x 1.0001^j rounded, at the levels the specification names."""
    table = prices()

    assert {level: int(table[level]) for level in VECTORS} == VECTORS
    assert len(table) == LEVELS == LAST_LEVEL + 1


def test_every_price_is_the_exact_power_rounded() -> None:
    """Checked with exact fractions where they are small enough to compute."""
    table = prices()
    ratio = Fraction(10_001, 10_000)

    assert all(int(table[level]) == round(10_000 * ratio**level) for level in range(0, 2_000, 97))


def test_every_price_is_that_of_exact_decimals() -> None:
    """All of them, against 40 decimal places."""
    assert prices().tolist() == naive_prices()


def test_the_ladder_rises_strictly() -> None:
    """So a level has one price and a price one level."""
    assert bool((np.diff(prices()) > 0).all())


def test_the_ladder_cannot_be_written() -> None:
    """One table for the whole process."""
    with pytest.raises(ValueError, match="read-only"):
        prices()[0] = 1


@given(st.integers(0, 2 * VECTORS[LAST_LEVEL]))
def test_levels_enclose_a_price(price: int) -> None:
    """level_below is the largest level at or under a price, level_above the smallest at or over it."""
    table = prices()

    below, above = int(level_below(table, price)), int(level_above(table, price))

    assert below == -1 or table[below] <= price
    assert below == LAST_LEVEL or table[below + 1] > price
    assert above == LEVELS or table[above] >= price
    assert above == 0 or table[above - 1] < price


@pytest.mark.parametrize("level", [0, 1, 46_054, LAST_LEVEL])
def test_a_price_of_the_ladder_is_its_own_level(level: int) -> None:
    """Both ways agree on the ladder's own prices."""
    table = prices()

    assert level_below(table, table[level]) == level_above(table, table[level]) == level


def test_prices_beyond_the_ladder_have_no_level() -> None:
    """-1 under it, its length over it."""
    table = prices()

    assert level_below(table, 9_999) == -1
    assert level_above(table, table[-1] + 1) == LEVELS


def test_the_default_window_is_the_one_of_the_specification() -> None:
    """Half the price down and half up, in levels."""
    assert window(0.5) == (6_931, 4_054)


@pytest.mark.parametrize("change", [0.01, 0.02, 0.1, 0.25, 0.37, 0.5])
def test_a_window_is_the_widest_inside_the_change(change: float) -> None:
    """One level more in either direction would pass the bound."""
    down, up = window(change)
    ratio, bound = Fraction(10_001, 10_000), Fraction(repr(change))

    assert ratio**-down >= 1 - bound > ratio ** -(down + 1)
    assert ratio**up <= 1 + bound < ratio ** (up + 1)


def test_the_widest_window_stays_on_the_ladder() -> None:
    """From the lowest and the highest reference level."""
    down, up = window(0.5)

    assert REFERENCE_LOW - down >= 0
    assert REFERENCE_HIGH + up <= LAST_LEVEL
