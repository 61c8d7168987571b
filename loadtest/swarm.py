"""Many subscribers in one process: a receiver so light that the server is what is measured.

    python -m loadtest.swarm --subscribers 10000 --seconds 60
    python -m loadtest.swarm --url http://127.0.0.1:8000 --subscribers 1000

The first starts a server of its own, unless --url names one, and tells what it holds it to. The second is a customer of
other tests: it runs until its standard input closes, then prints one line of JSON. Every hundredth subscriber keeps a
mirror and checks every frame and checksum; the others take frames apart and count them. Status 1 when somebody was
refused, cut off or out of step, or when one had fewer frames than there were ticks; with --seconds also when ticks
began late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from arena_client import wire
from arena_client.mirror import Mirror

from loadtest import scrape
from loadtest.checks import Check, finish, with_bars
from loadtest.open_files import make_room
from loadtest.target import target
from loadtest.websocket import Connection

STRICT_EVERY = 100
CONNECTS_AT_A_TIME = 50
FRAMES_SHARE = 0.99
"""Of the ticks that passed while all were connected; even the subscriber with the fewest frames must have had them."""
ON_TIME_SHARE = 0.95
LOST_SHOWN = 20
BEGIN_S = 30.0
"""Longest until all have had something; who had nothing then is counted with what it has."""

Document = dict[str, Any]


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

    @property
    def has_begun(self) -> bool:
        """Whether it has had a frame, a strict one its first state; or is gone."""
        return self.is_closed or bool(self.frames and (self._mirror is None or self._mirror.tick is not None))

    @property
    def tick(self) -> int:
        """The newest tick a strict one has; 0 before the first, and for the others."""
        return (self._mirror.tick or 0) if self._mirror is not None else 0

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


async def run(url: str, count: int, channel: str, until: Callable[[], Awaitable[object]]) -> Document:
    """Hold count subscribers until something has happened and return what they saw."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    loop = asyncio.get_running_loop()
    subscribers = [Subscriber(channel, Mirror(channel) if i % STRICT_EVERY == 0 else None) for i in range(count)]
    for first in range(0, count, CONNECTS_AT_A_TIME):
        batch = subscribers[first : first + CONNECTS_AT_A_TIME]
        await asyncio.gather(*(loop.create_connection(partial(_itself, one), host, port) for one in batch))
    await _begun(subscribers)
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    before, tick = [one.frames for one in subscribers], _tick(subscribers)
    await until()
    frames = [one.frames for one in subscribers]
    result = {
        "subscribers": count,
        "channel": channel,
        "ticks": _tick(subscribers) - tick if tick else 0,
        "frames_meanwhile_fewest": min(last - first for first, last in zip(before, frames, strict=True)),
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


async def _begun(subscribers: list[Subscriber]) -> None:
    """Wait until everybody has had something: from then on a tick without a frame is one that was missed."""
    # who gets nothing is seen by its count
    with suppress(TimeoutError):
        async with asyncio.timeout(BEGIN_S):
            while not all(one.has_begun for one in subscribers):  # noqa: ASYNC110  # frames set no event
                await asyncio.sleep(0.05)


def _tick(subscribers: list[Subscriber]) -> int:
    """Return the newest tick that a strict one has."""
    return max(one.tick for one in subscribers)


async def for_a_time(url: str, count: int, channel: str, seconds: float) -> tuple[Document, Document]:
    """Hold subscribers for so many seconds; return what they saw, and how the server's ticks went meanwhile."""
    readings: list[scrape.Samples] = []

    async def wait() -> None:
        readings.append(await asyncio.to_thread(scrape.read, url))
        await asyncio.sleep(seconds)
        readings.append(await asyncio.to_thread(scrape.read, url))

    seen = await run(url, count, channel, wait)
    return seen, scrape.ticks(scrape.since(*readings))


def checks(seen: Document) -> list[Check]:
    """Return what must hold of what subscribers saw."""
    share = seen["frames_meanwhile_fewest"] / max(1, seen["ticks"])
    return [
        Check(name="lost", value=len(seen["lost"]), bar=0, unit="gaps, mismatches and refusals"),
        Check(name="closed_early", value=seen["closed_early"], bar=0, unit="subscribers"),
        Check(name="ticks", value=seen["ticks"], bar=1, unit="ticks while all were connected", at_least=True),
        Check(name="frames_share_fewest", value=share, bar=FRAMES_SHARE, unit="of the ticks", at_least=True),
    ]


def on_time(ticks: Document) -> Check:
    """Return what must hold of the server's ticks meanwhile."""
    share = ticks["share_on_time"]
    return Check(name="ticks_on_time_share", value=share, bar=ON_TIME_SHARE, unit="of the ticks", at_least=True)


def main() -> int:
    """Read the command line, run, print; return 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server; default: one of its own for the run")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--channel", choices=wire.STATE_CHANNELS, default="market_tick")
    parser.add_argument("--seconds", type=float, help="how long; default: until standard input closes")
    parser.add_argument("--bar", action="append", default=[], metavar="NAME=VALUE", help="another threshold")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the result as JSON to this file")
    given = parser.parse_args()
    make_room(given.subscribers)
    if given.seconds is None:
        return _until_told(given)
    with target(given.url) as url:
        seen, ticks = asyncio.run(for_a_time(url, given.subscribers, given.channel, given.seconds))
    bars = with_bars([*checks(seen), on_time(ticks)], given.bar)
    # the first of them say enough
    shown = {**seen, "lost": seen["lost"][:LOST_SHOWN]}
    return finish("swarm", bars, given.out, seconds=given.seconds, seen=shown, server=ticks)


def _until_told(given: argparse.Namespace) -> int:
    if given.url is None or given.out is not None:
        raise SystemExit("without --seconds it is a customer of another test: --url is needed, and --out is not")

    async def told() -> object:
        return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    seen = asyncio.run(run(given.url, given.subscribers, given.channel, told))
    sys.stdout.write(json.dumps(seen) + "\n")
    return 0 if all(check.passes for check in with_bars(checks(seen), given.bar)) else 1


if __name__ == "__main__":
    sys.exit(main())
