"""What every client saw, held against what every other one saw, and against the server in the end."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from typing import Any, NamedTuple

from arena_client import ArenaStream, EventReceived, Lagged, StateChanged, wire
from arena_client.backoff import Backoff
from arena_client.stream import OutOfStep

STATE, EVENTS = ("market_tick", "psychology_update"), ("discovery_event", "catastrophic_event")
NARROWED = STATE[0]
"""The channel that may be narrowed to markets."""
BACKOFF = Backoff(base_s=0.05, cap_s=1.0)
"""Shorter than the SDK's own: most connections here are cut for the sake of it."""


class Referee:
    """Collects the states of all clients by channel and seq: two that differ are a mistake nobody has noticed."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str, int], int] = {}
        self.seen = 0
        self.differing: list[str] = []
        self.noticed: Counter[str] = Counter()
        self.checksum_misses: list[str] = []

    def take(self, name: str, channel: str, epoch: str, seq: int, state: Any) -> None:
        """Compare a client's state with what others had at the same place."""
        mine = zlib.crc32(wire.canonical(state))
        self.seen += 1
        if self.states.setdefault((channel, epoch, seq), mine) != mine:
            self.differing.append(f"{name}: {channel} at {seq}")

    def hear(self, name: str, channel: str, reason: str) -> None:
        """Take note that a client knows it is out of step."""
        self.noticed[reason.split(":")[0]] += 1
        if "checksum" in reason:
            self.checksum_misses.append(f"{name}: {channel}: {reason}")


class Narrowing(NamedTuple):
    """What a client wants of `market_tick`: only some markets, a frame every so many ticks."""

    markets: tuple[str, ...]
    every: int


class Client:
    """A user of the SDK that follows four channels and believes nothing.

    narrowing: of its `market_tick`, None for all of it. events: by channel, the numbers of the events that came, in
    order.
    """

    def __init__(
        self, name: str, port: int, referee: Referee, subprotocol: str, narrowing: Narrowing | None = None
    ) -> None:
        self.name = name
        self.narrowing = narrowing
        self.stream = ArenaStream(f"http://127.0.0.1:{port}", subprotocol=subprotocol, backoff=BACKOFF, silence_s=5.0)
        self.events: dict[str, list[int]] = {channel: [] for channel in EVENTS}
        self.lagged = 0
        self._referee = referee
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled. Raises what ended the stream."""
        async with self.stream as stream:
            for channel in STATE:
                await stream.subscribe(channel, **self._wishes(channel))
            for channel in EVENTS:
                await stream.follow(channel, since=0)
            self._ready.set()
            async for update in stream:
                match update:
                    case StateChanged(channel, mirror):
                        assert mirror.epoch is not None
                        assert mirror.seq is not None
                        place = f"{channel} {self._wishes(channel) or ''}"
                        self._referee.take(self.name, place, mirror.epoch, mirror.seq, mirror.state)
                    case EventReceived(channel):
                        self.events[channel].append(update.seq)
                    case OutOfStep(channel, reason):
                        self._referee.hear(self.name, channel, reason)
                    case Lagged():
                        self.lagged += 1

    def _wishes(self, channel: str) -> dict[str, Any]:
        return self.narrowing._asdict() if self.narrowing and channel == NARROWED else {}

    async def ready(self) -> None:
        """Return when it follows everything."""
        await self._ready.wait()

    def stands_at(self, tick: int) -> bool:
        """Say whether both copies have come as far as a tick."""
        mirrors = [self.stream.mirror(channel) for channel in STATE]
        return all(mirror.stale is None and (mirror.seq or 0) >= tick for mirror in mirrors)
