"""Many subscribers in one process: a receiver so light that the server is what is measured.

    python -m loadtest.swarm --url http://127.0.0.1:8000 --subscribers 1000

Runs until its standard input closes, then prints one JSON object. Every hundredth subscriber keeps a mirror and checks
every frame and checksum; the others take frames apart and count them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import sys
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from arena_client import wire
from arena_client.mirror import Mirror

STRICT_EVERY = 100
CONNECTS_AT_A_TIME = 50
_PING, _CLOSE, _PONG = 9, 8, 10


class Subscriber(asyncio.Protocol):
    """One WebSocket connection that subscribes to a channel and counts what comes.

    frames: data frames. payload_bytes: of them. lost: gaps and mismatches a strict one found. closed: close code, or
    0 while it is open.
    """

    def __init__(self, host: str, channel: str, mirror: Mirror | None) -> None:
        self.frames = 0
        self.payload_bytes = 0
        self.lost: list[str] = []
        self.closed = 0
        self._host = host
        self._channel = channel
        self._mirror = mirror
        self._buffer = bytearray()
        self._is_open = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = (
            "GET /ws HTTP/1.1",
            f"Host: {self._host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {wire.SUBPROTOCOL_MSGPACK}",
        )
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    def data_received(self, data: bytes) -> None:
        """Take apart what has come."""
        self._buffer += data
        if not self._is_open:
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(head.split(b"\r\n")[0].decode())
                return
            self._is_open = True
            self._buffer = bytearray(rest)
            self._send(2, _pack({"op": "subscribe", "id": 1, "channel": self._channel}))
        self._take_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember that it is over."""
        self.closed = self.closed or 1006

    def close(self) -> None:
        """End the connection in order."""
        if self._transport is not None and not self.closed:
            self._send(_CLOSE, (1000).to_bytes(2, "big"))
            self._transport.close()

    def _take_frames(self) -> None:
        buffer, start = self._buffer, 0
        while len(buffer) - start >= 2:
            opcode, length, head = buffer[start] & 15, buffer[start + 1] & 127, 2
            if length > 125:
                size = 2 if length == 126 else 8
                head += size
                length = int.from_bytes(buffer[start + 2 : start + head], "big")
            if len(buffer) - start < head + length:
                break
            self._take(opcode, bytes(buffer[start + head : start + head + length]))
            start += head + length
        del buffer[:start]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self._send(_PONG, payload)
        elif opcode == _CLOSE:
            self.closed = int.from_bytes(payload[:2], "big") or 1005
        # a data frame is a map that carries its channel; hello, ack and heartbeat carry none
        elif b"\xa7channel" in payload[:64]:
            self.frames += 1
            self.payload_bytes += len(payload)
            if self._mirror is not None:
                self._check(wire.decode(payload, wire.SUBPROTOCOL_MSGPACK))

    def _check(self, frame: dict[str, Any]) -> None:
        assert self._mirror is not None
        if frame["type"] in ("snapshot", "delta"):
            verdict = self._mirror.feed(frame)
            if verdict.needs_resync is not None:
                self.lost.append(verdict.needs_resync)

    def _send(self, opcode: int, payload: bytes) -> None:
        assert self._transport is not None
        # clients must mask; a mask of zeros leaves the bytes as they are
        self._transport.write(bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload)

    def _fail(self, reason: str) -> None:
        self.lost.append(reason)
        assert self._transport is not None
        self._transport.close()


def _itself(one: Subscriber) -> Subscriber:
    return one


def _pack(message: dict[str, Any]) -> bytes:
    return cast(bytes, wire.encode(message, wire.SUBPROTOCOL_MSGPACK))


async def run(url: str, count: int, channel: str) -> dict[str, Any]:
    """Hold count subscribers until standard input closes and return what they saw."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    loop = asyncio.get_running_loop()
    subscribers = [
        Subscriber(f"{host}:{port}", channel, Mirror(channel) if i % STRICT_EVERY == 0 else None) for i in range(count)
    ]
    for first in range(0, count, CONNECTS_AT_A_TIME):
        batch = subscribers[first : first + CONNECTS_AT_A_TIME]
        await asyncio.gather(*(loop.create_connection(partial(_itself, one), host, port) for one in batch))
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    frames = [one.frames for one in subscribers]
    result = {
        "subscribers": count,
        "channel": channel,
        "frames": sum(frames),
        "frames_fewest": min(frames),
        "frames_most": max(frames),
        "payload_bytes": sum(one.payload_bytes for one in subscribers),
        "closed_early": sum(1 for one in subscribers if one.closed),
        "lost": [reason for one in subscribers for reason in one.lost],
        "strict": sum(1 for i in range(count) if i % STRICT_EVERY == 0),
    }
    for one in subscribers:
        one.close()
    return result


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--channel", default="market_tick")
    given = parser.parse_args()
    result = asyncio.run(run(given.url, given.subscribers, given.channel))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
