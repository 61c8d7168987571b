"""Many subscribers in one process: a receiver so light that the server is what is measured.

    python -m loadtest.swarm --url http://127.0.0.1:8000 --subscribers 1000

Runs until its standard input closes, then prints one JSON object. Every hundredth subscriber keeps a mirror and checks
every frame and checksum; the others take frames apart and count them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from arena_client import wire
from arena_client.mirror import Mirror

from loadtest.websocket import Connection

STRICT_EVERY = 100
CONNECTS_AT_A_TIME = 50


class Subscriber(Connection):
    """One WebSocket connection that subscribes to a channel and counts what comes.

    frames: data frames. payload_bytes: of them. lost: gaps and mismatches a strict one found, or why it was refused.
    """

    def __init__(self, channel: str, mirror: Mirror | None) -> None:
        super().__init__()
        self.frames = 0
        self.payload_bytes = 0
        self.lost: list[str] = []
        self._channel = channel
        self._mirror = mirror

    def opened(self) -> None:
        """Subscribe."""
        self.send({"op": "subscribe", "id": 1, "channel": self._channel})

    def message(self, data: bytes) -> None:
        """Count a message."""
        if is_data(data):
            self.frames += 1
            self.payload_bytes += len(data)
            if self._mirror is not None:
                self._check(wire.decode(data, wire.SUBPROTOCOL_MSGPACK))

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember that it is over, and why it never began."""
        super().connection_lost(exc)
        if self.refused:
            self.lost.append(self.refused)

    def _check(self, frame: dict[str, Any]) -> None:
        assert self._mirror is not None
        if frame["type"] in ("snapshot", "delta"):
            verdict = self._mirror.feed(frame)
            if verdict.needs_resync is not None:
                self.lost.append(verdict.needs_resync)


def is_data(message: bytes) -> bool:
    """Say whether a message carries data: a delta is a list, all others are maps that name their channel early."""
    return message[0] & 0xF0 == 0x90 or b"\xa7channel" in message[:64]


def _itself(one: Subscriber) -> Subscriber:
    return one


async def run(url: str, count: int, channel: str) -> dict[str, Any]:
    """Hold count subscribers until standard input closes and return what they saw."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    loop = asyncio.get_running_loop()
    subscribers = [Subscriber(channel, Mirror(channel) if i % STRICT_EVERY == 0 else None) for i in range(count)]
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
        "closed_early": sum(one.is_closed for one in subscribers),
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
