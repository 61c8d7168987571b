"""Where each resident sits: ids, types, home markets, and the blocks that act in one market at a time.

Everything here follows from the number of residents alone. Source: ECONOMY A3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.markets import (
    GOOD_FIRST,
    GOOD_LAST,
    GOODS,
    HOURS,
    HOUSEHOLD_DAY,
    INPUT_1,
    INPUT_2,
    LABOUR,
    RAW_FIRST,
    RAW_LAST,
    RESOURCES,
    SECTOR,
    SHARE_FIRST,
)

HOUSEHOLD, FIRM, EXTRACTOR, TRADER = 0, 1, 2, 3
BLOCK = 256
"""Residents in a block, about."""
SEGMENT = 4_096
"""Producers in a segment, at most."""
TRADER_MARKETS = tuple(range(RAW_FIRST, RAW_LAST + 1)) + tuple(range(SHARE_FIRST, SHARE_FIRST + 8))
PRODUCER_MARKETS = tuple(range(GOOD_FIRST, GOOD_LAST + 1)) + tuple(range(RAW_FIRST, RAW_LAST + 1))
"""Producing markets in the order of their producers' ids: firms, then extractors."""

TURN, HOUSEHOLD_TURN, PRODUCER_TURN = 1 << 32, 3_242_174_889, 2_447_445_414
"""Of a day: how far the clocks jump at its start, 2^32 / g and 2^32 / g^2 with g^3 = g + 1."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Ids, blocks and segments of the residents.

    Ids run: households, firms, extractors, traders. A producer's arrays are indexed by id - households, a trader's
    by id - trader_first. Block and segment tables have one entry per block (segment), in id order.
    """

    residents: int
    households: int
    firms: int
    extractors: int
    traders: int
    block_start: Ints
    block_end: Ints
    block_type: Ints
    block_home: Ints
    block_phase: Ints
    block_sector: Ints
    """Dividend pool of a producer block, -1 else."""
    segment_start: Ints
    segment_end: Ints
    segment_market: Ints
    segment_block_start: Ints
    segment_block_end: Ints
    market_by_clock: NDArray[np.int64]
    """Shape (24, blocks): the market in which a block's first orders stand in the auction of its clock's hour;
    -1 where it has none (an extractor's input hours)."""

    @property
    def producers(self) -> int:
        """Firms and extractors together."""
        return self.firms + self.extractors

    @property
    def producer_first(self) -> int:
        """Id of the first producer."""
        return self.households

    @property
    def trader_first(self) -> int:
        """Id of the first trader."""
        return self.households + self.producers

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.block_start)

    def markets_at(self, tick: int) -> Ints:
        """Return the market of each block's first orders in the auction of a tick (at least 0), shape (blocks,)."""
        households, producers = clocks(tick)
        markets: Ints = self.market_by_clock[households].copy()
        markets[self.producer_block_first : self.trader_block_first] = self.market_by_clock[
            producers, self.producer_block_first : self.trader_block_first
        ]
        return markets

    @cached_property
    def block_longest(self) -> int:
        """Residents of the largest block."""
        return int((self.block_end - self.block_start).max())

    @cached_property
    def segment_longest(self) -> int:
        """Producers of the largest segment."""
        return int((self.segment_end - self.segment_start).max())

    @cached_property
    def producer_block_first(self) -> int:
        """Number of household blocks; producer blocks follow."""
        return int(np.count_nonzero(self.block_type == HOUSEHOLD))

    @cached_property
    def trader_block_first(self) -> int:
        """Number of household and producer blocks; trader blocks follow."""
        return int(np.count_nonzero(self.block_type != TRADER))


def lay_out(residents: int) -> Layout:
    """Return the layout of so many residents (at least 2 000)."""
    extractors = residents * 2 // 100
    firms = residents * 8 // 100
    traders = residents * 18 // 100
    households = residents - extractors - firms - traders
    rows = _household_blocks(households)
    producer_rows, segments = _producer_blocks(households, firms, extractors, len(rows))
    rows += producer_rows
    rows += _trader_blocks(households + firms + extractors, traders)
    table = np.array(rows, dtype=np.int64)
    pieces = np.array(segments, dtype=np.int64)
    start, end, kind, home, phase, sector = (np.ascontiguousarray(column) for column in table.T)
    first, last, market, first_block, last_block = (np.ascontiguousarray(column) for column in pieces.T)
    return Layout(
        residents=residents,
        households=households,
        firms=firms,
        extractors=extractors,
        traders=traders,
        block_start=start,
        block_end=end,
        block_type=kind,
        block_home=home,
        block_phase=phase,
        block_sector=sector,
        segment_start=first,
        segment_end=last,
        segment_market=market,
        segment_block_start=first_block,
        segment_block_end=last_block,
        market_by_clock=_block_markets(table),
    )


def clocks(tick: int) -> tuple[int, int]:
    """Return the hours 0..23 of the households' and the producers' clock in a tick; own hour = clock + phase, mod 24.

    Both clocks jump at the start of a day, so that everybody still has each own hour once a day, and over the days
    every cohort of households meets every cohort of producers at every hour of the day. With clocks that follow the
    tick the spot wage kept a fixed daily pattern of 220 bp between hours: cohorts that always met drifted apart from
    the others (ECONOMY D); now it is 2 to 10 bp. The jumps are the two-dimensional sequence of Roberts (2018), which
    spreads pairs of hours more evenly than a hash of the day, or golden and silver sections. Producers book by the
    tick: bookings 10 and 34 hours apart made their sales look uneven, and a pattern of 60 bp came back over the years.
    """
    day = tick // HOURS
    return (
        (tick + (day * HOUSEHOLD_TURN % TURN * HOURS) // TURN) % HOURS,
        (tick + (day * PRODUCER_TURN % TURN * HOURS) // TURN) % HOURS,
    )


def cuts(count: int, parts: int) -> list[int]:
    """Return the parts + 1 borders of near-equal cuts of count: (k count) // parts."""
    return [k * count // parts for k in range(parts + 1)]


def _block_markets(table: Ints) -> Ints:
    markets = np.empty((HOURS, len(table)), dtype=np.int64)
    for b, (_, _, kind, home, phase, _) in enumerate(table.tolist()):
        for tick in range(HOURS):
            hour = (tick + phase) % HOURS
            if kind == TRADER:
                market = home
            elif kind == HOUSEHOLD:
                market = HOUSEHOLD_DAY[hour] if hour != 1 else home
            else:
                market = (LABOUR, INPUT_1[home], INPUT_2[home], LABOUR)[hour % 4]
            markets[tick, b] = market
    return markets


def _household_blocks(households: int) -> list[tuple[int, ...]]:
    size = BLOCK
    while households // size < 96 and size > 16:
        size //= 2
    blocks = HOURS * max(1, round(households / (HOURS * size)))
    borders = cuts(households, blocks)
    rows: list[tuple[int, ...]] = []
    for b in range(blocks):
        # not b mod 8: 8 divides 24 and would tie an asset to three hours of the day
        asset = b // HOURS if blocks >= 192 else b // HOURS + b % HOURS
        rows.append((borders[b], borders[b + 1], HOUSEHOLD, SHARE_FIRST + asset % 8, b % HOURS, -1))
    return rows


def _producer_blocks(
    first: int, firms: int, extractors: int, block_index: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    firm_borders, extractor_borders = cuts(firms, GOODS), cuts(extractors, RESOURCES)
    rows: list[tuple[int, ...]] = []
    segments: list[tuple[int, ...]] = []
    for k, market in enumerate(PRODUCER_MARKETS):
        if k < GOODS:
            kind, low, high = FIRM, first + firm_borders[k], first + firm_borders[k + 1]
        else:
            e = k - GOODS
            low, high = first + firms + extractor_borders[e], first + firms + extractor_borders[e + 1]
            kind = EXTRACTOR
        parts = HOURS * -(-(high - low) // (HOURS * BLOCK))
        borders = cuts(high - low, parts)
        open_start, open_block = low, block_index + len(rows)
        for b in range(parts):
            start, end = low + borders[b], low + borders[b + 1]
            if start == end:  # counting empty blocks would put a small market into the same few hours
                continue
            if end - open_start > SEGMENT:
                segments.append((open_start, start, market, open_block, block_index + len(rows)))
                open_start, open_block = start, block_index + len(rows)
            rows.append((start, end, kind, market, len(rows) % HOURS, SECTOR[market]))
        segments.append((open_start, high, market, open_block, block_index + len(rows)))
    return rows, segments


def _trader_blocks(first: int, traders: int) -> list[tuple[int, ...]]:
    borders = cuts(traders, len(TRADER_MARKETS))
    rows: list[tuple[int, ...]] = []
    for k, market in enumerate(TRADER_MARKETS):
        low, high = first + borders[k], first + borders[k + 1]
        parts = -(-(high - low) // BLOCK)
        inner = cuts(high - low, parts)
        rows += [(low + inner[b], low + inner[b + 1], TRADER, market, 0, -1) for b in range(parts)]
    return rows
