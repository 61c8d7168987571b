"""The row of `arena bench` about the size of what goes over the wire: deltas beside whole states.

Source: DESIGN section 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from arena_client import wire

from engine.config import Config
from engine.economy import Economy
from server.bench_row import Row
from server.live import frames
from server.live.frames import STATE_CHANNELS

RESIDENTS = 100_000
SEED = 1
WARM_UP_TICKS = 500
EPOCH = "0123456789abcdef"
SENT_NS = 1 << 45
"""Nine hours after the server's start: as long in msgpack as at any later time."""


@dataclass
class Sizes:
    """Bytes of a channel, summed over ticks."""

    delta: int = 0
    json: int = 0
    msgpack: int = 0


def delta_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure the bytes of delta frames over those of the same states whole, as JSON and as msgpack."""
    ticks = 100 if quick else 1_000
    sizes = measure(Economy(Config(residents=RESIDENTS), SEED), WARM_UP_TICKS, ticks)
    total = Sizes(
        sum(size.delta for size in sizes.values()),
        sum(size.json for size in sizes.values()),
        sum(size.msgpack for size in sizes.values()),
    )
    channels = "; ".join(
        f"{name} {size.delta / ticks:.0f} B: {size.delta / size.json:.2f}, {size.delta / size.msgpack:.2f}"
        for name, size in sizes.items()
    )
    includes = (
        f"delta frames of all four state channels over the same states whole, all markets and fields, {ticks} ticks in"
        f" a row of {RESIDENTS} residents; mean frame, over JSON, over msgpack: {channels}"
    )
    excludes = "WebSocket framing, 2 to 4 bytes a frame"
    return [
        Row(
            id=name,
            value=round(total.delta / whole, 3),
            unit=f"x the bytes of {encoding}",
            bar=bar,
            spread="exact",
            includes=includes,
            excludes=excludes,
        )
        for name, whole, encoding, bar in (
            ("delta_bytes", total.json, "the same frame in JSON, whole", 0.2),
            ("delta_bytes_msgpack", total.msgpack, "the same frame in msgpack, whole", 0.5),
        )
    ]


def measure(economy: Economy, warm_up_ticks: int, ticks: int) -> dict[str, Sizes]:
    """Return the sizes of each channel over so many ticks."""
    for _ in range(warm_up_ticks):
        economy.advance()
    sizes = {name: Sizes() for name in STATE_CHANNELS}
    before = frames.quantise(economy.advance().public)
    for _ in range(ticks):
        report = economy.advance()
        after = frames.quantise(report.public)
        for name, whole in _whole(report.tick, after):
            size = sizes[name]
            delta = frames.delta(name, EPOCH, report.tick - 1, report.tick, SENT_NS, before[name], after[name])
            size.delta += len(wire.encode(delta, wire.SUBPROTOCOL_MSGPACK))
            size.msgpack += len(wire.encode(whole, wire.SUBPROTOCOL_MSGPACK))
            size.json += len(wire.encode(whole, wire.SUBPROTOCOL_JSON))
        before = after
    return sizes


def _whole(tick: int, states: dict[str, wire.State]) -> Iterator[tuple[str, dict[str, object]]]:
    for name, state in states.items():
        yield name, frames.snapshot(name, EPOCH, tick, SENT_NS, state, "resync")
