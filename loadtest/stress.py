"""More of everything than a server takes: it must refuse what is too much, in order, and be itself again at once.

    python -m loadtest.stress --out loadtest/results/stress.json

A server with low limits is asked for three times as many agents and sockets as it has room for, for more requests than
a key may have, for more actions than its queue holds, and for bodies that are too large or none at all; over and over
for a minute. After each it must take and decide an ordinary action. Status 1 when it answers anything but what its
documents say, when a tick is missing, when ticks begin late, or when it does not recover in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from arena_client.errors import HandshakeRefused

from loadtest import scrape
from loadtest.checks import Check, finish, with_bars
from loadtest.firehose import Connection, connect
from loadtest.follower import Follower
from loadtest.process import warm_server

AGENTS, SOCKETS, QUEUE = 64, 64, 256
OVER = 3
"""Times what there is room for."""
REQUESTS = 400
"""Of one key at once, which may have a hundred."""
BATCHES, BATCH = 40, 100
BODIES = 40
CONNECTIONS = 16
FLAGS = ("--max-agents", str(AGENTS), "--sockets-max", str(SOCKETS), "--queue-actions-max", str(QUEUE))
RECOVER_S = 5.0
ON_TIME_SHARE = 0.95
"""Of the ticks must begin within 20 ms of their time. Whoever asks for too much takes a processor of two."""
BEHIND_MAX = 2
"""Ticks fewer than the clock has asked for, which may be at the two ends of a run."""
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
        self._rounds = 0

    async def round(self) -> list[Phase]:
        """Do all of it, one after the other, and return what was seen."""
        phases = []
        for too_much, _, _ in PHASES:
            answers = await too_much(self)
            phases.append(Phase(too_much.__name__, answers, await self.recover()))
        self._rounds += 1
        return phases

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
        # each has its own rate: of those that nothing else is asked of one after the other
        unused = self.agents[2 + BATCHES :]
        agent = unused[self._rounds % len(unused)]
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


async def stress(url: str, seconds: float) -> list[Phase]:
    """Do all of it again and again for so many seconds, at least once; return what was seen, round after round."""
    run, until = Stress(url, await connect(url, CONNECTIONS)), time.monotonic() + seconds
    phases = await run.round()
    while time.monotonic() < until:
        phases += await run.round()
    for one in run.connections:
        one.close()
    return phases


def checks(phases: list[Phase], ticks: Mapping[str, float], status: int) -> list[Check]:
    """Return what must hold.

    phases: of whole rounds. ticks: missing, those whose number the world passed without them; behind, how many fewer
    there were than the clock asked for; share_on_time. status: of the server's exit.
    """
    unclean, untested = 0, 0
    for phase, (_, allowed, refusal) in zip(phases, cycle(PHASES), strict=False):
        unclean += sum(count for answer, count in phase.answers.items() if answer not in allowed)
        untested += phase.answers[refusal] == 0
    slowest = max(phase.recovered_s for phase in phases)
    share = ticks["share_on_time"]
    return [
        Check(name="answers_out_of_order", value=unclean, bar=0, unit="answers"),
        Check(name="phases_without_refusals", value=untested, bar=0, unit="phases"),
        # RECOVER_S itself is what one that did not recover has
        Check(name="recovered_s", value=slowest, bar=RECOVER_S / 2, unit="s"),
        Check(name="ticks_missing", value=ticks["missing"], bar=0, unit="ticks"),
        Check(name="ticks_behind", value=ticks["behind"], bar=BEHIND_MAX, unit="ticks"),
        Check(name="ticks_on_time_share", value=share, bar=ON_TIME_SHARE, unit="of the ticks", at_least=True),
        Check(name="exit_status", value=status, bar=0, unit=""),
    ]


def together(phases: list[Phase]) -> list[dict[str, Any]]:
    """Return what was seen of each kind of too much over all rounds: answers added up, the slowest recovery."""
    return [
        {
            "phase": name,
            "answers": {str(answer): count for answer, count in sorted(sum(answers, Counter[int]()).items())},
            "recovered_s": round(max(phase.recovered_s for phase in phases if phase.name == name), 3),
        }
        for name in dict.fromkeys(phase.name for phase in phases)
        if (answers := [phase.answers for phase in phases if phase.name == name])
    ]


def ticks_seen(
    before: Mapping[str, float], after: Mapping[str, float], seconds: float, tick_s: float
) -> dict[str, Any]:
    """Return how ticks went between two readings of the metrics, seconds apart, of a world that ticks every tick_s."""
    more = scrape.since(before, after)
    ticks = scrape.ticks(more)
    return {
        **ticks,
        "seconds": round(seconds, 1),
        "missing": int(more["arena_tick"] - ticks["executed"]),
        "behind": max(0, int(seconds / tick_s) - ticks["executed"]),
    }


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
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long it is done over and over")
    parser.add_argument("--bar", action="append", default=[], metavar="NAME=VALUE", help="another threshold")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the result as JSON to this file")
    given = parser.parse_args()
    with warm_server("--residents", str(given.residents), *FLAGS) as server:
        tick_s = server.document("/api/status")["tick_rate_ms"] / 1_000
        # before the first tick the metrics know no number of it
        before, began = server.samples_after_a_tick(), time.monotonic()
        phases = asyncio.run(stress(server.url, given.seconds))
        after, took_s = scrape.read(server.url), time.monotonic() - began
        status = server.stop()
    ticks = ticks_seen(before, after, took_s, tick_s)
    return finish(
        "stress",
        with_bars(checks(phases, ticks, status), given.bar),
        given.out,
        residents=given.residents,
        rounds=len(phases) // len(PHASES),
        phases=together(phases),
        ticks=ticks,
    )


if __name__ == "__main__":
    sys.exit(main())
