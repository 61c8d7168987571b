"""Batches of actions from many owners at a fixed rate, each in time whether or not the one before was answered.

    python -m loadtest.firehose --url http://127.0.0.1:8000 --owners 100 --agents 1000 --batch 1000 --rate 100000

Registers owners with their agents, says `connected`, and sends until its standard input closes; then prints one JSON
object. A batch is prebuilt but for the names of its actions, so that the server is what is measured. Latency is
measured from the moment a batch was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from arena_client import ArenaClient
from arena_client.columns import decode_answer, encode_columns

from loadtest.process import percentile

MARKETS = 32
SPREAD = 0.02
"""Orders are placed up to this share above or below the market's price at the start."""
RESTING = 256
"""One order of so many rests in the market; the others are for one tick."""
MOODS = 16
"""One action of so many states a mood."""
NUMBER_SIZE = 8


class Connection(asyncio.Protocol):
    """A kept connection, one request at a time; the answer is a status and a body."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Give out an answer when all of it is there."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        assert self._answer is not None
        self._answer.set_result((int(head[9:12]), body))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and return its answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


@dataclass
class Owner:
    """Whoever sends batches. head, body: of the request, up to the numbers that name the actions."""

    key: str
    agents: list[int]
    head: bytes = b""
    body: bytes = b""
    sent: int = 0

    def request(self, batch: int) -> bytes:
        """Return the next batch, under names that were not used before."""
        numbers = array("Q", range(self.sent, self.sent + batch))
        self.sent += batch
        if sys.byteorder == "big":
            numbers.byteswap()
        return self.head + self.body + numbers.tobytes()


@dataclass
class Counts:
    """What came of it. latencies_ms: of batches of which something was accepted, from when they were due."""

    batches: Counter[int] = field(default_factory=Counter)
    accepted: int = 0
    refused: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    refusals_ms: list[float] = field(default_factory=list)


async def connect(url: str, count: int) -> list[Connection]:
    """Open so many connections."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    connections = [Connection() for _ in range(count)]
    for one in connections:
        await loop.create_connection(partial(_itself, one), parts.hostname or "127.0.0.1", parts.port or 80)
    return connections


async def register(connections: list[Connection], owners: int, agents: int) -> list[Owner]:
    """Register owners with so many agents each, over all connections at once."""
    made: list[Owner] = []
    left = deque(range(owners))

    async def work(connection: Connection) -> None:
        while left:
            left.popleft()
            owner = Owner("", [])
            for _ in range(agents):
                status, body = await connection.ask(_post("/api/agents/register", owner.key, b"{}", "application/json"))
                if status != 201:
                    raise RuntimeError(f"a registration was answered {status}: {body[:200]!r}")
                document = json.loads(body)
                owner.key = owner.key or document["api_key"]
                owner.agents.append(int(document["agent_id"][1:]))
            made.append(owner)

    await asyncio.gather(*(work(one) for one in connections))
    return made


def prepare(owners: list[Owner], batch: int, prices: list[float], draw: random.Random) -> None:
    """Build each owner's batch but for its names."""
    for owner in owners:
        body = encode_columns(columns(owner.agents, batch, prices, draw))
        owner.body = body[: -NUMBER_SIZE * batch]
        owner.head = _post("/api/actions", owner.key, b"", "application/msgpack", len(body))


def columns(agents: list[int], batch: int, prices: list[float], draw: random.Random) -> dict[str, Any]:
    """Return a batch: orders around the market's price for one tick, some that rest, some moods."""
    moods = [i % MOODS == MOODS - 1 for i in range(batch)]
    markets = [-1 if mood else draw.randrange(MARKETS) for mood in moods]
    offers = [prices[market] * (1 + draw.uniform(-SPREAD, SPREAD)) for market in markets]
    nothing = float("nan")
    return {
        "agent_id": [agents[i % len(agents)] for i in range(batch)],
        "type": ["set_sentiment" if mood else "limit" for mood in moods],
        "market": markets,
        "side": [0 if mood else draw.choice((1, 1, -1)) for mood in moods],
        "quantity": [0 if mood else 1 for mood in moods],
        "price_ucr": [0 if mood else round(offer * 1e6) for offer, mood in zip(offers, moods, strict=True)],
        "time_in_force": [0 if mood else 1 if draw.randrange(RESTING) == 0 else 2 for mood in moods],
        **{name: [0.5 if mood else nothing for mood in moods] for name in ("sentiment", "fear", "greed", "confidence")},
        # the last one: it is what changes from batch to batch
        "client_action_number": [0] * batch,
    }


async def send(connections: list[Connection], owners: list[Owner], batch: int, rate: float, counts: Counts) -> float:
    """Send batches at `rate` actions a second, 0: as fast as they are answered, until standard input closes.

    Returns for how long, seconds.
    """
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    interval = batch / rate if rate else 0.0
    began = next_due = loop.time()
    number = 0

    async def work(connection: Connection) -> None:
        nonlocal next_due, number
        while not ended.done():
            due, next_due = (next_due, next_due + interval) if interval else (loop.time(), 0.0)
            owner = owners[number % len(owners)]
            number += 1
            request = owner.request(batch)
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            status, body = await connection.ask(request)
            _count(status, body, batch, 1_000 * (loop.time() - due), counts)

    await asyncio.gather(*(work(one) for one in connections))
    return loop.time() - began


def _count(status: int, body: bytes, batch: int, ms: float, counts: Counts) -> None:
    counts.batches[status] += 1
    accepted = decode_answer(body).accepted if status == 202 else 0
    counts.accepted += accepted
    counts.refused += batch - accepted
    (counts.latencies_ms if accepted else counts.refusals_ms).append(ms)


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """Register, send, and return what came of it."""
    draw = random.Random(given.seed)
    async with ArenaClient(given.url) as client:
        prices = [market["price"] for market in await client.markets()]
    connections = await connect(given.url, given.connections)
    began = time.monotonic()
    owners = await register(connections, given.owners, given.agents)
    registered_s = time.monotonic() - began
    prepare(owners, given.batch, prices, draw)
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    counts = Counts()
    seconds = await send(connections, owners, given.batch, given.rate, counts)
    for one in connections:
        one.close()
    return {
        "owners": given.owners,
        "agents": given.owners * given.agents,
        "registered_s": registered_s,
        "batch": given.batch,
        "rate_per_s": given.rate,
        "connections": given.connections,
        "seconds": seconds,
        "accepted": counts.accepted,
        "refused": counts.refused,
        "accepted_per_s": counts.accepted / seconds,
        "batches": {str(status): count for status, count in sorted(counts.batches.items())},
        "ack_ms_p50": percentile(counts.latencies_ms, 0.50),
        "ack_ms_p99": percentile(counts.latencies_ms, 0.99),
        "refusal_ms_p99": percentile(counts.refusals_ms, 0.99),
    }


def _itself(one: Connection) -> Connection:
    return one


def _post(path: str, key: str, body: bytes, media: str, length: int | None = None) -> bytes:
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: arena\r\n{authorization}content-type: {media}\r\n"
    return f"{head}content-length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--owners", type=int, default=100)
    parser.add_argument("--agents", type=int, default=10, help="agents of each owner")
    parser.add_argument("--batch", type=int, default=100, help="actions in a batch, at most 1,000")
    parser.add_argument("--rate", type=float, default=10_000.0, help="actions a second of all; 0: as fast as answered")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1, help="of the actions")
    result = asyncio.run(run(parser.parse_args()))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
