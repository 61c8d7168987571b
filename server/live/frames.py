"""From what a tick reports to what goes over the wire: channels and their schema, states of integers, frames.

The only file that knows both engine values and the wire format. Everything public is scaled here once: the GET
documents and the streams carry the same integers over the same scales, so a mirror equals an answer by construction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from arena_client import wire
from numpy.typing import NDArray

from engine.errors import InvariantBroken
from engine.events import CATASTROPHE, DISCOVERY, Event, PublicState
from engine.ladder import UCR
from engine.markets import MARKETS, NAMES, RAW_FIRST, RAW_LAST, RESOURCES
from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, RESOURCE_FIELDS, Field
from server.live.changes import Link, pack

MARKET_TICK: Final = "market_tick"
PSYCHOLOGY: Final = "psychology_update"
INFLATION: Final = "inflation_update"
SCARCITY: Final = "scarcity_update"
STATE: Final = "state"
EVENT: Final = "event"
LINKS: Final = (
    Link("best_ask", "price"),
    Link("best_bid", "price"),
    Link("imbalance", "demand", "supply"),
)
"""Of market_tick: imbalance is demand less supply, and both quotes move with the price."""
RESOURCE_NAMES: Final = NAMES[RAW_FIRST : RAW_LAST + 1]

VALUE_MAX: Final = (1 << 52) - 1
"""Larger values are cut to it, so that every difference of two of them is below 2^53 as well."""
_DOUBLE_MAX: Final = 1e200
SENT_NS_RANGE: Final = 1 << 53
"""sent_ns counts from the server's origin and wraps here, after 104 days."""

#: Integers on the wire a unit of the value, by the engine's unit.
SCALES: Final = {
    "share": 1_000_000, "1": 1_000_000, "bp/lot": 1_000_000_000,
    "bp": 1, "lots": 1, "level": 1, "count": 1, "flag": 1, "hours": 1, "tick": 1,
}  # fmt: skip
#: Money of one lot, hour or household: shown in credits with all six decimals.
_PRICES = frozenset(
    {"price", "best_bid", "best_ask", "indicative_price", "fundamental_price", "income_per_lot", "wage", "transfer"}
)


class WireField(NamedTuple):
    """A value of a channel. value in unit = integer on the wire / scale; scale 0: text.

    length: entries of a list, 0 = a single value. divisor: of the engine's value, to have it in unit.
    """

    name: str
    unit: str
    scale: int
    length: int
    text: str
    divisor: int = 1


class Channel(NamedTuple):
    """What one can subscribe to. kind: state (snapshot, then deltas) or event (numbered, append-only)."""

    name: str
    kind: str
    fields: tuple[WireField, ...]
    text: str

    @property
    def schema(self) -> dict[str, list[Any]]:
        """The fields as hello carries them: name -> [scale, length, unit]."""
        return {field.name: [field.scale, field.length, field.unit] for field in self.fields}

    @property
    def schema_hash(self) -> str:
        """16 hex characters that change when a field is added, renamed, rescaled or resized."""
        return hashlib.sha256(orjson.dumps([self.kind, self.schema], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _wire_field(field: Field, length: int) -> WireField:
    """Scale a field: prices keep every decimal, sums of money are whole credits, fractions are millionths."""
    if field.unit != "ucr":
        return WireField(field.name, field.unit, SCALES[field.unit], length, field.text)
    scale = UCR if field.name in _PRICES else 1
    return WireField(field.name, "credits", scale, length, field.text, UCR)


def _merged(first: tuple[Field, ...], second: tuple[Field, ...]) -> tuple[Field, ...]:
    """Join two groups of fields; a name that both have is the same value and is sent once."""
    names = {field.name for field in first}
    return first + tuple(field for field in second if field.name not in names)


def _event_field(name: str, unit: str, text: str) -> WireField:
    return WireField(name, unit, SCALES.get(unit, 0), 0, text)


_EVENT_FIELDS = (
    _event_field("name", "text", "what happened: resource_discovered or catastrophe_struck"),
    _event_field("resource", "text", "market name of the resource"),
    _event_field("size", "share", "of the base (a find) or of the reserves (a catastrophe)"),
    _event_field("lots", "lots", "found or destroyed"),
)

CHANNELS: Final = {
    channel.name: channel
    for channel in (
        Channel(
            MARKET_TICK,
            STATE,
            tuple(_wire_field(field, MARKETS) for field in MARKET_FIELDS),
            "every market after the tick's auction, in the order of the market ids",
        ),
        Channel(PSYCHOLOGY, STATE, tuple(_wire_field(f, 0) for f in PSYCHOLOGY_FIELDS), "moods of the residents"),
        Channel(
            INFLATION,
            STATE,
            tuple(_wire_field(field, 0) for field in _merged(MONETARY_FIELDS, INDICATOR_FIELDS)),
            "inflation, money, policy and the other macroeconomic indicators",
        ),
        Channel(
            SCARCITY,
            STATE,
            tuple(_wire_field(field, RESOURCES) for field in RESOURCE_FIELDS),
            "the seven resources, in the order of their market ids",
        ),
        Channel(DISCOVERY, EVENT, _EVENT_FIELDS, "a resource was found"),
        Channel(
            CATASTROPHE,
            EVENT,
            (
                *_EVENT_FIELDS,
                _event_field("kind", "text", "natural_disaster or political_instability"),
                _event_field("shock", "1", "added to the event shock that residents feel"),
            ),
            "a disaster destroyed reserves",
        ),
    )
}
STATE_CHANNELS: Final = tuple(channel.name for channel in CHANNELS.values() if channel.kind == STATE)
EVENT_CHANNELS: Final = tuple(channel.name for channel in CHANNELS.values() if channel.kind == EVENT)
UNITS: Final = {channel.name: {f.name: f.unit for f in channel.fields} for channel in CHANNELS.values()}
"""Unit of the scaled value, by channel and field."""
_NAMES = {name: tuple(field.name for field in CHANNELS[name].fields) for name in STATE_CHANNELS}
#: Wire integers a unit of the engine's value, as numerators and denominators: columns, to meet lists and single values.
_RATIOS = {n: [Fraction(f.scale, f.divisor) for f in CHANNELS[n].fields] for n in STATE_CHANNELS}
_NUMERATORS = {n: np.array([[r.numerator] for r in ratios], np.float64) for n, ratios in _RATIOS.items()}
_DENOMINATORS = {n: np.array([[r.denominator] for r in ratios], np.float64) for n, ratios in _RATIOS.items()}

Number = int | float


def quantise(public: PublicState) -> dict[str, wire.State]:
    """Return the wire state of every state channel: integers, or lists of 32 (markets) or 7 (resources) of them.

    Values are rounded to the nearest integer of their scale (ties to even) and cut to +-(2^52 - 1).
    Raises InvariantBroken for a value that is not finite: such a tick must not be published.
    """
    return {
        MARKET_TICK: _integers(MARKET_TICK, public.market),
        PSYCHOLOGY: _integers(PSYCHOLOGY, public.psychology),
        INFLATION: _integers(INFLATION, {**public.indicators, **public.monetary}),
        SCARCITY: _integers(SCARCITY, public.resource),
    }


def channel_values(channel: str, state: Mapping[str, wire.Value]) -> dict[str, Number | list[Number]]:
    """Return the numbers that a state stands for, by field: integer / scale, in the unit of UNITS."""
    return {
        field.name: _scaled(state[field.name], field.scale) for field in CHANNELS[channel].fields if field.name in state
    }


def describe(public: PublicState) -> dict[str, dict[str, Number | list[Number]]]:
    """Return {state channel: {field: number or list}}: what a mirror of that tick shows, for the GET documents."""
    return {channel: channel_values(channel, state) for channel, state in quantise(public).items()}


def snapshot(channel: str, epoch: str, tick: int, sent_ns: int, state: wire.State, reason: str) -> dict[str, Any]:
    """Return the frame that carries a whole state; reason says why it is not a delta."""
    return {
        "type": "snapshot",
        "channel": channel,
        "epoch": epoch,
        "seq": tick,
        "base": None,
        "tick": tick,
        "sent_ns": sent_ns,
        "reason": reason,
        "state": state,
        "crc": wire.checksum(state),
    }


def delta(
    channel: str, epoch: str, base: int, tick: int, sent_ns: int, before: wire.State, after: wire.State
) -> dict[str, Any]:
    """Return the frame that turns the state of tick base into that of tick; every tenth tick's carries the checksum."""
    packed = pack(before, after, LINKS if channel == MARKET_TICK else ())
    return delta_of(channel, epoch, base, tick, sent_ns, packed, wire.checksum(after) if has_checksum(tick) else None)


def delta_of(
    channel: str, epoch: str, base: int, tick: int, sent_ns: int, packed: bytes, crc: int | None
) -> dict[str, Any]:
    """Return a delta whose differences are packed already. crc: of the state it leads to, None: not in this frame."""
    frame = {
        "type": "delta",
        "channel": channel,
        "epoch": epoch,
        "seq": tick,
        "base": base,
        "tick": tick,
        "sent_ns": sent_ns,
        "diff": packed,
    }
    return frame if crc is None else frame | {"crc": crc}


def has_checksum(tick: int) -> bool:
    """Say whether the delta of a tick carries the checksum."""
    return tick % wire.CRC_EVERY == 0


def in_json(frame: Mapping[str, Any], epoch: str, state: wire.State) -> dict[str, Any]:
    """Return a delta as JSON has it. state: any of its fields and list lengths."""
    named = {name: value for name, value in frame.items() if name not in ("type", "channel", "epoch", "diff")}
    head = {"type": frame["type"], "channel": frame["channel"], "epoch": epoch}
    return head | named | {"diff": wire.changes(state, frame["diff"])}


def event(happened: Event, epoch: str, sent_ns: int) -> dict[str, Any]:
    """Return the frame of an event, its values scaled as its channel's schema says."""
    values = {"name": happened.name, **happened.data}
    return {
        "type": "event",
        "channel": happened.channel,
        "epoch": epoch,
        "seq": happened.number,
        "base": happened.number - 1,
        "tick": happened.tick,
        "sent_ns": sent_ns,
        "event": {f.name: _event_value(values[f.name], f.scale) for f in CHANNELS[happened.channel].fields},
    }


def sent_ns(unix_ns: int, origin_unix_ms: int) -> int:
    """Return a time of publication as frames carry it: ns from the server's origin, in [0, 2^53)."""
    return (unix_ns - origin_unix_ms * 1_000_000) % SENT_NS_RANGE


def _integers(channel: str, values: Mapping[str, Number | NDArray[Any]]) -> wire.State:
    names = _NAMES[channel]
    # one float64 matrix: integers below 2^53 are exact in it, larger ones lose less than their scale cuts off
    table = np.array([values[name] for name in names], np.float64)
    is_single = table.ndim == 1
    if is_single:
        table = table[:, None]
    if not np.isfinite(table).all():
        bad = [name for name, row in zip(names, table, strict=True) if not np.isfinite(row).all()]
        raise InvariantBroken(f"{channel}: not finite: {', '.join(bad)}")
    # cut before as well: a double that is far too large would overflow on its way to being cut
    table = np.clip(table, -_DOUBLE_MAX, _DOUBLE_MAX)
    # divided, because 1e-6 is no double: a product with it would round halves by chance
    whole = np.rint(table * _NUMERATORS[channel] / _DENOMINATORS[channel])
    integers = np.clip(whole, -VALUE_MAX, VALUE_MAX).astype(np.int64)
    return dict(zip(names, (integers[:, 0] if is_single else integers).tolist(), strict=True))


def _scaled(value: wire.Value, scale: int) -> Number | list[Number]:
    if scale == 1:
        return list(value) if isinstance(value, list) else value
    return [entry / scale for entry in value] if isinstance(value, list) else value / scale


def _event_value(value: Any, scale: int) -> int | str:
    return round(value * scale) if scale else str(value)
