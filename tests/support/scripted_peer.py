"""A WebSocket server written from docs/protocol.md with plain msgpack and json, that does what a test's scripts say.

Connection after connection takes the next script; when there are none left the last one is repeated.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

EPOCH = "0123456789abcdef"
MARKET, FINDS = "market_tick", "discovery_event"
SUBPROTOCOLS = [Subprotocol("arena.v2.msgpack"), Subprotocol("arena.v2.json")]
State = dict[str, Any]
Script = Callable[["Talk"], Awaitable[None]]


def state_at(seq: int) -> State:
    """Return the state of the scripted market at seq."""
    return {"price": [1000 * seq + i for i in range(4)], "level": -seq}


class Talk:
    """One connection, seen from the server. requests: what the client has sent on it."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.requests: list[dict[str, Any]] = []
        self.is_text = socket.subprotocol == "arena.v2.json"

    async def send(self, **message: Any) -> None:
        """Send a message."""
        await self.socket.send(json.dumps(message) if self.is_text else msgpack.packb(message))

    async def receive(self, op: str) -> dict[str, Any]:
        """Take the client's next message, which must have this op."""
        data = await self.socket.recv()
        message: dict[str, Any] = json.loads(data) if isinstance(data, str) else msgpack.unpackb(data)
        self.requests.append(message)
        assert message["op"] == op, message
        return message

    async def hello(self, epoch: str = EPOCH, heartbeat_s: float = 15.0) -> None:
        """Greet."""
        await self.send(
            type="hello",
            version=2,
            epoch=epoch,
            tick=0,
            tick_rate_ms=100,
            heartbeat_s=heartbeat_s,
            origin_unix_ms=0,
            markets=["labour", "oil", "lithium", "food"],
            resources=["oil"],
            channels=[
                {"name": MARKET, "kind": "state", "fields": {"price": [1000, 4, "credits"], "level": [1, 0, "level"]}},
                {"name": FINDS, "kind": "event", "fields": {"name": [0, 0, "text"], "size": [1000, 0, "share"]}},
            ],
            limits={},
        )

    async def ack(self, request: dict[str, Any], **fields: Any) -> None:
        """Acknowledge a request."""
        said = {"type": "ack", "op": request["op"], "id": request["id"], "channel": request["channel"], "epoch": EPOCH}
        await self.send(**{**said, "seq": 0, "resumed": "seq" in request, **fields})

    async def accept(self, channel: str = MARKET, epoch: str = EPOCH, **fields: Any) -> dict[str, Any]:
        """Greet, take the subscription to channel and acknowledge it."""
        await self.hello(epoch)
        request = await self.receive("subscribe")
        assert request["channel"] == channel, request
        await self.ack(request, **fields)
        return request

    async def snapshot(self, seq: int, /, epoch: str = EPOCH, reason: str = "subscribed", **changes: Any) -> None:
        """Send the whole state at seq."""
        state = state_at(seq)
        heading = {"type": "snapshot", "channel": MARKET, "epoch": epoch, "seq": seq, "base": None, "tick": seq}
        frame = {**heading, "sent_ns": seq, "reason": reason, "state": state, "crc": crc(state)}
        await self.send(**{**frame, **changes})

    async def delta(self, seq: int, /, epoch: str = EPOCH, **changes: Any) -> None:
        """Send what leads from seq - 1 to seq; every entry of price grows by 1000."""
        heading = {"type": "delta", "channel": MARKET, "epoch": epoch, "seq": seq, "base": seq - 1, "tick": seq}
        frame = {**heading, "sent_ns": seq, "diff": {"level": -1, "price": [1000] * 4}}
        if seq % 10 == 0:
            frame["crc"] = crc(state_at(seq))
        await self.send(**{**frame, **changes})

    async def find(self, seq: int, /, epoch: str = EPOCH, **changes: Any) -> None:
        """Send an event."""
        heading = {"type": "event", "channel": FINDS, "epoch": epoch, "seq": seq, "base": seq - 1, "tick": seq}
        event = {"name": "resource_discovered", "size": seq}
        await self.send(**{**heading, "sent_ns": seq, "event": event, **changes})

    async def until_closed(self) -> tuple[int, str]:
        """Wait until the client closes, and return its code and reason; what it sends meanwhile is kept."""
        try:
            while True:
                data = await self.socket.recv()
                self.requests.append(json.loads(data) if isinstance(data, str) else msgpack.unpackb(data))
        except ConnectionClosed as closed:
            return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)

    def drop(self) -> None:
        """Cut the connection without a word."""
        self.socket.transport.abort()


class Peer:
    """The server. talks: its connections, oldest first. errors: what went wrong in scripts."""

    def __init__(self, *scripts: Script) -> None:
        self.url = ""
        self.talks: list[Talk] = []
        self.errors: list[BaseException] = []
        self.opened = asyncio.Condition()
        self._scripts = scripts

    async def handle(self, socket: ServerConnection) -> None:
        """Run the next script on a connection."""
        script = self._scripts[min(len(self.talks), len(self._scripts) - 1)]
        talk = Talk(socket)
        self.talks.append(talk)
        try:
            await script(talk)
        except ConnectionClosed:
            return
        except BaseException as error:
            self.errors.append(error)
            raise


@asynccontextmanager
async def run_peer(
    *scripts: Script,
    process_request: Callable[[ServerConnection, Request], Response | None] | None = None,
    subprotocols: list[Subprotocol] | None = SUBPROTOCOLS,
) -> AsyncIterator[Peer]:
    """Run a peer on a free port; a script that failed fails the test."""
    peer = Peer(*scripts)
    server: Server
    async with serve(
        peer.handle, "127.0.0.1", 0, subprotocols=subprotocols, process_request=process_request, ping_interval=None
    ) as server:
        peer.url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield peer
    assert peer.errors == []


def crc(state: State) -> int:
    """Return the checksum of a state: CRC-32 of its msgpack with sorted keys."""
    return zlib.crc32(msgpack.packb({key: state[key] for key in sorted(state)}))
