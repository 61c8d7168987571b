"""More of everything than a server takes: it must refuse what is too much, in order, and be itself again at once.

    python -m loadtest.stress --out loadtest/results/stress.json

A server with low limits is asked for three times as many agents and sockets as it has room for, for more requests than
a key may have, for more actions than its queue holds, and for bodies that are too large or none at all. After each it
must take and decide an ordinary action. Status 1 when it answers anything but what its documents say, when a tick is
missing, or when it does not recover in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from arena_client.errors import HandshakeRefused

from loadtest import scrape
from loadtest.checks import Check, finish
from loadtest.firehose import Connection, connect
from loadtest.follower import Follower
from loadtest.process import ServerProcess

AGENTS, SOCKETS, QUEUE = 64, 64, 256
OVER = 3
"""Times what there is room for."""
REQUESTS = 400
"""Of one key at once, which may have a hundred."""
BATCHES, BATCH = 40, 100
BODIES = 40
CONNECTIONS = 16
FLAGS = ("--max-agents", str(AGENTS), "--sockets-max", str(SOCKETS), "--queue-actions-max", str(QUEUE))
FIRST_START_S = 600.0
RECOVER_S = 5.0
MOOD = {"type": "set_sentiment", "sentiment": 0.5, "fear": 0.1, "greed": 0.1, "confidence": 0.5}
TOO_LARGE = b"[" * (64 << 10)


class Agent(NamedTuple):
    """Who asks."""

    name: str
    key: str


class Phase(NamedTuple):
    """One kind of too much. answers: how often each status; recovered_s: until an ordinary action was decided."""

    name: str
    answers: Counter[int]
    recovered_s: float


class Stress:
    """A server, the connections to it, and the agents it has taken."""

    def __init__(self, url: str, connections: list[Connection]) -> None:
        self.url = url
        self.connections = connections
        self.agents: list[Agent] = []
        self._sent = 0

    async def agents_at_once(self) -> Counter[int]:
        """Register more agents than there may be."""
        answers = await self._all(_post("/api/agents/register", "", b"{}") for _ in range(OVER * AGENTS))
        for status, body in answers:
            if status == 201:
                document = json.loads(body)
                self.agents.append(Agent(document["agent_id"], document["api_key"]))
        return Counter(status for status, _ in answers)

    async def sockets_at_once(self) -> Counter[int]:
        """Open more streams than there may be, and close them all."""
        followers = [await asyncio.to_thread(Follower, self.url, "market_tick") for _ in range(OVER * SOCKETS)]
        answers = Counter([await asyncio.to_thread(_handshake, one) for one in followers])
        for one in followers:
            one.close()
        return answers

    async def requests_at_once(self) -> Counter[int]:
        """Send more requests under one key than it may have."""
        answers = await self._all(self._action(self.agents[1]) for _ in range(REQUESTS))
        return Counter(status for status, _ in answers)

    async def actions_at_once(self) -> Counter[int]:
        """Send more actions than may wait for a tick; each counts with its own answer."""
        answers = await self._all(self._batch(self.agents[2 + number]) for number in range(BATCHES))
        counts: Counter[int] = Counter()
        for status, body in answers:
            if status == 200:
                results = json.loads(body)["results"]
                counts.update(int(one["status"]) for one in results)
            else:
                counts[status] += BATCH
        return counts

    async def bodies_at_once(self) -> Counter[int]:
        """Send bodies that are too large, and some that are nothing."""
        agent = self.agents[-1]
        path = f"/api/agents/{agent.name}/action"
        bodies = [TOO_LARGE, b"", b"{", b"\xff\xfe", b'{"type":1e999}'] * (BODIES // 5)
        answers = await self._all(_post(path, agent.key, body) for body in bodies)
        return Counter(status for status, _ in answers)

    async def recover(self) -> float:
        """Return the seconds until an ordinary action was taken and decided; RECOVER_S when it was not in time."""
        began = time.monotonic()
        while (took := time.monotonic() - began) < RECOVER_S:
            [(status, _)] = await self._all([self._action(self.agents[0], "?wait=outcome")])
            if status == 200:
                return time.monotonic() - began
            await asyncio.sleep(0.05)
        return took

    def _action(self, agent: Agent, query: str = "") -> bytes:
        return _post(f"/api/agents/{agent.name}/action{query}", agent.key, json.dumps(self._named()).encode())

    def _batch(self, agent: Agent) -> bytes:
        actions = [{"agent_id": agent.name, **self._named()} for _ in range(BATCH)]
        return _post("/api/actions", agent.key, json.dumps({"actions": actions}).encode())

    def _named(self) -> dict[str, Any]:
        self._sent += 1
        return {"client_action_id": f"s-{self._sent}", **MOOD}

    async def _all(self, requests: Iterable[bytes]) -> list[tuple[int, bytes]]:
        """Send requests over all connections at once; one that is closed under a request is made anew."""
        left, answers = list(requests)[::-1], list[tuple[int, bytes]]()

        async def work(place: int) -> None:
            while left:
                request = left.pop()
                try:
                    answers.append(await self.connections[place].ask(request))
                except ConnectionResetError:
                    answers.append((0, b""))
                    [self.connections[place]] = await connect(self.url, 1)

        await asyncio.gather(*(work(place) for place in range(len(self.connections))))
        return answers


#: What is done, the answers that are in order, and the one that says it was really too much.
PHASES: tuple[tuple[Callable[[Stress], Awaitable[Counter[int]]], frozenset[int], int], ...] = (
    (Stress.agents_at_once, frozenset({201, 409}), 409),
    (Stress.sockets_at_once, frozenset({101, 503}), 503),
    (Stress.requests_at_once, frozenset({202, 429}), 429),
    (Stress.actions_at_once, frozenset({202, 429}), 429),
    (Stress.bodies_at_once, frozenset({400, 413, 422}), 413),
)


async def stress(url: str) -> list[Phase]:
    """Do all of it, one after the other, and return what was seen."""
    run = Stress(url, await connect(url, CONNECTIONS))
    phases = []
    for too_much, _, _ in PHASES:
        answers = await too_much(run)
        phases.append(Phase(too_much.__name__, answers, await run.recover()))
    for one in run.connections:
        one.close()
    return phases


def checks(phases: list[Phase], missing: int, status: int) -> list[Check]:
    """Return what must hold. missing: ticks; status: of the server's exit."""
    unclean, untested = 0, 0
    for phase, (_, allowed, refusal) in zip(phases, PHASES, strict=True):
        unclean += sum(count for answer, count in phase.answers.items() if answer not in allowed)
        untested += phase.answers[refusal] == 0
    slowest = max(phase.recovered_s for phase in phases)
    return [
        Check(name="answers_out_of_order", value=unclean, bar=0, unit="answers"),
        Check(name="phases_without_refusals", value=untested, bar=0, unit="phases"),
        # RECOVER_S itself is what one that did not recover has
        Check(name="recovered_s", value=slowest, bar=RECOVER_S / 2, unit="s"),
        Check(name="ticks_missing", value=missing, bar=0, unit="ticks"),
        Check(name="exit_status", value=status, bar=0, unit=""),
    ]


def _handshake(follower: Follower) -> int:
    try:
        follower.receive()
    except HandshakeRefused as refused:
        return refused.status
    except OSError:
        return 0
    return 101


def _post(path: str, key: str, body: bytes) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    if key:
        lines.append(f"authorization: Bearer {key}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def main() -> int:
    """Run it against a server of its own, print what was seen and return 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--residents", type=int, default=100_000)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the result as JSON to this file")
    given = parser.parse_args()
    flags = ("--residents", str(given.residents), *FLAGS)
    with (
        tempfile.TemporaryDirectory(prefix="arena-stress-") as folder,
        ServerProcess(Path(folder) / "world", *flags) as server,
    ):
        server.wait_ready(FIRST_START_S)
        phases = asyncio.run(stress(server.url))
        started = server.document("/api/status")["started_tick"]
        seen = scrape.read(server.url)
        status = server.stop()
    # numbers the world has passed without a tick of its own
    missing = int(seen["arena_tick"] - started - seen["arena_ticks_total"])
    return finish(
        "stress",
        checks(phases, missing, status),
        given.out,
        residents=given.residents,
        phases=[
            {
                "phase": phase.name,
                "answers": {str(answer): count for answer, count in sorted(phase.answers.items())},
                "recovered_s": round(phase.recovered_s, 3),
            }
            for phase in phases
        ],
        ticks=scrape.ticks(seen),
    )


if __name__ == "__main__":
    sys.exit(main())
