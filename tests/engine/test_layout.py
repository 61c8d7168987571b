"""Where residents sit: every one in one block, every block in one market at a time."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from engine.layout import (
    BLOCK,
    EXTRACTOR,
    FIRM,
    HOUSEHOLD,
    PRODUCER_MARKETS,
    SEGMENT,
    TRADER,
    TRADER_MARKETS,
    Layout,
    clocks,
    cuts,
    lay_out,
)
from engine.markets import GOOD_FIRST, HOUSEHOLD_DAY, INPUT_1, INPUT_2, LABOUR, SECTOR, SHARE_FIRST, VISITS

SIZES = (2_000, 2_001, 3_333, 20_000, 100_000, 1_000_000)


def blocks(layout: Layout, *kinds: int) -> list[tuple[int, int, int, int, int]]:
    """Return (start, end, home, phase, sector) of the blocks of these kinds."""
    columns = (layout.block_start, layout.block_end, layout.block_home, layout.block_phase, layout.block_sector)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [row for row, kind in zip(rows, layout.block_type.tolist(), strict=True) if kind in kinds]


@pytest.mark.parametrize("residents", SIZES)
def test_counts_are_the_shares_of_the_specification(residents: int) -> None:
    """72 % households, 8 % firms, 2 % extractors, 18 % traders; households take the rest."""
    layout = lay_out(residents)

    assert (layout.extractors, layout.firms, layout.traders) == (
        residents * 2 // 100,
        residents * 8 // 100,
        residents * 18 // 100,
    )
    assert layout.households + layout.producers + layout.traders == residents
    assert (layout.producer_first, layout.trader_first) == (layout.households, residents - layout.traders)


@pytest.mark.parametrize("residents", SIZES)
def test_blocks_cover_all_residents_once_in_order(residents: int) -> None:
    """Each block begins where the last one ended, none is empty, types run in order."""
    layout = lay_out(residents)

    borders = [*layout.block_start.tolist(), residents]

    assert borders[0] == 0
    assert layout.block_end.tolist() == borders[1:]
    assert all(low < high for low, high in pairwise(borders))
    assert layout.block_type.tolist() == sorted(layout.block_type.tolist())
    assert layout.block_start[layout.producer_block_first] == layout.producer_first
    assert layout.block_start[layout.trader_block_first] == layout.trader_first


@pytest.mark.parametrize(("residents", "count", "size"), [(100_000, 288, 250), (20_000, 120, 120)])
def test_household_blocks_of_the_named_sizes(residents: int, count: int, size: int) -> None:
    """288 blocks of 250 at 100 000 residents, 120 of 120 at 20 000."""
    rows = blocks(lay_out(residents), HOUSEHOLD)

    assert [end - start for start, end, *_ in rows] == [size] * count


@pytest.mark.parametrize("residents", SIZES)
def test_household_blocks_fill_all_hours_alike(residents: int) -> None:
    """A multiple of 24 blocks, phase b mod 24, near-equal sizes."""
    rows = blocks(lay_out(residents), HOUSEHOLD)

    assert len(rows) % 24 == 0
    assert [phase for *_, phase, _ in rows] == [b % 24 for b in range(len(rows))]
    lengths = {end - start for start, end, *_ in rows}
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("residents", SIZES)
def test_home_assets_are_not_tied_to_hours(residents: int) -> None:
    """Each of the eight assets is home to households of more than three hours of the day."""
    rows = blocks(lay_out(residents), HOUSEHOLD)

    hours = {home: {phase for _, _, other, phase, _ in rows if other == home} for _, _, home, *_ in rows}

    assert set(hours) == set(range(SHARE_FIRST, SHARE_FIRST + 8))
    assert all(len(phases) > 3 for phases in hours.values())


@pytest.mark.parametrize("residents", SIZES)
def test_producer_phases_run_through_all_markets(residents: int) -> None:
    """The running number of non-empty producer blocks mod 24: no hour is left to a few small markets."""
    rows = blocks(lay_out(residents), FIRM, EXTRACTOR)

    assert [phase for *_, phase, _ in rows] == [b % 24 for b in range(len(rows))]
    assert all(sector == SECTOR[home] for _, _, home, _, sector in rows)
    assert max(end - start for start, end, *_ in rows) <= BLOCK


@pytest.mark.parametrize("residents", SIZES)
def test_markets_have_equal_slices_of_their_type(residents: int) -> None:
    """Producers by good, then by resource; traders by their fifteen markets; one more or less at most."""
    layout = lay_out(residents)
    for kinds, markets in ((FIRM,), range(8, 24)), ((EXTRACTOR,), range(1, 8)), ((TRADER,), TRADER_MARKETS):
        sizes: Counter[int] = Counter()
        for start, end, home, *_ in blocks(layout, *kinds):
            sizes[home] += end - start

        assert list(sizes) == list(markets)
        assert max(sizes.values()) - min(sizes.values()) <= 1


@pytest.mark.parametrize("residents", SIZES)
def test_segments_are_the_producers_of_a_market_in_pieces(residents: int) -> None:
    """They cover the producers in order, at most 4 096 each, cut at block borders."""
    layout = lay_out(residents)

    assert layout.segment_start[0] == layout.producer_first
    assert layout.segment_end[-1] == layout.trader_first
    assert layout.segment_start[1:].tolist() == layout.segment_end[:-1].tolist()
    assert int((layout.segment_end - layout.segment_start).max()) <= SEGMENT
    for s, market in enumerate(layout.segment_market.tolist()):
        low, high = int(layout.segment_block_start[s]), int(layout.segment_block_end[s])
        assert layout.block_start[low] == layout.segment_start[s]
        assert layout.block_end[high - 1] == layout.segment_end[s]
        assert set(layout.block_home[low:high].tolist()) == {market}
    assert list(dict.fromkeys(layout.segment_market.tolist())) == list(PRODUCER_MARKETS)


def test_a_large_market_is_cut_into_several_segments() -> None:
    """At a million residents a good has 5 000 firms: two segments."""
    layout = lay_out(1_000_000)

    assert Counter(layout.segment_market.tolist())[GOOD_FIRST] == 2


def test_block_markets_follow_the_households_day() -> None:
    """In its own 24 hours a household block works once, trades its asset once and shops 22 times."""
    layout = lay_out(2_000)
    for b, (_, _, home, phase, _) in enumerate(blocks(layout, HOUSEHOLD)):
        day = [int(layout.market_by_clock[(hour - phase) % 24, b]) for hour in range(24)]

        assert day[:2] == [LABOUR, home]
        assert day[2:] == list(HOUSEHOLD_DAY[2:])
        assert Counter(day[2:]) == Counter({m: visits for m, visits in enumerate(VISITS) if visits})


def test_block_markets_follow_the_producers_day() -> None:
    """Labour in twelve hours, each input in six; an extractor has no market then; a trader stays at home."""
    layout = lay_out(2_000)
    first = layout.producer_block_first
    for b, (_, _, home, phase, _) in enumerate(blocks(layout, FIRM, EXTRACTOR), start=first):
        day = [int(layout.market_by_clock[(hour - phase) % 24, b]) for hour in range(24)]

        assert day == [LABOUR, INPUT_1[home], INPUT_2[home], LABOUR] * 6
    traders = layout.market_by_clock[:, layout.trader_block_first :]
    assert bool((traders == layout.block_home[layout.trader_block_first :]).all())


def test_everybody_has_each_own_hour_once_a_day() -> None:
    """The clocks jump at the start of a day, but within a day they pass every hour."""
    for day in (0, 1, 2, 999, 100_000):
        hours = [clocks(24 * day + k) for k in range(24)]

        assert {household for household, _ in hours} == set(range(24))
        assert {producer for _, producer in hours} == set(range(24))
    assert [clocks(tick) for tick in range(24)] == [(tick, tick) for tick in range(24)]


def test_every_cohort_meets_every_other_at_every_hour_equally_often() -> None:
    """Over 10 000 days each pair of clocks comes up at the first tick of a day about as often as any other."""
    met = Counter(clocks(24 * day) for day in range(10_000))

    assert len(met) == 24 * 24
    assert max(met.values()) - min(met.values()) <= 8


def test_markets_of_a_tick_follow_the_clocks() -> None:
    """Households read the table at their clock's hour, producers at theirs; traders are always at home."""
    layout = lay_out(2_000)
    first, last = layout.producer_block_first, layout.trader_block_first
    for tick in (0, 23, 24, 1_000, 87_654_321):
        household, producer = clocks(tick)
        markets = layout.markets_at(tick)

        assert bool((markets[:first] == layout.market_by_clock[household, :first]).all())
        assert bool((markets[first:last] == layout.market_by_clock[producer, first:last]).all())
        assert bool((markets[last:] == layout.block_home[last:]).all())


def test_labour_is_offered_and_wanted_in_every_hour() -> None:
    """At each tick of the day some household block sells labour and some producers buy it."""
    layout = lay_out(2_000)
    first = layout.producer_block_first

    sellers = (layout.market_by_clock[:, :first] == LABOUR).sum(axis=1)
    buyers = (layout.market_by_clock[:, first : layout.trader_block_first] == LABOUR).sum(axis=1)

    assert set(sellers.tolist()) == {first // 24}
    assert int(buyers.min()) > 0


def test_cuts_are_near_equal_and_complete() -> None:
    """(k n) // m."""
    assert cuts(10, 4) == [0, 2, 5, 7, 10]
    assert all(0 <= b - a - 100_003 // 17 <= 1 for a, b in pairwise(cuts(100_003, 17)))


def test_layout_depends_on_the_number_of_residents_alone() -> None:
    """Two layouts are the same tables."""
    one, other = lay_out(5_000), lay_out(5_000)

    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)
