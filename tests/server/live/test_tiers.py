"""Days and months: what is read of them is what a look at every tick finds."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.markets import ID
from server.live.history import AGGREGATES, OF_EXTREMES, SERIES, SPARE, History
from server.live.ring import Ring
from server.live.series import HEAD, WIDTH, pack, unpack
from server.live.tiers import BAR_WIDTH, DAY, MONTH, Tier, has_extremes
from server.live.view import View
from tests.support.published import World

FIRST, LAST = 101, 2_000
LIMIT = 50
NAMES = ("cpi", "fear", "food.price", "food.volume", "lithium.reserves")


def empty(limit: int = LIMIT, days: int = 30) -> History:
    """Return a history with both tiers, in memory."""
    hot = Ring(1, limit + SPARE, HEAD + WIDTH)
    day = Ring(DAY, days, BAR_WIDTH, sparse=True)
    return History(limit, hot, (Tier(day, hot), Tier(Ring(MONTH, 100, BAR_WIDTH, sparse=True), day)))


@cache
def published() -> list[View]:
    """Return what was published, tick by tick; made once."""
    world = World(tick=FIRST - 1)
    return [world.view() for _ in range(LAST - FIRST + 1)]


@cache
def recorded() -> History:
    """Return the history of that."""
    history = empty()
    for view in published():
        history.record(view.tick, view.states, view.tick * 1_000_000_000)
    return history


@cache
def numbers(name: str) -> list[Any]:
    """Return what was published of a series, from FIRST on."""
    series = SERIES[name]
    columns = [view.numbers[series.channel][series.field.name] for view in published()]
    return [column[series.place[1]] for column in columns] if len(series.place) == 2 else columns


def naive(values: list[Any], aggregate: str) -> Any:
    """Return what the values of some ticks come to, the slow way."""
    if aggregate == "mean":
        return sum(values) / len(values)
    if aggregate in ("first", "last"):
        return values[0 if aggregate == "first" else -1]
    return {"high": max, "low": min, "sum": sum}[aggregate](values)


def test_a_row_gives_back_what_was_packed() -> None:
    """Every integer of every channel."""
    view = published()[7]

    row = pack(view.tick, view.states, 5_000_000)

    assert unpack(row) == view.states
    assert row[:HEAD].tolist() == [view.tick, 5, 0]


def test_every_series_has_a_column_of_its_own() -> None:
    """And it is where its value stands."""
    view = published()[3]
    row = pack(view.tick, view.states, 0)

    assert len({series.column for series in SERIES.values()}) == len(SERIES)
    for name, series in SERIES.items():
        value = view.states[series.channel][series.field.name]
        assert row[HEAD + series.column] == (value[series.place[1]] if len(series.place) == 2 else value), name


@given(
    name=st.sampled_from(NAMES),
    first=st.none() | st.integers(0, LAST + 50),
    last=st.none() | st.integers(0, LAST + 50),
    step=st.none() | st.sampled_from([1, 5, 24, 48, 100, 240, 720, 1_440]) | st.integers(1, 2_000),
    aggregate=st.sampled_from(AGGREGATES),
)
def test_pages_say_what_a_look_at_every_tick_says(
    name: str, first: int | None, last: int | None, step: int | None, aggregate: str
) -> None:
    """Whichever store answers: the published number at a tick, or what its ticks did; none is missing in between."""
    history, series = recorded(), SERIES[name]
    if aggregate in OF_EXTREMES and not has_extremes(series):
        aggregate = "mean"

    page = history.page(series, first, last, step, 10_000, aggregate=aggregate)

    for tick, time, value in page.rows:
        assert tick is not None
        covered = numbers(name)[int(tick) - FIRST : int(tick) - FIRST + (1 if aggregate == "first" else page.step)]
        assert value == pytest.approx(naive(covered, aggregate), rel=1e-12)
        assert time == tick * 1_000
        assert aggregate not in ("first", "high", "low", "last") or value == naive(covered, aggregate)
    assert all(tick % page.step == 0 for tick in page.ticks)
    assert all(tick >= (first or 0) and tick <= (LAST if last is None else last) for tick in page.ticks)
    assert page.ticks == list(range(page.ticks[0], page.ticks[-1] + 1, page.step)) if page.ticks else True
    assert page.step % page.resolution == 0
    assert step is None or page.step >= step


@given(
    first=st.none() | st.integers(0, LAST), step=st.none() | st.sampled_from([1, 7, 24, 72, 720]) | st.integers(1, 999)
)
def test_candles_say_what_a_look_at_every_tick_says(first: int | None, step: int | None) -> None:
    """Open, high, low, close and volume of a market, from ticks, days or months."""
    page = recorded().candles(ID["food"], first, None, step, 10_000)

    for start, (time, opened, high, low, close, volume) in zip(page.ticks, page.rows, strict=True):
        place = slice(start - FIRST, start - FIRST + page.step)
        prices, volumes = numbers("food.price")[place], numbers("food.volume")[place]
        assert (opened, high, low, close) == (prices[0], max(prices), min(prices), prices[-1])
        assert (time, volume) == (start * 1_000, sum(volumes))


def test_the_finest_store_that_reaches_back_answers() -> None:
    """Ticks while they are hot, then days, then months; what there is at all begins with the first whole one."""
    history, cpi = recorded(), SERIES["cpi"]

    def reach(first: int | None, step: int | None = None) -> tuple[int, int, int]:
        page = history.page(cpi, first, None, step, 10_000)
        return page.ticks[0], page.step, page.resolution

    oldest_day = history.tiers[0].ring.first
    assert reach(None) == (LAST - LIMIT + 1, 1, 1)
    assert reach(LAST - LIMIT + 1) == (LAST - LIMIT + 1, 1, 1)
    assert reach(LAST - LIMIT) == (1_968, 24, 24)
    assert reach(oldest_day) == (oldest_day, 24, 24)
    assert reach(oldest_day - 1) == (1_440, 720, 720)
    assert reach(0) == (720, 720, 720)
    # a step that is asked for is kept where something of the range has it
    assert reach(0, 1) == (LAST - LIMIT + 1, 1, 1)
    assert reach(0, 48) == (-(-oldest_day // 48) * 48, 48, 24)
    assert history.page(cpi, oldest_day, 1_500, 5, 10).step == 24
    assert history.page(cpi, 0, oldest_day - 1, 5, 10).step == 720


def test_days_that_lack_a_tick_are_left_out() -> None:
    """A gap costs the days it is in, and nothing else."""
    history, views = empty(), published()
    for view in [*views[:200], *views[210:400]]:
        history.record(view.tick, view.states, 1_000_000)
    history.flush()

    days = history.tiers[0].ring
    starts = np.arange(120, 480, DAY)

    assert [int(start) for start in starts[~days.found(starts)]] == [288]
    page = history.page(SERIES["cpi"], 0, 400, DAY, 100)
    assert page.ticks == [tick for tick in range(120, 401, DAY) if tick != 288]


def test_what_a_replay_tells_again_leaves_the_same_rows() -> None:
    """Bars are made again from the rows that are there, and are what they were; those of later ticks are gone."""
    whole, again = empty(limit=500), empty(limit=500)
    for view in published()[:400]:
        whole.record(view.tick, view.states, view.tick * 1_000_000)
    for view in published()[:450]:
        again.record(view.tick, view.states, view.tick * 1_000_000)
    for view in published()[300:400]:
        again.record(view.tick, view.states, view.tick * 1_000_000)
    for history in (whole, again):
        history.flush()

    assert (again.newest, again.hot.newest) == (whole.newest, whole.hot.newest) == (500, 500)
    for ours, theirs in zip(again.tiers, whole.tiers, strict=True):
        assert (ours.ring.first, ours.ring.newest) == (theirs.ring.first, theirs.ring.newest)
        ticks = np.arange(ours.ring.first, ours.ring.newest + 1, ours.ring.step)
        assert np.array_equal(ours.ring.pick(ticks, slice(None)), theirs.ring.pick(ticks, slice(None)))
    assert (
        again.page(SERIES["cpi"], 0, None, DAY, 99, aggregate="sum").rows
        == whole.page(SERIES["cpi"], 0, None, DAY, 99, aggregate="sum").rows
    )
