"""A tick's markets, each packed once: what narrowed states of `market_tick` and their deltas are joined from.

Narrowed to markets, a state has an entry a market: the list of the channel's values there, in the order of its fields.
So a market's part of a state, or of what changed in it, is the same bytes in every subset it is in. With depth there
are two more, the unfilled asks and bids: price and lots by turns, best first, zeros behind the last. Source: DESIGN D4.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property
from operator import sub
from typing import Final, NamedTuple, Protocol

import numpy as np
from arena_client import wire
from numpy.typing import NDArray

from engine.markets import NAMES
from engine.state import BOOK_LEVELS
from server.live.changes import pack_blocks
from server.live.frames import VALUE_MAX

BOOK_NUMBERS: Final = 2 * BOOK_LEVELS
_ASKS, _BIDS = ".asks", ".bids"


class Part(NamedTuple):
    """An entry of a narrowed state. side: of the book, empty for the market's values; numbers: its length, 0: all."""

    name: str
    market: int
    side: str
    numbers: int


class Book(NamedTuple):
    """What an auction left unfilled in a market: price (ucr) and lots by turns, best first, BOOK_NUMBERS each."""

    asks: list[int]
    bids: list[int]


def parts_of(markets: Sequence[int], depth: int) -> tuple[Part, ...]:
    """Return the entries of the state narrowed to these markets, in canonical order."""
    parts = [Part(NAMES[m], m, "", 0) for m in markets]
    if depth:
        parts += [Part(NAMES[m] + side, m, side, 2 * depth) for m in markets for side in (_ASKS, _BIDS)]
    # as Python compares strings, which is how their UTF-8 bytes compare
    return tuple(sorted(parts))


def book_of(levels: Sequence[Sequence[int]], lots: Sequence[Sequence[int]], prices: NDArray[np.int64]) -> Book:
    """Return a market's book. levels, lots: of bids, then of asks, best first; lots 0: no more. prices: by level."""
    sides: list[list[int]] = []
    for side_levels, side_lots in zip(levels, lots, strict=True):
        numbers: list[int] = []
        for level, left in zip(side_levels, side_lots, strict=True):
            if left == 0:
                break
            numbers += (int(prices[level]), min(left, VALUE_MAX))
        sides.append(numbers + [0] * (BOOK_NUMBERS - len(numbers)))
    return Book(asks=sides[1], bids=sides[0])


class BookSource(Protocol):
    """Where the books of a tick are taken from."""

    def __getitem__(self, m: int) -> Book:
        """Return the book of a market."""


class MarketTable:
    """The markets after a tick. state: of the whole channel. books: where somebody wants them.

    Everything in it is made when it is first asked for.
    """

    def __init__(self, tick: int, state: wire.State, books: BookSource | None = None) -> None:
        self.tick = tick
        self._state = state
        self._books = books
        self._packed: dict[Part, bytes] = {}
        self._changes: dict[tuple[int, Part], bytes] = {}

    @cached_property
    def _rows(self) -> list[list[int]]:
        return list(map(list, zip(*self._state.values(), strict=True)))

    def numbers(self, part: Part) -> list[int]:
        """Return an entry's numbers."""
        if not part.side:
            return self._rows[part.market]
        assert self._books is not None
        book = self._books[part.market]
        return (book.asks if part.side == _ASKS else book.bids)[: part.numbers]

    def packed(self, part: Part) -> bytes:
        """Return name and numbers of an entry as msgpack."""
        known = self._packed.get(part)
        if known is None:
            known = self._packed[part] = wire.pack(part.name) + wire.pack(self.numbers(part))
        return known

    def change(self, base: MarketTable, part: Part) -> bytes:
        """Return what changed in an entry since an earlier tick, as its block of a delta's packed differences."""
        key = base.tick, part
        if key not in self._changes:
            (self._changes[key],) = pack_blocks([list(map(sub, self.numbers(part), base.numbers(part)))])
        return self._changes[key]

    def state(self, parts: Sequence[Part]) -> wire.State:
        """Return a narrowed state."""
        return {part.name: self.numbers(part) for part in parts}

    def checksum(self, parts: Sequence[Part]) -> int:
        """Return wire.checksum of a narrowed state; its parts are in canonical order."""
        return zlib.crc32(wire.pack_pairs([self.packed(part) for part in parts]))
