"""A local copy of one state channel that is either right or says that it is not.

No input or output happens here: frames go in, a verdict comes out, whoever owns the connection asks for the resync.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from arena_client import wire

Number = int | float


class Book(NamedTuple):
    """What an auction left unfilled in a market: (price in credits, lots) a level, best first."""

    asks: list[tuple[float, int]]
    bids: list[tuple[float, int]]


class Verdict(NamedTuple):
    """What became of a frame.

    applied: the copy now stands at the frame's seq. needs_resync: why only a snapshot helps, None when all is well.
    Neither: the frame was older than the copy and changed nothing.
    """

    applied: bool
    needs_resync: str | None = None


APPLIED: Final = Verdict(True)
IGNORED: Final = Verdict(False)


class Mirror:
    """The state of one channel, kept by its snapshots and deltas.

    channel: its name. epoch, seq, tick, sent_ns: of the frame the copy stands at, None before the first.
    stale: why the copy waits for a snapshot, None while it is in step. The last state stays readable meanwhile.
    verified_seq: the last seq at which the server's checksum agreed.
    scales: field -> scale, set by whoever knows the channel's schema (the session takes it from the server's hello).
    markets: names of the markets in the order of every list of `market_tick`; fields: of a copy that is narrowed to
    markets, the order of each market's values; empty when it is not narrowed.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.epoch: str | None = None
        self.seq: int | None = None
        self.tick: int | None = None
        self.sent_ns: int | None = None
        self.stale: str | None = "no snapshot yet"
        self.verified_seq: int | None = None
        self.scales: dict[str, int] = {}
        self.markets: tuple[str, ...] = ()
        self.fields: tuple[str, ...] = ()
        self._state: wire.State = {}

    @property
    def state(self) -> Mapping[str, wire.Value]:
        """The integers as they came, read-only. A later frame makes a new state and leaves this one as it is."""
        return MappingProxyType(self._state)

    @property
    def position(self) -> tuple[str, int] | None:
        """(epoch, seq) to resume after, None when only a snapshot would do."""
        if self.stale is not None or self.epoch is None or self.seq is None:
            return None
        return self.epoch, self.seq

    def feed(self, frame: Mapping[str, Any]) -> Verdict:
        """Take one snapshot or delta frame of this channel and say what became of it.

        Never raises on what a server may send; a frame that cannot be right leaves the copy as it was, and stale.
        Raises ValueError for a frame of another channel: that is a mistake of the caller.
        """
        if frame.get("channel") != self.channel:
            raise ValueError(f"the mirror of {self.channel} got a frame of {frame.get('channel')!r}")
        try:
            if frame.get("type") == "snapshot":
                return self._take_snapshot(frame)
            if frame.get("type") == "delta":
                return self._take_delta(frame)
            raise wire.WireError(f"a state channel sends snapshot and delta, got {frame.get('type')!r}")
        except wire.WireError as error:
            return self._lose(f"malformed: {error}")

    def lost(self, reason: str) -> None:
        """Mark the copy stale, so that only a snapshot brings it back in step."""
        self.stale = reason

    def values(self) -> dict[str, Number | list[Number]]:
        """Return the state in the units of the schema: every integer divided by its field's scale.

        Equal to what the GET of the same tick shows, to the last bit; narrowed to markets, field -> one value each.
        Raises KeyError when `scales` lacks a field.
        """
        return {field: _scaled(self._value(field), self.scales[field]) for field in self.fields or self._state}

    def value(self, field: str) -> Number:
        """Return one single-valued field in its unit. Raises KeyError for an unknown field, TypeError for a list."""
        value = _scaled(self._value(field), self.scales[field])
        if isinstance(value, list):
            raise TypeError(f"{field} has {len(value)} entries, use series()")
        return value

    def series(self, field: str) -> list[Number]:
        """Return one field that has an entry per market or resource, in its unit. Raises as `value`, the other way."""
        value = _scaled(self._value(field), self.scales[field])
        if not isinstance(value, list):
            raise TypeError(f"{field} is a single value, use value()")
        return value

    def book(self, market: str) -> Book:
        """Return what the last auction left unfilled in a market, as many levels as the subscription's depth.

        Raises KeyError when the copy has no book of that market.
        """
        asks, bids = self._state[f"{market}.asks"], self._state[f"{market}.bids"]
        assert isinstance(asks, list)
        assert isinstance(bids, list)
        return Book(_levels(asks, self.scales["price"]), _levels(bids, self.scales["price"]))

    def narrow(self, markets: Sequence[str], fields: Sequence[str]) -> None:
        """Say that the copy is narrowed: its state has a list of these fields' values for each of these markets."""
        self.markets, self.fields = tuple(markets), tuple(fields)

    def _value(self, field: str) -> wire.Value:
        if not self.fields:
            return self._state[field]
        if field not in self.fields:
            raise KeyError(field)
        index = self.fields.index(field)
        rows = [self._state[market] for market in self.markets if market in self._state]
        return [row[index] for row in rows if isinstance(row, list)]

    def _take_snapshot(self, frame: Mapping[str, Any]) -> Verdict:
        epoch, seq, tick, sent_ns = _heading(frame)
        if self.stale is None and epoch == self.epoch and self.seq is not None and seq < self.seq:
            return IGNORED
        state = _checked_state(frame.get("state"))
        crc = frame.get("crc")
        if crc is None:
            raise wire.WireError("a snapshot must carry its checksum")
        if crc != wire.checksum(state):
            return self._lose("checksum mismatch in a snapshot")
        self.verified_seq = seq
        return self._stand_at(epoch, seq, tick, sent_ns, state)

    def _take_delta(self, frame: Mapping[str, Any]) -> Verdict:
        # in msgpack a delta leaves its epoch out: it is that of the subscription
        epoch, seq, tick, sent_ns = _heading(frame if "epoch" in frame else {**frame, "epoch": self.epoch or ""})
        base = frame.get("base")
        if type(base) is not int or base >= seq:
            raise wire.WireError(f"a delta needs a base below its seq, got {base!r} and {seq}")
        if self.stale is not None:
            return Verdict(False, self.stale)
        if epoch != self.epoch:
            return self._lose(f"the epoch changed from {self.epoch} to {epoch}")
        if self.seq is not None and seq <= self.seq:
            return IGNORED
        if base != self.seq:
            return self._lose(f"a gap: stands at {self.seq}, the delta starts at {base}")
        state = wire.apply(self._state, frame)
        crc = frame.get("crc")
        if crc is not None:
            if crc != wire.checksum(state):
                return self._lose(f"checksum mismatch at seq {seq}")
            self.verified_seq = seq
        return self._stand_at(epoch, seq, tick, sent_ns, state)

    def _stand_at(self, epoch: str, seq: int, tick: int, sent_ns: int, state: wire.State) -> Verdict:
        self.epoch, self.seq, self.tick, self.sent_ns = epoch, seq, tick, sent_ns
        self.stale = None
        self._state = state
        return APPLIED

    def _lose(self, reason: str) -> Verdict:
        self.stale = reason
        return Verdict(False, reason)


def scales(channel: Mapping[str, Any]) -> dict[str, int]:
    """Return field -> scale from a channel's description in hello: {"fields": {field: [scale, length, unit]}}.

    Raises WireError when it is none.
    """
    try:
        found = {str(field): facts[0] for field, facts in channel["fields"].items()}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise wire.WireError(f"a channel needs fields as name -> [scale, length, unit]: {error!r}") from error
    if not all(type(scale) is int and scale >= 0 for scale in found.values()):
        raise wire.WireError("a scale is a whole number: 0 for text, else what an integer is divided by")
    return found


def _heading(frame: Mapping[str, Any]) -> tuple[str, int, int, int]:
    epoch = frame.get("epoch")
    if not isinstance(epoch, str):
        raise wire.WireError("a data frame needs its epoch as a string")
    numbers = [frame.get(name) for name in ("seq", "tick", "sent_ns")]
    if not all(type(number) is int for number in numbers):
        raise wire.WireError("a data frame needs seq, tick and sent_ns as integers")
    seq, tick, sent_ns = numbers
    return epoch, seq, tick, sent_ns  # type: ignore[return-value]  # the line above has checked them


def _checked_state(state: Any) -> wire.State:
    if not isinstance(state, dict):
        raise wire.WireError("a snapshot needs its state as a map")
    for field, value in state.items():
        entries = value if isinstance(value, list) else [value]
        if not isinstance(field, str) or not set(map(type, entries)) <= {int}:
            raise wire.WireError(f"{field!r} must be an integer or a list of integers")
    return dict(state)


def _levels(numbers: list[int], scale: int) -> list[tuple[float, int]]:
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return [(price / scale, lots) for price, lots in pairs if lots]


def _scaled(value: wire.Value, scale: int) -> Number | list[Number]:
    if scale == 1:
        return list(value) if isinstance(value, list) else value
    return [entry / scale for entry in value] if isinstance(value, list) else value / scale
