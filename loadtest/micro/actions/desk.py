"""What every server of the benchmark does with an action: the same functions of this product, called the same way.

A desk knows owners and their keys by SHA-256, counts each key's requests, checks a body, keeps a receipt, encodes and
chains the journal's record and queues the row for a tick. Nothing is written anywhere, and no tick runs: every
CLEAR_EVERY actions what waits is thrown away, as a tick and the disk would take it.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from importlib.metadata import version
from typing import Final, NamedTuple, cast

import orjson

from engine.config import Config
from engine.journal import Chain, RecordKind, encode
from engine.market_queue import MarketQueue
from server import keys, logs
from server.clock import SystemClock
from server.live import owner_index, receipts
from server.live.admission import Admission, Limits, Rate, RateLimiter, TimeBudget, to_level
from server.live.journal import Journal
from server.live.pace import Pace
from server.live.receipts import Receipts
from server.live.recorder import Recorder, Submitted
from server.live.registry import AgentRegistry
from server.live.turns import Turns
from server.live.view import Published
from server.metrics import Metrics
from server.middleware import Tally
from server.routes.hot import OPERATION, HotAction

CLEAR_EVERY: Final = 4_096
RATE_A_MINUTE: Final = 1_000_000_000
"""No key of the benchmark ever runs out."""
TICK: Final = 1_000

Pairs = list[tuple[str, str]]


class Reply(NamedTuple):
    """An answer. headers: name and value, all that the product sends but those of the protocol itself."""

    status: int
    headers: Pairs
    body: bytes


class MemoryJournal:
    """Encodes and chains records as the journal does; they are durable at once and kept until the desk is cleared."""

    failed = False
    is_full = False

    def __init__(self) -> None:
        self.next_seq = 1
        self.records: list[bytes] = []
        self._chain = Chain()

    def append(self, kind: RecordKind, payload: bytes) -> int:
        """Take a record and return its sequence."""
        seq = self.next_seq
        self.next_seq = seq + 1
        record = encode(seq, kind, payload)
        self._chain.add(record)
        self.records.append(record)
        return seq

    async def durable(self, seq: int) -> None:
        """Return at once."""

    def when_durable(self, seq: int, called: Callable[[Exception | None], None]) -> None:
        """Call at once."""
        called(None)


class _View(NamedTuple):
    tick: int = TICK


class _Published(NamedTuple):
    view: _View = _View()


class Desk:
    """Everything an action meets. agents: how many, each of an owner of its own."""

    def __init__(self, agents: int) -> None:
        self.metrics = Metrics()
        self.clock = SystemClock()
        self.published = cast(Published, _Published())
        limiter = RateLimiter(RATE_A_MINUTE, self.clock)
        self._limits, self._budget = Limits(limiter, limiter, limiter), TimeBudget(1.0, self.clock)
        self._registry = AgentRegistry(Config(residents=2_000))
        self._journal = MemoryJournal()
        self._queue = MarketQueue(1 << 16)
        self._pace = Pace(self._queue, 0.1, self.clock)
        self._turns = Turns(self.clock)
        self.tally = Tally(self.metrics)
        self._left = CLEAR_EVERY
        self._clear()
        self.given = [self._register() for _ in range(agents)]
        # compiled or loaded here, and not by the first request: with an empty cache it took more than a second
        receipts.warm()
        owner_index.warm()
        to_level(Decimal(1), "buy")
        to_level(Decimal(1), "sell")

    def open(self, *packages: str) -> None:
        """Tell the benchmark whom it may act for. packages: what the server is made of, told with their versions."""
        about = ", ".join(f"{package} {version(package)}" for package in packages)
        sys.stdout.write(json.dumps({"about": about, "given": self.given}) + "\n")
        sys.stdout.flush()
        # what lives is out of the collector's sight, as in the product once it is open
        gc.collect()
        gc.freeze()
        gc.disable()

    def answer(self, agent_id: str, authorization: str, content_type: str, body: bytes) -> Reply:
        """Take an action and answer it, as the product does at sight. Raises ValueError when it may not be taken."""
        began, name = self.clock.monotonic(), keys.request_id()
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or content_type.split(";")[0].strip().lower() != "application/json":
            raise ValueError("the benchmark sends what can be taken")
        sighted = self.admission.at_sight(keys.digest(key), int(agent_id[1:]), body)
        if sighted is None or sighted.rate is None or not isinstance(sighted.result, Submitted):
            raise ValueError("the benchmark sends what can be taken")
        return self.reply(sighted.result, sighted.rate, name, began)

    def reply(self, submitted: Submitted, rate: Rate, name: str, began: float) -> Reply:
        """Return the answer to an accepted action, and count it. name: of the request; began: when it came."""
        document = orjson.dumps(submitted.receipt.document(submitted.duplicate))
        limit, remaining, reset_s, policy = rate
        headers = [
            ("cache-control", "private, no-store"),
            ("content-type", "application/json"),
            ("x-request-id", name),
            ("x-content-type-options", "nosniff"),
            ("arena-tick", str(TICK)),
            ("ratelimit-policy", f'"{policy}";q={limit};w=60'),
            ("ratelimit", f'"{policy}";r={remaining};t={reset_s}'),
            ("x-ratelimit-limit", str(limit)),
            ("x-ratelimit-remaining", str(remaining)),
            ("x-ratelimit-reset", str(reset_s)),
        ]
        self.tally.add("POST", OPERATION.path, 202, self.clock.monotonic() - began, name)
        self._counted()
        return Reply(202, headers, document)

    def find_hot(self) -> HotAction:
        """Return what our own server asks for every action."""
        self._counted()
        return self.hot

    def _counted(self) -> None:
        """Now and then throw away what waits for tick and disk."""
        self._left -= 1
        if self._left <= 0:
            self._left = CLEAR_EVERY
            self._clear()
            # the product collects young objects between ticks
            gc.collect(0)

    def _clear(self) -> None:
        self._journal.records.clear()
        self._queue.drain()
        journal = cast(Journal, self._journal)
        self.recorder = Recorder(
            journal, self._queue, Receipts(TICK, limit=2 * CLEAR_EVERY), self._registry, self.metrics
        )
        self.admission = Admission(self.recorder, self._limits, self._budget, self._pace, self._turns, self.metrics)
        self.hot = HotAction(self.admission, self.recorder, self.published, self.metrics, self.clock)

    def _register(self) -> tuple[str, str]:
        key = keys.mint()
        return f"a{self.recorder.register(None, keys.digest(key), None).agent}", key


def serve(run: Callable[[Desk, int], None], *packages: str) -> None:
    """Run a server until the process ends. packages: what it is made of, told with their versions."""
    given = arguments()
    logs.configure("json", "info")
    desk = Desk(given.agents)
    desk.open(*packages)
    run(desk, given.port)


def arguments() -> argparse.Namespace:
    """Return what the benchmark asks of a server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--agents", type=int, required=True)
    return parser.parse_args()
