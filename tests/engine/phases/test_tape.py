"""What residents make of outside flow: nothing without it, a square root of it up to a daily volume, no free lunch."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.markets import GOOD_FIRST, GOOD_LAST, LABOUR, MARKETS, OIL
from engine.phases._tape import SHIFT_MAX, deserved_move, read_tape

DAILY_VOLUME, DAILY_SD, PER_LOT = 2_400.0, 60.0, 0.15


class Tape:
    """The tape of one world; every market trades 100 lots a tick."""

    def __init__(self) -> None:
        self.volume = np.full(MARKETS, 100, np.int64)
        self.variance = np.full(MARKETS, DAILY_SD**2 / 24.0)
        self.kyle_xy, self.kyle_xx = np.full(MARKETS, PER_LOT), np.ones(MARKETS)
        self.daily_volume = np.full(MARKETS, DAILY_VOLUME)
        self.flow, self.move = np.zeros(MARKETS), np.zeros(MARKETS)
        self.shift = np.zeros(MARKETS, np.int64)

    def tick(self, lots: int) -> int:
        """Let outside agents buy (sell, below zero) so many lots in every market; return oil's shift."""
        read_tape(
            np.full(MARKETS, lots, np.int64), self.volume, self.variance, self.kyle_xy, self.kyle_xx,
            self.daily_volume, self.flow, self.move, self.shift,
        )  # fmt: skip
        return int(self.shift[OIL])


def test_without_outside_flow_no_quote_moves() -> None:
    tape = Tape()

    shifts = [tape.tick(0) for _ in range(500)]

    assert not any(shifts)
    assert not tape.flow.any()
    assert not tape.move.any()


def test_markets_without_traders_are_left_alone() -> None:
    tape = Tape()

    tape.tick(500)

    assert tape.shift[OIL] != 0
    assert not tape.shift[LABOUR]
    assert not tape.shift[GOOD_FIRST : GOOD_LAST + 1].any()


@given(st.floats(-50.0, 50.0), st.floats(0.0, 1_000.0), st.floats(0.0, 5_000.0))
def test_a_move_is_odd_rises_with_size_and_is_linear_beyond_a_day(size: float, sd: float, linear: float) -> None:
    assert deserved_move(-size, sd, linear) == -deserved_move(size, sd, linear)
    assert deserved_move(abs(size) + 0.5, sd, linear) >= deserved_move(abs(size), sd, linear)
    if abs(size) >= 1.0:
        more = deserved_move(abs(size) + 1.0, sd, linear) - deserved_move(abs(size), sd, linear)
        assert more == pytest.approx(linear, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("size", [0.0001, 0.01, 0.25, 1.0])
def test_up_to_a_daily_volume_a_move_is_a_square_root(size: float) -> None:
    assert deserved_move(size, DAILY_SD, 360.0) == pytest.approx(DAILY_SD * sqrt(size))


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.3])
def test_an_order_worked_over_a_day_moves_the_price_by_the_square_root(share: float) -> None:
    """What orders move (PER_LOT each) and what residents add or take back come to daily sd x sqrt(share)."""
    tape, moved = Tape(), 0.0
    for _ in range(24):
        lots = round(share * DAILY_VOLUME / 24)
        moved += lots * PER_LOT + 0.7 * tape.tick(lots)

    deserved = DAILY_SD * sqrt(24 * round(share * DAILY_VOLUME / 24) / DAILY_VOLUME)
    # part of the flow fades within the day, half a bp is lost in rounding, the last part of a large shift comes later
    assert moved == pytest.approx(deserved, rel=0.15, abs=1.5)


def test_a_small_order_is_followed_and_a_large_one_finds_sellers() -> None:
    assert Tape().tick(20) > 0
    assert Tape().tick(2_000) < 0


def test_the_move_fades() -> None:
    """Six days after the last order less than a third of the price move is left: quotes come back."""
    tape = Tape()
    moved = sum(20 * PER_LOT + 0.7 * tape.tick(20) for _ in range(24))

    later = moved + sum(0.7 * tape.tick(0) for _ in range(144 * 2))

    assert abs(later) < moved / 3


@pytest.mark.parametrize("wait", [0, 12, 100])
@pytest.mark.parametrize("lots", [2, 50, 300, -2, -50, -300])
def test_a_round_trip_never_earns(lots: int, wait: int) -> None:
    """Buy for twelve ticks, wait, sell for twelve, or the other way round: the move is never sold dearer."""
    tape, at, earned = Tape(), 0.0, 0.0

    for traded in [lots] * 12 + [0] * wait + [-lots] * 12:
        at += traded * PER_LOT
        earned -= traded * at
        at += 0.7 * tape.tick(traded)

    assert earned < 0.0


def test_no_shift_is_larger_than_the_largest() -> None:
    tape = Tape()

    shifts = [tape.tick(10**6 * sign) for sign in (1, -1, 1, 1, -1)]

    assert max(map(abs, shifts)) == SHIFT_MAX


def test_a_market_without_history_does_not_break() -> None:
    tape = Tape()
    tape.daily_volume[:] = tape.variance[:] = tape.kyle_xx[:] = 0.0

    assert abs(tape.tick(7)) <= SHIFT_MAX
    assert np.isfinite(tape.flow).all()
    assert np.isfinite(tape.move).all()
