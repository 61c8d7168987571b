"""Clients of a whole server's stream: one that says what it likes, and one that mirrors and remembers every tick."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from arena_client import wire
from arena_client.mirror import Mirror, scales
from arena_client.wire import EVENT_CHANNELS, STATE_CHANNELS, SUBPROTOCOL_MSGPACK
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.streams import Watcher

Position = tuple[str, int]
"""Epoch and seq to resume after."""


@asynccontextmanager
async def watch(ws_url: str, subprotocol: str = SUBPROTOCOL_MSGPACK) -> AsyncIterator[Watcher]:
    """Connect and read the hello."""
    async with connect(
        ws_url,
        subprotocols=[subprotocol],  # type: ignore[list-item]  # a NewType of str
        compression=None,
        max_size=None,
    ) as connection:
        watcher = Watcher(connection, subprotocol)
        assert (await watcher.next())["type"] == "hello"
        yield watcher


class Follower:
    """Mirrors all state channels of a server over one connection and keeps each state by tick; counts events.

    states: channel -> tick -> state. events: channel -> numbers as they came. acks: channel -> what subscribing was
    answered. Every frame must fit: a gap, a wrong checksum or an error fails at once.
    """

    def __init__(self, ws_url: str, subprotocol: str) -> None:
        self.ws_url = ws_url
        self.subprotocol = subprotocol
        self.mirrors = {channel: Mirror(channel) for channel in STATE_CHANNELS}
        self.states: dict[str, dict[int, Mapping[str, wire.Value]]] = {channel: {} for channel in STATE_CHANNELS}
        self.events: dict[str, list[int]] = {channel: [] for channel in EVENT_CHANNELS}
        self.acks: dict[str, dict[str, Any]] = {}
        self._epoch: str | None = None
        self.close_code: int | None = None

    @property
    def tick(self) -> int:
        """The tick at which all mirrors stand or have stood; -1 before the first."""
        return min(mirror.tick if mirror.tick is not None else -1 for mirror in self.mirrors.values())

    @property
    def positions(self) -> dict[str, Position]:
        """Where each channel can be resumed."""
        states = {channel: at for channel, mirror in self.mirrors.items() if (at := mirror.position) is not None}
        events = {channel: (self._epoch, seen[-1]) for channel, seen in self.events.items() if seen and self._epoch}
        return states | events

    async def run(self) -> None:
        """Subscribe to everything, from where the mirrors stand, and follow until the server closes."""
        positions = self.positions
        async with connect(
            self.ws_url,
            subprotocols=[self.subprotocol],  # type: ignore[list-item]  # a NewType of str
            compression=None,
            max_size=None,
        ) as connection:
            for channel in (*STATE_CHANNELS, *EVENT_CHANNELS):
                message = {"op": "subscribe", "id": channel, "channel": channel}
                if channel in positions:
                    message |= dict(zip(("epoch", "seq"), positions[channel], strict=True))
                await connection.send(wire.encode(message, self.subprotocol))
            try:
                async for data in connection:
                    self._take(wire.decode(data, self.subprotocol))
            except ConnectionClosed:
                pass  # the server closed with another code than 1000; which one is told below
            self.close_code = connection.close_code

    def _take(self, message: Mapping[str, Any]) -> None:
        channel = message.get("channel")
        match message["type"]:
            case "hello":
                self._epoch = message["epoch"]
                for described in message["channels"]:
                    if described["name"] in self.mirrors:
                        self.mirrors[described["name"]].scales = scales(described)
            case "ack":
                self.acks[message["id"]] = dict(message)
            case "snapshot" | "delta":
                mirror = self.mirrors[str(channel)]
                assert mirror.feed(message).applied, mirror.stale
                self.states[mirror.channel][message["tick"]] = mirror.state
            case "event":
                self.events[str(channel)].append(message["seq"])
            case "heartbeat" | "shutdown":
                pass
            case _:
                raise AssertionError(message)
