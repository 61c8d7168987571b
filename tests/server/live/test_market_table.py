"""What is joined from parts is what the codec makes of the whole: the narrowed state, its delta, its checksum."""

from __future__ import annotations

from arena_client import wire
from hypothesis import given
from hypothesis import strategies as st

from engine.ladder import prices
from engine.markets import MARKETS, NAMES
from engine.state import BOOK_LEVELS
from server.live.frames import CHANNELS, MARKET_TICK
from server.live.market_table import BOOK_NUMBERS, Book, MarketTable, book_of, parts_of
from tests.support.naive_delta import naive_pack

FIELDS = [field.name for field in CHANNELS[MARKET_TICK].fields]
NUMBERS = st.one_of(st.integers(-3, 300), st.integers(-(2**52), 2**52))
SUBSETS = st.lists(st.integers(0, MARKETS - 1), min_size=1, max_size=5, unique=True).map(sorted)


@st.composite
def tables(draw: st.DrawFn, markets: list[int]) -> tuple[MarketTable, MarketTable]:
    """Return two ticks' tables that differ in some values of the markets."""
    state: wire.State = {name: [draw(NUMBERS)] * MARKETS for name in FIELDS}
    changed = {name: list(values) for name, values in state.items() if isinstance(values, list)}
    books = {m: Book([5] * BOOK_NUMBERS, [0] * BOOK_NUMBERS) for m in markets}
    later = {m: Book(list(book.asks), list(book.bids)) for m, book in books.items()}
    for _ in range(draw(st.integers(0, 40))):
        changed[draw(st.sampled_from(FIELDS))][draw(st.integers(0, MARKETS - 1))] = draw(NUMBERS)
        later[draw(st.sampled_from(markets))].bids[draw(st.integers(0, BOOK_NUMBERS - 1))] = draw(NUMBERS)
    return MarketTable(7, state, books), MarketTable(9, dict(changed), later)


@given(st.data(), SUBSETS, st.sampled_from([0, 1, 3, BOOK_LEVELS]))
def test_joined_parts_are_what_is_made_of_the_whole(data: st.DataObject, markets: list[int], depth: int) -> None:
    """Differences, canonical order and checksum of any subset equal those of the plain map, to the byte."""
    before, after = data.draw(tables(markets))
    parts = parts_of(markets, depth)
    old, new = before.state(parts), after.state(parts)

    joined = b"".join([after.change(before, part) for part in parts])

    assert list(new) == sorted(new)
    assert joined == naive_pack(old, new)
    assert wire.apply(old, {"diff": joined}) == new
    assert after.checksum(parts) == wire.checksum(new)


def test_a_narrowed_state_has_a_list_a_market() -> None:
    """The values of the channel in the order of its fields, each where the whole state has it."""
    state: wire.State = {name: [i * 100 + m for m in range(MARKETS)] for i, name in enumerate(FIELDS)}

    narrowed = MarketTable(1, state, {}).state(parts_of([9, 1], 0))

    assert narrowed == {NAMES[m]: [i * 100 + m for i in range(len(FIELDS))] for m in (9, 1)}


def test_an_entry_is_packed_and_compared_once() -> None:
    """Every subset is given the same bytes, the very same object."""
    state: wire.State = {name: [1] * MARKETS for name in FIELDS}
    later: wire.State = {**state, "price": [2] * MARKETS}
    before, after = MarketTable(1, state, {}), MarketTable(2, later, {})
    (part,) = parts_of([4], 0)

    assert after.packed(part) is after.packed(parts_of([4], 0)[0])
    assert after.change(before, part) is after.change(before, part)
    assert before.change(before, part) == b"\xff"


def test_a_book_is_price_and_lots_by_turns() -> None:
    """Best first, zeros behind the last level; a depth of n is its first n levels."""
    ladder = prices()
    levels = [[700, 698, *[0] * (BOOK_LEVELS - 2)], [703, *[0] * (BOOK_LEVELS - 1)]]
    lots = [[5, 6, *[0] * (BOOK_LEVELS - 2)], [2**60, *[0] * (BOOK_LEVELS - 1)]]

    book = book_of(levels, lots, ladder)

    assert book.bids[:5] == [int(ladder[700]), 5, int(ladder[698]), 6, 0]
    assert book.asks[:3] == [int(ladder[703]), 2**52 - 1, 0]
    assert len(book.asks) == len(book.bids) == BOOK_NUMBERS
    state: wire.State = {name: [1] * MARKETS for name in FIELDS}
    narrowed = MarketTable(1, state, {9: book}).state(parts_of([9], 2))
    assert narrowed["food.bids"] == [int(ladder[700]), 5, int(ladder[698]), 6]
    assert sorted(narrowed) == ["food", "food.asks", "food.bids"]
