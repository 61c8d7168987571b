"""Every public value by name, and a tick of them as one row of whole numbers: what all stores of the past agree on.

row = tick | ms since 1970 | checksum | the integers of every state channel, as they were streamed
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from arena_client.wire import State
from numpy.typing import NDArray

from engine.markets import MARKETS, NAMES, RAW_FIRST, RESOURCES
from server.live.frames import CHANNELS, INFLATION, MARKET_TICK, PSYCHOLOGY, SCARCITY, STATE_CHANNELS, WireField

Rows = NDArray[np.int64]

TICK, UNIX_MS, CHECKSUM = 0, 1, 2
HEAD = 3
"""Columns before the values."""


class Series(NamedTuple):
    """One value over time. place: field (and market or resource) in its channel; column: among the values of a row."""

    name: str
    channel: str
    field: WireField
    place: tuple[int, ...]
    column: int


def _begins() -> dict[str, int]:
    begins, end = {}, 0
    for name in STATE_CHANNELS:
        begins[name] = end
        end += sum(field.length or 1 for field in CHANNELS[name].fields)
    return {**begins, "": end}


BEGINS = _begins()
"""The first column of each state channel."""
WIDTH = BEGINS.pop("")
"""Values of a tick."""


def _catalogue() -> dict[str, Series]:
    """Return every series: macro values by name, `market.field` and `resource.field`."""
    series: dict[str, Series] = {}
    for channel in (PSYCHOLOGY, INFLATION):
        for i, field in enumerate(CHANNELS[channel].fields):
            # a name both channels have is the same value
            series.setdefault(field.name, Series(field.name, channel, field, (i,), BEGINS[channel] + i))
    for channel, first, count in ((MARKET_TICK, 0, MARKETS), (SCARCITY, RAW_FIRST, RESOURCES)):
        for i, field in enumerate(CHANNELS[channel].fields):
            for k in range(count):
                name = f"{NAMES[first + k]}.{field.name}"
                series[name] = Series(name, channel, field, (i, k), BEGINS[channel] + i * count + k)
    return series


SERIES = _catalogue()
SCHEMA_HASH = hashlib.sha256(":".join(CHANNELS[name].schema_hash for name in STATE_CHANNELS).encode()).hexdigest()[:16]
"""Changes when a value of a row is added, renamed, rescaled or resized."""


def pack(tick: int, states: Mapping[str, State], unix_ns: int) -> Rows:
    """Return a tick as a row, its checksum still 0. states: of each state channel; unix_ns: when it began."""
    row = np.zeros(HEAD + WIDTH, np.int64)
    row[TICK], row[UNIX_MS] = tick, unix_ns // 1_000_000
    for name, begin in BEGINS.items():
        values = np.array(list(states[name].values()), np.int64)
        row[HEAD + begin : HEAD + begin + values.size] = values.ravel()
    return row


def unpack(row: Rows) -> dict[str, State]:
    """Return the states of a row, equal to what was packed."""
    states: dict[str, State] = {}
    for name, begin in BEGINS.items():
        fields = CHANNELS[name].fields
        length = fields[0].length
        values = row[HEAD + begin : HEAD + begin + len(fields) * (length or 1)]
        columns = values.reshape(len(fields), length).tolist() if length else values.tolist()
        states[name] = dict(zip((field.name for field in fields), columns, strict=True))
    return states
