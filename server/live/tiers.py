"""The past made smaller: what every value did in a day of 24 ticks and in a month of 30 days, a row each.

row = tick | ms | checksum | first value and sum of every column | highest, lowest and last of those in EXTREMES

Made only from rows that are stored and whole, so that making one again gives the same row. The first value is the one
published at the tick the row begins with: points of a tier are points of the ticks.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.markets import HOURS, MARKETS
from server.live.frames import CHANNELS, INFLATION, PSYCHOLOGY, STATE_CHANNELS
from server.live.ring import Ring
from server.live.series import BEGINS, HEAD, SERIES, TICK, UNIX_MS, WIDTH, Rows, Series

DAY: Final = HOURS
MONTH: Final = 30 * HOURS

_PRICE_COLUMN = SERIES["labour.price"].column
#: Columns whose highest, lowest and last values are kept: every value of the whole economy, the price of every market.
EXTREMES: Final = np.array(
    [
        BEGINS[name] + i
        for name in STATE_CHANNELS
        if name in (PSYCHOLOGY, INFLATION)
        for i in range(len(CHANNELS[name].fields))
    ]
    + [_PRICE_COLUMN + m for m in range(MARKETS)]
)
_EXTREME_OF: Final = {int(column): i for i, column in enumerate(EXTREMES)}
_FIRST: Final = HEAD
_TOTAL: Final = _FIRST + WIDTH
_HIGH: Final = _TOTAL + WIDTH
_LOW: Final = _HIGH + len(EXTREMES)
_LAST: Final = _LOW + len(EXTREMES)
BAR_WIDTH: Final = _LAST + len(EXTREMES)
SUM_TICKS_MAX: Final = MONTH
"""A sum of more ticks than this of values below 2^52 would not be below 2^63."""


Column = NDArray[Any]


class Bars(NamedTuple):
    """What a series did in stretches of ticks, oldest first; every member has the shape (stretches,), whole numbers.

    start: first tick. ticks: how many. unix_ms: when the first began. high, low and last are those of the first
    values where the series has no extremes; total is a float when it may be too large for a whole number.
    """

    start: Column
    ticks: Column
    unix_ms: Column
    first: Column
    high: Column
    low: Column
    last: Column
    total: Column


def has_extremes(series: Series) -> bool:
    """Say whether highest, lowest and last values of a series are kept."""
    return series.column in _EXTREME_OF


class Tier:
    """Bars of `step` ticks in a ring, made from the rows of a finer ring as those become whole."""

    def __init__(self, ring: Ring, finer: Ring) -> None:
        self.ring = ring
        self._finer = finer
        self._next = 0
        """Tick of the bar to be made next."""

    @property
    def count(self) -> int:
        """How many bars there are, or were left out, from the first to the newest."""
        return (self.ring.newest - self.ring.first) // self.ring.step + 1

    def cut(self, tick: int) -> None:
        """Forget the bars that hold tick or a later one; they will be made again."""
        begin = tick // self.ring.step * self.ring.step
        if self.ring.newest >= begin:
            self.ring.cut(begin)
        self._next = min(self._next, begin)

    def roll_up(self) -> None:
        """Make the bars whose rows have all come. A bar that lacks some is left out. Raises OSError."""
        ring, finer = self.ring, self._finer
        step, count = ring.step, ring.step // finer.step
        oldest = -(-finer.first // step) * step
        self._next = max(self._next, ring.newest + step, oldest)
        while self._next + step - finer.step <= finer.newest:
            ticks = np.arange(self._next, self._next + step, finer.step)
            if finer.found(ticks).all():
                rows = finer.read(self._next, count)
                bar = _of_bars(rows) if finer.width == BAR_WIDTH else _of_ticks(rows)
                ring.extend(bar[None])
            self._next += step

    def bars(self, column: int, starts: Rows) -> Bars:
        """Return the bars of a column that begin at starts, as far as they are there."""
        ring = self.ring
        starts = starts[ring.found(starts)]

        def take(place: int) -> Rows:
            return ring.pick(starts, place)

        first, i = take(_FIRST + column), _EXTREME_OF.get(column)
        high, low, last = (first,) * 3 if i is None else (take(_HIGH + i), take(_LOW + i), take(_LAST + i))
        ticks = np.full(len(starts), ring.step)
        return Bars(starts, ticks, take(UNIX_MS), first, high, low, last, take(_TOTAL + column))


def single(start: Rows, unix_ms: Rows, values: Rows) -> Bars:
    """Return the bars of single ticks."""
    return Bars(start, np.ones(len(start), np.int64), unix_ms, values, values, values, values, values)


def joined(older: Bars, newer: Bars) -> Bars:
    """Return the bars of both."""
    return Bars(*(np.concatenate(pair) for pair in zip(older, newer, strict=True)))


def fold(bars: Bars, step: int, newest: int) -> Bars:
    """Return bars of step ticks, beginning where step divides, from smaller ones.

    A bar is left out when some of its ticks are missing, unless only those after newest are: it still grows.
    """
    if not len(bars.start):
        return bars
    group = bars.start // step
    begin = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    end = np.concatenate([begin[1:], [len(group)]]) - 1
    start, after = bars.start[begin], bars.start[end] + bars.ticks[end]
    ticks = np.add.reduceat(bars.ticks, begin)
    total = bars.total if step <= SUM_TICKS_MAX else bars.total.astype(np.float64)
    whole = (start % step == 0) & (after - start == ticks) & ((ticks == step) | (after == newest + 1))
    folded = Bars(
        start,
        ticks,
        bars.unix_ms[begin],
        bars.first[begin],
        np.maximum.reduceat(bars.high, begin),
        np.minimum.reduceat(bars.low, begin),
        bars.last[end],
        np.add.reduceat(total, begin),
    )
    return Bars(*(member[whole] for member in folded))


def _of_ticks(rows: Rows) -> Rows:
    values = rows[:, HEAD:]
    some = values[:, EXTREMES]
    return _row(rows, values[0], values.sum(axis=0), some.max(axis=0), some.min(axis=0), some[-1])


def _of_bars(rows: Rows) -> Rows:
    return _row(
        rows,
        rows[0, _FIRST:_TOTAL],
        rows[:, _TOTAL:_HIGH].sum(axis=0),
        rows[:, _HIGH:_LOW].max(axis=0),
        rows[:, _LOW:_LAST].min(axis=0),
        rows[-1, _LAST:],
    )


def _row(rows: Rows, *parts: Rows) -> Rows:
    return np.concatenate([[rows[0, TICK], rows[0, UNIX_MS], 0], *parts])
