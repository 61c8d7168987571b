"""The hot history: exactly what was published, in a ring; candles; the event log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import Event
from engine.markets import ID, MARKETS, NAMES
from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, RESOURCE_FIELDS
from server.live.history import SERIES, SPARE, EventLog, History
from server.live.ring import Ring
from server.live.series import HEAD, WIDTH, Rows
from server.live.view import View
from tests.support.published import World


def recorded(limit: int, ticks: int) -> tuple[History, list[View]]:
    """Return a history after so many ticks, and their views."""
    history, world = History(limit), World(tick=100)
    views = [world.view() for _ in range(ticks)]
    for view in views:
        history.record(view.tick, view.states, view.published_unix_ns)
    return history, views


def test_series_have_the_names_of_what_is_published() -> None:
    """Macro values by name, those of markets and resources behind a dot."""
    assert {field.name for field in INDICATOR_FIELDS} <= SERIES.keys()
    assert {f"{name}.{field.name}" for name in NAMES for field in MARKET_FIELDS} <= SERIES.keys()
    assert {f"oil.{field.name}" for field in RESOURCE_FIELDS} <= SERIES.keys()
    assert "labour.scarcity" not in SERIES


@pytest.mark.parametrize(
    ("name", "where"),
    [("cpi", ("inflation_update", "cpi")), ("fear", ("psychology_update", "fear"))],
)
def test_points_are_the_published_numbers(name: str, where: tuple[str, str]) -> None:
    """Scaled as in the documents, to the last bit."""
    history, views = recorded(50, 20)

    page = history.page(SERIES[name], None, None, 1, 100)

    assert [row[2] for row in page.rows] == [view.numbers[where[0]][where[1]] for view in views]
    assert page.ticks == [view.tick for view in views]
    assert page.rows[0][1] == views[0].published_unix_ns // 1_000_000


def test_points_of_markets_and_resources_are_those_of_their_index() -> None:
    """The right column of the right ring."""
    history, views = recorded(10, 3)

    price = history.page(SERIES["food.price"], None, None, 1, 10).rows
    scarcity = history.page(SERIES["lithium.scarcity"], None, None, 1, 10).rows

    assert [row[2] for row in price] == [view.numbers["market_tick"]["price"][ID["food"]] for view in views]
    assert [row[2] for row in scarcity] == [view.numbers["scarcity_update"]["scarcity"][1] for view in views]


def test_the_ring_keeps_the_last_ticks() -> None:
    """history_limit points, not one more."""
    history, views = recorded(10, 37)

    page = history.page(SERIES["cpi"], None, None, 1, 100)

    assert page.ticks == [view.tick for view in views[-10:]]
    assert [row[2] for row in page.rows] == [view.numbers["inflation_update"]["cpi"] for view in views[-10:]]


def test_a_gap_starts_over() -> None:
    """A point must never stand under a tick it does not belong to."""
    history, views = recorded(10, 5)
    later = views[-1].tick + 7

    history.record(later, views[-1].states, 0)

    page = history.page(SERIES["cpi"], None, None, 1, 100)
    assert page.ticks == [later]
    assert page.rows[0][1] is None


@given(
    first=st.none() | st.integers(0, 200),
    last=st.none() | st.integers(0, 200),
    step=st.integers(1, 9),
    limit=st.integers(1, 50),
)
def test_pages_together_are_the_range(first: int | None, last: int | None, step: int, limit: int) -> None:
    """Whatever the page size, following the cursor gives each tick of the range that step divides, once."""
    history = RECORDED
    wanted = [
        tick
        for tick in range(101, 161)
        if tick % step == 0 and (first or 0) <= tick <= (1_000 if last is None else last)
    ]

    ticks: list[int] = []
    start: int | None = first
    while True:
        page = history.page(SERIES["cpi"], start, last, step, limit)
        ticks += page.ticks
        assert len(page.rows) <= limit
        if page.next_tick is None:
            break
        start = page.next_tick

    assert ticks == wanted


RECORDED = recorded(60, 60)[0]


def test_candles_are_open_high_low_close_volume_of_their_ticks() -> None:
    """A candle begins where step divides the tick; one whose beginning is lost is left out."""
    history, views = recorded(30, 30)
    m = ID["food"]

    page = history.candles(m, None, None, 8, 100)

    assert page.ticks == [104, 112, 120, 128]
    for start, row in zip(page.ticks, page.rows, strict=True):
        members = [view for view in views if start <= view.tick < start + 8]
        prices = [view.numbers["market_tick"]["price"][m] for view in members]
        volume = sum(view.numbers["market_tick"]["volume"][m] for view in members)
        time = members[0].published_unix_ns // 1_000_000
        assert row == [time, prices[0], max(prices), min(prices), prices[-1], volume]


def test_candles_of_every_market_come_from_its_own_prices() -> None:
    """No column is mistaken for another."""
    history, views = recorded(4, 4)

    for m in range(MARKETS):
        (row,) = history.candles(m, 104, 104, 4, 10).rows
        assert row[1] == views[-1].numbers["market_tick"]["price"][m]


def test_candles_page_by_their_first_tick() -> None:
    """The cursor is the next candle's first tick."""
    history, _ = recorded(40, 40)

    first = history.candles(9, None, None, 10, 2)
    second = history.candles(9, first.next_tick, None, 10, 2)

    assert (first.ticks, first.next_tick) == ([110, 120], 130)
    assert (second.ticks, second.next_tick) == ([130, 140], None)


def event(number: int, name: str = "resource_discovered", channel: str = "discovery_event") -> Event:
    """Return an event."""
    return Event(channel, number, number * 10, name, {})


def test_events_are_numbered_over_all_channels_and_paged() -> None:
    """Ascending after a number, descending before it; the cursor is the last one shown."""
    log = EventLog(first_id=5)
    log.add(event(i) for i in range(1, 8))

    ascending, following = log.page(None, None, 3)
    rest, end = log.page(None, following, 10)
    newest, before = log.page(None, None, 3, descending=True)
    older, _ = log.page(None, before, 10, descending=True)

    assert [number for number, _ in ascending + rest] == list(range(5, 12))
    assert (following, end) == (7, None)
    assert [number for number, _ in newest + older] == list(range(11, 4, -1))


def test_events_are_filtered_by_name_or_channel() -> None:
    """Both are what people call a type."""
    log = EventLog()
    log.add(
        [
            event(1),
            event(1, "catastrophe_struck", "catastrophic_event"),
            event(2),
            event(1, "panic_began", "world_event"),
        ]
    )

    assert [number for number, _ in log.page("discovery_event", None, 10)[0]] == [1, 3]
    assert [number for number, _ in log.page("panic_began", None, 10)[0]] == [4]
    assert log.page("nothing", None, 10) == ([], None)


def test_a_page_that_ends_with_the_last_match_has_no_cursor() -> None:
    """Nobody is sent for an empty page."""
    log = EventLog()
    log.add([event(1), event(2), event(1, "panic_began", "world_event")])

    found, following = log.page("discovery_event", None, 2)

    assert (len(found), following) == (2, None)


def test_the_log_forgets_the_oldest_events_and_keeps_their_numbers() -> None:
    """Bounded; a cursor from before goes on at the oldest one kept."""
    log = EventLog(events_max=16)
    log.add(event(i) for i in range(1, 101))

    found, _ = log.page(None, 3, 1_000)

    assert 16 <= len(found) <= 18
    assert found[-1][0] == log.newest == 100
    assert found[0][0] == log.oldest


@given(
    names=st.lists(st.sampled_from(["resource_discovered", "panic_began", "panic_ended"]), max_size=40),
    kind=st.sampled_from([None, "panic_began", "world_event", "discovery_event", "nothing"]),
    after=st.none() | st.integers(0, 50),
    limit=st.integers(1, 12),
    descending=st.booleans(),
)
def test_a_page_is_what_a_look_at_every_event_finds(
    names: list[str], kind: str | None, after: int | None, limit: int, descending: bool
) -> None:
    """The lists by kind lose and double nothing, also after the oldest events have left."""
    log = EventLog(first_id=3, events_max=16)
    events = [
        event(i, name, "discovery_event" if name == "resource_discovered" else "world_event")
        for i, name in enumerate(names)
    ]
    log.add(events[:20])
    log.add(events[20:])

    found, following = log.page(kind, after, limit, descending=descending)

    all_kept = [(3 + i, happened) for i, happened in enumerate(events) if 3 + i >= log.oldest]
    wanted = [
        (number, happened)
        for number, happened in (reversed(all_kept) if descending else all_kept)
        if kind in (None, happened.name, happened.channel)
        and (after is None or (number < after if descending else number > after))
    ]
    assert found == wanted[:limit]
    assert following == (found[-1][0] if len(wanted) > limit else None)


def test_recent_rows_are_the_published_numbers() -> None:
    """The newest ticks, in the documents' units, for all markets at once."""
    history, views = recorded(10, 37)

    ticks, columns = history.recent("market_tick", ("price", "volume"), 4)
    _, all_kept = history.recent("inflation_update", ("cpi",), 1_000)

    assert ticks.tolist() == [view.tick for view in views[-4:]]
    for name, column in columns.items():
        assert column.tolist() == [view.numbers["market_tick"][name] for view in views[-4:]]
    assert all_kept["cpi"].tolist() == [view.numbers["inflation_update"]["cpi"] for view in views[-10:]]


def test_ticks_that_come_in_while_others_are_read_change_nothing() -> None:
    """Read from another thread, the history may go on meanwhile: what is being written is never what is shown."""
    world = World(tick=100)

    class Overtaken(Ring):
        """A ring in which two ticks come in as soon as somebody reads."""

        def parts(self, tick: int, count: int) -> Iterator[Rows]:
            for view in (world.view(), world.view()):
                history.record(view.tick, view.states, 0)
            return super().parts(tick, count)

    history = History(10, Overtaken(1, 10 + SPARE, HEAD + WIDTH))
    views = [world.view() for _ in range(300)]
    for view in views:
        history.record(view.tick, view.states, 0)

    ticks, columns = history.recent("market_tick", ("price",), 10)

    assert ticks.tolist() == [view.tick for view in views[-10:]]
    assert columns["price"].tolist() == [view.numbers["market_tick"]["price"] for view in views[-10:]]


def test_the_last_day_of_a_market() -> None:
    """Open, high, low, last, volume and the mean price a lot of the last 24 ticks."""
    history, views = recorded(50, 40)
    last = views[-24:]
    prices = [view.numbers["market_tick"]["price"][5] for view in last]
    volumes = [view.numbers["market_tick"]["volume"][5] for view in last]

    day = history.day()[5]

    assert day is not None
    assert (day.ticks, day.open, day.high, day.low, day.last) == (
        24, prices[0], max(prices), min(prices), prices[-1],
    )  # fmt: skip
    assert day.volume == sum(volumes)
    traded = sum(price * lots for price, lots in zip(prices, volumes, strict=True))
    assert day.vwap == pytest.approx(traded / sum(volumes), abs=1e-6)


def test_the_state_a_world_begins_with_is_no_tick_of_a_day() -> None:
    """After a restart nobody has it, and the day must be the same."""
    world = World(tick=100)
    history, view = History(50), world.view()
    history.begin(view.tick, view.states, 0)

    assert set(history.day()) == {None}
    history.record(view.tick + 1, world.view().states, 0)
    assert {day.ticks for day in history.day() if day} == {1}
    assert len(history.recent("market_tick", ("price",), 9)[0]) == 2
