"""The past: every public value of the last ticks, what they did by day and month before that, and the log of events.

    record (a tick's integers as one row, in memory) -> flush (a thread of its own, see keeper) -> ring of ticks
        -> tier of days -> tier of months -> archive

A point of a series is exactly the number its tick published, whichever store it comes from. The rings are files that a
restart finds again (ring.py); what a replay computes again replaces what they held of it, and what is newer than the
recovered tick is cut. Memory follows what waits to be written: about 10 KB a tick, a day of ticks as a rule.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import structlog
from arena_client.wire import State
from numpy.typing import NDArray

from engine.events import Event
from engine.markets import HOURS, MARKETS, NAMES
from server.live.frames import CHANNELS, MARKET_TICK
from server.live.ring import Ring, open_ring
from server.live.series import BEGINS, HEAD, SCHEMA_HASH, TICK, UNIX_MS, WIDTH, Rows, pack, unpack
from server.live.series import SERIES as SERIES
from server.live.series import Series as Series
from server.live.tiers import BAR_WIDTH, DAY, MONTH, Bars, Column, Tier, fold, joined, single

EVENTS_MAX = 100_000
"""Events kept hot; older ones leave the log first."""
FOLDER_NAME = "history"
SPAN: Final = 50 * DAY
"""Ticks of a file of the archive; the ring of ticks holds at least these."""
SPARE: Final = 256
"""Rows a ring holds beyond those it shows: what is being written stands in nobody's way."""
WAITING_MAX: Final = 600
"""Rows that may wait for the disk, 6 MB; then the oldest is lost."""
SYNC_TICKS: Final = 240
"""Ticks between two syncs of the rings: a power cut costs at most these and those that waited, a day as a rule."""
AGGREGATES: Final = ("first", "last", "high", "low", "mean", "sum")
"""What a point can say of the ticks it stands for."""
OF_EXTREMES: Final = frozenset({"last", "high", "low"})
"""Those of AGGREGATES that exist only for series with extremes (tiers.has_extremes)."""

Row = list[int | float | None]
Floats = NDArray[np.float64]

log = structlog.get_logger("arena.history")


@dataclass(frozen=True)
class Page:
    """Rows of a series, oldest first. next_tick: where the next page begins, None at the end.

    step: ticks between rows. resolution: ticks a value was kept for where the page reaches back the furthest.
    """

    columns: tuple[str, ...]
    rows: list[Row]
    ticks: list[int]
    next_tick: int | None
    step: int
    resolution: int


class Day(NamedTuple):
    """The last 24 ticks of a market, of `ticks` of them. vwap: mean price a lot traded, None without a trade."""

    ticks: int
    open: float
    high: float
    low: float
    last: float
    volume: int
    vwap: float | None


POINT_COLUMNS = ("tick", "time", "value")
CANDLE_COLUMNS = ("time", "open", "high", "low", "close", "volume")


class _Plan(NamedTuple):
    """Which ticks to answer with: from begin to end every step; see Page for the rest."""

    begin: int
    end: int
    step: int
    resolution: int


class History:
    """The last `limit` ticks of everything public, and what became of older ones. In memory unless rings are given.

    hot: the ring of ticks, with more room than limit. tiers: made from it, finest first. begin: the tick before the
    world's first own, -1 for none. is_kept: whether somebody else
    calls flush; without, record does. lost: called for each row that could not be written.
    """

    def __init__(
        self,
        limit: int,
        hot: Ring | None = None,
        tiers: Sequence[Tier] = (),
        *,
        begin: int = -1,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit = limit
        self.hot = Ring(1, max(limit, WAITING_MAX) + SPARE, HEAD + WIDTH) if hot is None else hot
        self.tiers = tuple(tiers)
        self.newest = self.hot.newest
        self.is_kept = False
        self._begin = begin
        self._lost = lost
        self._waiting: deque[Rows] = deque()
        self._lock = threading.Lock()
        """Held while _waiting changes, for a few lines."""
        self._synced = self.hot.newest
        self._failing = False

    @property
    def oldest(self) -> int:
        """The first tick that is kept; above newest when there is none."""
        return max(self._base(self._take_waiting()), self.newest - self.limit + 1)

    @property
    def points(self) -> int:
        """How many ticks are kept hot."""
        return self.newest - self.oldest + 1

    @property
    def waiting(self) -> int:
        """How many rows are not written yet."""
        return len(self._waiting)

    def begin(self, tick: int, states: Mapping[str, State], unix_ns: int) -> None:
        """Add the state a new world begins with, which was no tick of its own."""
        self.record(tick, states, unix_ns)
        self._begin = tick

    def record(self, tick: int, states: Mapping[str, State], unix_ns: int) -> None:
        """Add a tick. states: of each state channel; unix_ns: when it began, 0: not observed. A gap starts over.

        A tick that is there is replaced and the later ones forgotten, which only a replay may ask for.
        """
        row = pack(tick, states, unix_ns)
        with self._lock:
            if self._waiting and tick != self.newest + 1:
                self._waiting.clear()
            if len(self._waiting) == WAITING_MAX:
                self._waiting.popleft()
                self._lost()
            self._waiting.append(row)
        if tick <= self.newest:
            self._cut(tick)
        self.newest = tick
        if not self.is_kept and len(self._waiting) >= DAY:
            self.flush()

    def forget(self, tick: int) -> None:
        """Forget the ticks from one on; only before any is recorded. The world went on from before it."""
        if tick <= self.newest:
            self._cut(tick)
            self.newest = tick - 1

    def whole_from(self) -> int:
        """Return the first hot tick from which on every row has its checksum; above newest when there is none."""
        tick = self.newest
        while tick >= self.oldest and self.hot.is_whole(tick):
            tick -= 1
        return tick + 1

    def flush(self, *, sync: bool = False) -> None:
        """Write what waits and make the bars that are whole now; one thread at a time. sync: now and then, to the disk.

        What cannot be written goes on waiting, as much as may; the log says so once.
        """
        try:
            self._write()
            for tier in self.tiers:
                tier.roll_up()
            if sync and self.hot.newest >= self._synced + SYNC_TICKS:
                self._synced = self.hot.newest
                for ring in self._rings():
                    ring.sync()
        except OSError as error:
            if not self._failing:
                log.error("history_not_written", error=str(error), rows_waiting=len(self._waiting))
            self._failing = True
        else:
            if self._failing:
                log.info("history_written_again", tick=self.hot.newest)
            self._failing = False

    def close(self) -> None:
        """Write what waits, and sync. What is there stays readable."""
        self.flush()
        for ring in self._rings():
            try:
                ring.close()
            except OSError as error:
                log.error("history_not_closed", error=str(error))

    def at(self, tick: int) -> tuple[dict[str, State], int] | None:
        """Return the states of a hot tick and when it began, ms since 1970 (0: not observed); None when it is not."""
        if not self.oldest <= tick <= self.newest:
            return None
        row = self._row(tick)
        return unpack(row), int(row[UNIX_MS])

    def step_of(self, first: int | None, last: int | None, step: int | None, *, candles: bool = False) -> int:
        """Return the ticks between the rows of a page, or of candles, asked for with these."""
        return self._plan(first, last, step, DAY if candles else 1).step

    def page(
        self,
        series: Series,
        first: int | None,
        last: int | None,
        step: int | None,
        limit: int,
        *,
        aggregate: str = "first",
        after: int | None = None,
    ) -> Page:
        """Return the points of the ticks first..last (both included) that step divides, at most limit of them.

        first: None for what is hot; older ticks come from the tier that has them. step: None for every tick, or for as
        fine as that tier is; a step it does not have becomes the next one it has. aggregate: of AGGREGATES, over the
        step ticks from a point's own on. after: where this page begins, for the second one on.
        """
        plan = self._plan(first, last, step, 1)
        chosen, following = _chosen(plan, after, limit)
        if aggregate == "first":
            ticks, times, raw = self._points(series, chosen)
            values = _scaled(raw, series)
        else:
            bars = self._bars(series, chosen, plan.step)
            ticks, times, values = bars.start, bars.unix_ms, _aggregated(bars, series, aggregate)
        rows: list[Row] = [list(row) for row in zip(ticks.tolist(), _times(times), values, strict=True)]
        return Page(POINT_COLUMNS, rows, ticks.tolist(), following, plan.step, plan.resolution)

    def candles(
        self,
        m: int,
        first: int | None,
        last: int | None,
        step: int | None,
        limit: int,
        *,
        after: int | None = None,
    ) -> Page:
        """Return candles of step ticks of market m, from those that begin at first to those that begin by last.

        A candle begins at a tick that step divides and carries the time of that tick; the newest may still grow. The
        rest is as for page; step None is a day.
        """
        plan = self._plan(first, last, step, DAY)
        chosen, following = _chosen(plan, after, limit)
        price, volume = SERIES[f"{NAMES[m]}.price"], SERIES[f"{NAMES[m]}.volume"]
        bars = self._bars(price, chosen, plan.step)
        prices = (_scaled(member, price) for member in (bars.first, bars.high, bars.low, bars.last))
        traded = _scaled(self._bars(volume, chosen, plan.step).total, volume)
        rows: list[Row] = [list(row) for row in zip(_times(bars.unix_ms), *prices, traded, strict=True)]
        return Page(CANDLE_COLUMNS, rows, bars.start.tolist(), following, plan.step, plan.resolution)

    def recent(self, channel: str, names: Sequence[str], most: int) -> tuple[Rows, dict[str, Floats]]:
        """Return the newest ticks that are kept, at most `most`, and the values of fields of a state channel in them.

        Values as the documents show them, shape (ticks,) or (ticks, 32 or 7). May be called from any thread.
        """
        newest = self.newest
        return self._columns(channel, names, max(self.oldest, newest - most + 1), newest)

    def has_day(self, tick: int) -> bool:
        """Say whether the 24 ticks up to one are there, or all the world had by then."""
        return max(tick - HOURS, self._begin) + 1 >= self._base(self._take_waiting())

    def day(self, tick: int | None = None) -> Sequence[Day | None]:
        """Return, by market, what the 24 ticks up to the newest, or to one of the hot ones, were.

        Of fewer ticks where the history begins later, None of none.
        """
        last = self.newest if tick is None else tick
        # what is no longer shown may still be there
        ticks, columns = self._columns(MARKET_TICK, ("price", "volume"), max(last - HOURS, self._begin) + 1, last)
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

    # -- below: where a tick is found -----------------------------------------------------------------------------

    def _plan(self, first: int | None, last: int | None, step: int | None, usual: int) -> _Plan:
        """Decide which store answers: the finest that reaches back to first and has the step."""
        oldest = self.oldest
        end = self.newest if last is None else min(last, self.newest)
        if first is None and end >= oldest:
            return _Plan(oldest, end, step or usual, 1)
        stores = [(1, oldest)] + [(tier.ring.step, tier.ring.first) for tier in self.tiers if _holds(tier.ring)]
        reach = min(begin for _, begin in stores)
        fitting = [store for store in stores if step is not None and step % store[0] == 0]
        fitting_reach = min((begin for _, begin in fitting), default=reach)
        if step is not None and (end >= fitting_reach or reach == fitting_reach):
            stores, reach = fitting, fitting_reach
        wanted = max(first or 0, reach)
        resolution = next(size for size, begin in stores if begin <= wanted)
        return _Plan(wanted, end, -(-(step or usual) // resolution) * resolution, resolution)

    def _points(self, series: Series, ticks: Rows) -> tuple[Rows, Rows, Rows]:
        """Return those of ticks that are kept somewhere, when they began, and the value at each, unscaled."""
        is_hot = ticks >= self.oldest
        hot = ticks[is_hot]
        parts = [(hot, self._hot(UNIX_MS, hot), self._hot(HEAD + series.column, hot))]
        left = ticks[~is_hot]
        for tier in self.tiers:
            bars = tier.bars(series.column, left[left % tier.ring.step == 0])
            parts.append((bars.start, bars.unix_ms, bars.first))
            left = left[~np.isin(left, bars.start)]
        found, times, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(found)
        return found[order], times[order], values[order]

    def _bars(self, series: Series, starts: Rows, step: int) -> Bars:
        """Return the bars of step ticks that begin at starts, as far as their ticks are kept."""
        begin, last = (int(starts[0]), int(starts[-1])) if len(starts) else (0, -1)
        level = max((i for i, tier in enumerate(self.tiers, 1) if step % tier.ring.step == 0), default=0)
        bars = fold(self._level(level, series, begin, min(last + step - 1, self.newest)), step, self.newest)
        wanted = np.isin(bars.start, starts)
        return Bars(*(member[wanted] for member in bars))

    def _level(self, level: int, series: Series, begin: int, last: int) -> Bars:
        """Return the bars of a tier (0: of the ticks) from begin on; what it lacks at the end comes from finer ones."""
        if level == 0:
            ticks = np.arange(max(begin, self._base(self._take_waiting())), last + 1)
            return single(ticks, self._hot(UNIX_MS, ticks), self._hot(HEAD + series.column, ticks))
        tier = self.tiers[level - 1]
        step = tier.ring.step
        stored = tier.bars(series.column, np.arange(begin, last + 1, step))
        rest = int(stored.start[-1]) + step if len(stored.start) else begin
        if rest > last:
            return stored
        return joined(stored, fold(self._level(level - 1, series, rest, last), step, self.newest))

    def _hot(self, place: int, ticks: Rows) -> Rows:
        """Return one column of the rows of ticks."""
        waiting = self._take_waiting()
        values: Rows = self.hot.pick(ticks, place)
        if waiting:
            first = int(waiting[0][TICK])
            late = np.flatnonzero(ticks >= first)
            values[late] = [waiting[tick - first][place] for tick in ticks[late].tolist()]
        return values

    def _columns(self, channel: str, names: Sequence[str], first: int, last: int) -> tuple[Rows, dict[str, Floats]]:
        """Return the ticks from first to last that are there and the values of fields in them; see recent."""
        waiting = self._take_waiting()
        first = max(first, self._base(waiting))
        ticks = np.arange(first, last + 1)
        fields = {field.name: (i, field) for i, field in enumerate(CHANNELS[channel].fields)}
        # what waits comes last
        late = [row for row in waiting if first <= row[TICK] <= last]
        written = len(ticks) - len(late)
        parts = [*self.hot.parts(first, written)] if written else []
        if late:
            parts.append(np.stack(late))
        values: dict[str, Floats] = {}
        for name in names:
            i, field = fields[name]
            begin = HEAD + BEGINS[channel] + i * (field.length or 1)
            place = slice(begin, begin + field.length) if field.length else begin
            # divisions of slices: indexing by tick held the interpreter's lock 2 ms for a year of 32 markets
            columns = [part[:, place] / max(1, field.scale) for part in parts]
            values[name] = np.concatenate(columns) if columns else np.zeros((0, field.length) if field.length else 0)
        return ticks, values

    def _row(self, tick: int) -> Rows:
        waiting = self._take_waiting()
        first = int(waiting[0][TICK]) if waiting else tick + 1
        return waiting[tick - first] if tick >= first else self.hot.pick(np.array([tick]), slice(None))[0]

    def _base(self, waiting: list[Rows]) -> int:
        """Return the first of the ticks that follow one another up to the newest."""
        if not waiting:
            return self.hot.first
        first = int(waiting[0][TICK])
        return self.hot.first if self.hot.first <= first <= self.hot.newest + 1 else first

    def _take_waiting(self) -> list[Rows]:
        """Return the rows that wait. Asked before the ring: a row that no longer waits is in it."""
        with self._lock:
            return list(self._waiting)

    def _write(self) -> None:
        rows = self._take_waiting()
        if not rows:
            return
        self.hot.extend(np.stack(rows))
        with self._lock:
            while self._waiting and self._waiting[0][TICK] <= self.hot.newest:
                self._waiting.popleft()

    def _cut(self, tick: int) -> None:
        try:
            self.hot.cut(tick)
            for tier in self.tiers:
                tier.cut(tick)
        except OSError as error:
            # a cut counts in memory whatever the file says; the next write marks it again
            log.error("history_not_cut", tick=tick, error=str(error))

    def _rings(self) -> list[Ring]:
        return [self.hot, *(tier.ring for tier in self.tiers)]


def open_history(
    folder: Path,
    epoch: str,
    *,
    limit: int,
    days: int,
    months: int,
    begin: int = -1,
    lost: Callable[[], None] = lambda: None,
) -> History:
    """Return the history of a world as its folder holds it; a new one where the folder holds none that fits.

    days, months: bars kept of each. A folder that cannot be used leaves a history in memory, which the log says.
    """
    identity = {"epoch": epoch, "schema": SCHEMA_HASH}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        hot = open_ring(folder / "ticks.arh", identity, 1, max(limit, SPAN) + SPARE, HEAD + WIDTH)
        day = open_ring(folder / "days.arh", identity, DAY, days + SPARE, BAR_WIDTH, sparse=True)
        month = open_ring(folder / "months.arh", identity, MONTH, months + SPARE, BAR_WIDTH, sparse=True)
    except OSError as error:
        log.error("history_not_kept", folder=str(folder), error=str(error))
        return History(limit, begin=begin, lost=lost)
    return History(limit, hot, (Tier(day, hot), Tier(month, day)), begin=begin, lost=lost)


def _holds(ring: Ring) -> bool:
    return ring.first <= ring.newest


def _chosen(plan: _Plan, after: int | None, limit: int) -> tuple[Rows, int | None]:
    """Return the ticks of a page, and where the next one begins."""
    begin = max(plan.begin, after or 0)
    ticks = np.arange(-(-begin // plan.step) * plan.step, plan.end + 1, plan.step)
    return ticks[:limit], int(ticks[limit]) if len(ticks) > limit else None


def _aggregated(bars: Bars, series: Series, aggregate: str) -> list[Any]:
    if aggregate == "mean":
        means: list[Any] = (bars.total / bars.ticks / series.field.scale).tolist()
        return means
    members = {"last": bars.last, "high": bars.high, "low": bars.low, "sum": bars.total}
    return _scaled(members[aggregate], series)


def _scaled(raw: Column, series: Series) -> list[Any]:
    whole: list[Any] = raw.tolist()
    scale = series.field.scale
    return whole if scale == 1 else [value / scale for value in whole]


def _times(unix_ms: Rows) -> list[int | None]:
    return [value or None for value in unix_ms.tolist()]


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
