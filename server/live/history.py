"""The recent past, kept hot: every public value of the last ticks, candles from it, and the log of events.

Rings of the integers that were streamed, one row a tick, scaled when they are read: a point of a series is exactly the
number its tick published. Memory follows history_limit: about 10 KB a tick.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from arena_client.wire import State
from numpy.typing import NDArray

from engine.events import Event
from engine.markets import HOURS, MARKETS, NAMES, RAW_FIRST, RESOURCES
from server.live.frames import CHANNELS, INFLATION, MARKET_TICK, PSYCHOLOGY, SCARCITY, STATE_CHANNELS, WireField

EVENTS_MAX = 100_000
"""Events kept hot; older ones leave the log first."""

Row = list[int | float | None]
Floats = NDArray[np.float64]


class Series(NamedTuple):
    """One value over time. place: column (and market or resource) in the ring of its channel."""

    name: str
    channel: str
    field: WireField
    place: tuple[int, ...]


@dataclass(frozen=True)
class Page:
    """Rows of a series, oldest first. next_tick: where the next page begins, None at the end."""

    columns: tuple[str, ...]
    rows: list[Row]
    ticks: list[int]
    next_tick: int | None


class Day(NamedTuple):
    """The last 24 ticks of a market, of `ticks` of them. vwap: mean price a lot traded, None without a trade."""

    ticks: int
    open: float
    high: float
    low: float
    last: float
    volume: int
    vwap: float | None


def _catalogue() -> dict[str, Series]:
    """Return every series: macro values by name, `market.field` and `resource.field`."""
    series: dict[str, Series] = {}
    for channel in (PSYCHOLOGY, INFLATION):
        for i, field in enumerate(CHANNELS[channel].fields):
            # a name both channels have is the same value
            series.setdefault(field.name, Series(field.name, channel, field, (i,)))
    for channel, first, count in ((MARKET_TICK, 0, MARKETS), (SCARCITY, RAW_FIRST, RESOURCES)):
        for i, field in enumerate(CHANNELS[channel].fields):
            for k in range(count):
                name = f"{NAMES[first + k]}.{field.name}"
                series[name] = Series(name, channel, field, (i, k))
    return series


SERIES = _catalogue()
POINT_COLUMNS = ("tick", "time", "value")
CANDLE_COLUMNS = ("time", "open", "high", "low", "close", "volume")


class History:
    """The last `limit` ticks of everything public. time: milliseconds since 1970, null where it was not observed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._unix_ms = np.zeros(limit, np.int64)
        # zeros are not touched, so memory is taken as ticks come in
        self._rings = {name: np.zeros((limit, *_shape(name)), np.int64) for name in STATE_CHANNELS}
        self.newest = -1
        self.points = 0
        self._begin = -1

    @property
    def oldest(self) -> int:
        """The first tick that is kept; above newest when there is none."""
        return self.newest - self.points + 1

    def begin(self, tick: int, states: Mapping[str, State], unix_ns: int) -> None:
        """Add the state a new world begins with, which was no tick of its own."""
        self.record(tick, states, unix_ns)
        self._begin = tick

    def record(self, tick: int, states: Mapping[str, State], unix_ns: int) -> None:
        """Add a tick. states: of each state channel; unix_ns: when it began, 0: not observed. A gap starts over."""
        slot = tick % self.limit
        self.points = min(self.points + 1, self.limit) if tick == self.newest + 1 else 1
        self.newest = tick
        self._unix_ms[slot] = unix_ns // 1_000_000
        for name, ring in self._rings.items():
            ring[slot] = list(states[name].values())

    def page(self, series: Series, first: int | None, last: int | None, step: int, limit: int) -> Page:
        """Return the points of the ticks first..last (both included) that step divides, at most limit of them."""
        begin = max(self.oldest if first is None else first, self.oldest)
        end = min(self.newest if last is None else last, self.newest)
        begin = -(-begin // step) * step
        ticks = np.arange(begin, end + 1, step)
        chosen = ticks[:limit]
        values = self._values(series, chosen)
        times = self._times(chosen)
        rows: list[Row] = [list(row) for row in zip(chosen.tolist(), times, values, strict=True)]
        following = int(ticks[limit]) if len(ticks) > limit else None
        return Page(POINT_COLUMNS, rows, chosen.tolist(), following)

    def candles(self, m: int, first: int | None, last: int | None, step: int, limit: int) -> Page:
        """Return candles of step ticks of market m, from those that begin at first to those that begin by last.

        A candle begins at a tick that step divides and carries the time of that tick; the newest may still grow.
        """
        begin = max(self.oldest if first is None else first, self.oldest)
        end = min(self.newest if last is None else last, self.newest)
        begin = -(-begin // step) * step
        starts = np.arange(begin, end + 1, step)
        chosen = starts[:limit]
        rows = [self._candle(m, int(start), min(int(start) + step - 1, self.newest)) for start in chosen]
        following = int(starts[limit]) if len(starts) > limit else None
        return Page(CANDLE_COLUMNS, rows, chosen.tolist(), following)

    def recent(self, channel: str, names: Sequence[str], most: int) -> tuple[NDArray[np.int64], dict[str, Floats]]:
        """Return the newest ticks that are kept, at most `most`, and the values of fields of a state channel in them.

        Values as the documents show them, shape (ticks,) or (ticks, 32 or 7). May be called from any thread: a tick
        that was overwritten while its row was read is left out.
        """
        ticks = np.arange(max(self.oldest, self.newest - most + 1), self.newest + 1)
        fields = CHANNELS[channel].fields
        places = {field.name: i for i, field in enumerate(fields)}
        ring = self._rings[channel]
        values = {name: self._column(ring, ticks, places[name], fields[places[name]].scale) for name in names}
        # newest moves before its row is written: what is still kept now was whole when it was read
        whole = ticks > self.newest - self.limit
        return ticks[whole], {name: column[whole] for name, column in values.items()}

    def _column(self, ring: NDArray[np.int64], ticks: NDArray[np.int64], place: int, scale: int) -> Floats:
        """Return a field of consecutive ticks in its unit."""
        column = np.empty((len(ticks), *ring.shape[2:]))
        first = int(ticks[0]) % self.limit if len(ticks) else 0
        before_wrap = min(len(ticks), self.limit - first)
        # two divisions of slices: indexing by tick held the interpreter's lock 2 ms for a year of 32 markets
        np.divide(ring[first : first + before_wrap, place], max(1, scale), out=column[:before_wrap])
        np.divide(ring[: len(ticks) - before_wrap, place], max(1, scale), out=column[before_wrap:])
        return column

    def day(self) -> Sequence[Day | None]:
        """Return, by market, what the last 24 ticks were; of fewer where the history begins later, None of none."""
        ticks, columns = self.recent(MARKET_TICK, ("price", "volume"), min(HOURS, self.newest - self._begin))
        if not len(ticks):
            return (None,) * MARKETS
        prices, volumes = columns["price"], columns["volume"]
        lots = volumes.sum(axis=0)
        # in float64: sums of money are shown with 6 decimals, and the quotient has more digits than that
        means = np.divide((prices * volumes).sum(axis=0), lots, out=np.zeros(len(lots)), where=lots > 0)
        return [
            Day(
                len(ticks),
                prices[0, m].item(),
                prices[:, m].max().item(),
                prices[:, m].min().item(),
                prices[-1, m].item(),
                int(lots[m]),
                round(means[m].item(), 6) if lots[m] > 0 else None,
            )
            for m in range(MARKETS)
        ]

    def _candle(self, m: int, first: int, last: int) -> Row:
        ticks = np.arange(first, last + 1)
        prices = self._values(SERIES[f"{NAMES[m]}.price"], ticks)
        volume = sum(self._values(SERIES[f"{NAMES[m]}.volume"], ticks))
        return [self._times(ticks[:1])[0], prices[0], max(prices), min(prices), prices[-1], volume]

    def _values(self, series: Series, ticks: NDArray[np.int64]) -> list[Any]:
        whole: list[int] = self._rings[series.channel][(ticks % self.limit, *series.place)].tolist()
        scale = series.field.scale
        return whole if scale == 1 else [value / scale for value in whole]

    def _times(self, ticks: NDArray[np.int64]) -> list[int | None]:
        return [value or None for value in self._unix_ms[ticks % self.limit].tolist()]


def _shape(channel: str) -> tuple[int, ...]:
    fields = CHANNELS[channel].fields
    return (len(fields), fields[0].length) if fields[0].length else (len(fields),)


class EventLog:
    """Everything that happened in the world, oldest first, numbered from 1 over all channels.

    first_id: number of the first event that will be added.
    """

    def __init__(self, first_id: int = 1, events_max: int = EVENTS_MAX) -> None:
        self._events: list[Event] = []
        self._numbers: dict[str, list[int]] = {}
        """Numbers of the kept events by name and by channel: looking through all of them took 18 ms."""
        self._events_max = events_max
        self._next_id = first_id

    @property
    def oldest(self) -> int:
        """The first number that is kept; above newest when there is none."""
        return self._next_id - len(self._events)

    @property
    def newest(self) -> int:
        """The last number given."""
        return self._next_id - 1

    def add(self, events: Iterable[Event]) -> None:
        """Append what a tick reports."""
        for event in events:
            self._events.append(event)
            for kind in (event.name, event.channel):
                self._numbers.setdefault(kind, []).append(self._next_id)
            self._next_id += 1
        if len(self._events) > self._events_max + self._events_max // 8:
            # an eighth at a time, so that moving the rest is rare
            del self._events[: len(self._events) - self._events_max]
            for numbers in self._numbers.values():
                del numbers[: bisect_left(numbers, self.oldest)]

    def page(
        self, kind: str | None, after: int | None, limit: int, *, descending: bool = False
    ) -> tuple[list[tuple[int, Event]], int | None]:
        """Return at most limit events with their numbers, and the number to go on after, None at the end.

        kind: a name or a channel. after: the number the last page ended with.
        """
        first, end = self.oldest, self._next_id
        if after is not None:
            first, end = (first, min(after, end)) if descending else (max(after + 1, first), end)
        kept: Sequence[int] = range(self.oldest, self._next_id) if kind is None else self._numbers.get(kind, ())
        begin, stop = bisect_left(kept, first), bisect_left(kept, end)
        chosen = kept[max(begin, stop - limit) : stop][::-1] if descending else kept[begin : min(stop, begin + limit)]
        found = [(number, self._events[number - self.oldest]) for number in chosen]
        return found, found[-1][0] if stop - begin > limit else None
