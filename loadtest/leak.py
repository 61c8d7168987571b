"""Does memory come back? Agents and subscribers come and go for minutes while the server's memory is watched.

    python -m loadtest.leak --minutes 5 --out loadtest/results/leak.json

Agents register, act, read and leave again; subscribers connect, follow for a moment and are cut or close in order; the
world ticks on. What a server keeps on purpose must not look like a leak, and a leak not like that, so what has a bound
is filled first: receipts go to the disk once, most registrations are of owners that have come before, and the first
minutes, in which history and frames to resume from fill, are not counted. Status 1 when memory still grows by more than
the bar afterwards, or when somebody is left over at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arena_client import ArenaClient, ArenaError

from loadtest import scrape
from loadtest.checks import Check, finish, with_bars
from loadtest.follower import Follower
from loadtest.target import target

AGENTS, SUBSCRIBERS = 20, 20
"""That are there at a time."""
ACTIONS = 5
"""Of an agent before it leaves."""
NEWCOMER_EVERY = 200
"""Of so many registrations one is of a new owner. Of those 100,000 are kept, each with up to 27 keys, which would look
like a leak for the half hour in which newcomers alone fill it."""
FILL_BATCHES, FILL_BATCH = 12, 1_000
"""What each agent sends before it begins, in all more receipts than wait in memory for the disk."""
FILL_ATTEMPTS = 20
"""For each of these batches: a server refuses those it has no time for."""
FILL_S = 60.0
"""Longest until they are on disk."""
FRAMES = 10
"""Of a subscriber before it leaves."""
SETTLED_SHARE = 0.4
"""Of the run, after which memory must be as large as it gets."""
SAMPLE_EVERY_S = 1.0
SAMPLES_PER_MINUTE = 30
"""That there must be: growth between two of them shows nothing."""
LEAVING_S = 5.0
"""Longest until those who left are no longer counted."""
GROWTH_MB_PER_MINUTE = 1.0
CHANNELS = ("market_tick", "psychology_update", "inflation_update", "scarcity_update")


class Churn:
    """Those who come and go. counts: how many did what; memory: of the server, minute and MB.

    filled: files that receipts were written to before it began.
    """

    def __init__(self, url: str, minutes: float) -> None:
        self.url = url
        self.minutes = minutes
        self.until = 0.0
        self.filled = 0
        self.counts: Counter[str] = Counter()
        self.memory: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Fill what has a bound, then let them come and go until the time is over."""
        # a follower's sockets block: each has a thread, and so has whoever looks at the memory
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(SUBSCRIBERS + 1))
        for _ in range(AGENTS):
            await self._fill()
        self.filled = await asyncio.to_thread(self._on_disk)
        self.until = time.monotonic() + 60 * self.minutes
        agents = (self._agents(number) for number in range(AGENTS))
        followers = (asyncio.to_thread(self._followers, random.Random(number)) for number in range(SUBSCRIBERS))
        await asyncio.gather(*agents, *followers, self._sample())

    async def _fill(self) -> None:
        """Have many receipts kept."""
        moods = dict.fromkeys(("sentiment", "fear", "greed", "confidence"), 0.5)
        async with ArenaClient(self.url, attempts=FILL_ATTEMPTS) as client:
            await client.register()
            for _ in range(FILL_BATCHES):
                await client.batch([{"type": "set_sentiment", **moods}] * FILL_BATCH)
            await client.unregister()

    def _on_disk(self) -> int:
        """Return how many files receipts were written to, when there are any."""
        until = time.monotonic() + FILL_S
        while not (files := int(scrape.read(self.url)["arena_receipt_generations"])) and time.monotonic() < until:
            time.sleep(0.1)
        return files

    async def _agents(self, first: int) -> None:
        """One agent after the other, mostly of the same owner: registers, acts, looks, leaves."""
        credentials = None
        for number in itertools.count(first):
            if time.monotonic() >= self.until:
                return
            async with ArenaClient(self.url, None if number % NEWCOMER_EVERY == 0 else credentials) as client:
                try:
                    credentials = await client.register()
                    for _ in range(ACTIONS):
                        await client.set_sentiment(0.5, 0.1, 0.1, 0.5)
                    await client.limit("food", "buy", 1, "0.5", wait=True)
                    await client.agent()
                    await client.unregister()
                    self.counts["agents"] += 1
                except ArenaError as error:
                    self.counts[f"agents: {type(error).__name__}"] += 1

    def _followers(self, draw: random.Random) -> None:
        """One subscriber after the other, each of a channel and a form of its own choice."""
        while time.monotonic() < self.until:
            follower = Follower(self.url, draw.choice(CHANNELS), draw.choice((1, 1, 2, 5)))
            try:
                frames = 0
                while frames < FRAMES and time.monotonic() < self.until:
                    frames += len(follower.receive())
                self.counts["subscribers"] += 1
                self.counts["losses"] += len(follower.take_losses())
            finally:
                follower.close()

    async def _sample(self) -> None:
        began = time.monotonic()
        while (now := time.monotonic()) < self.until:
            samples = await asyncio.to_thread(scrape.read, self.url)
            self.memory.append(((now - began) / 60, samples["process_resident_memory_bytes"] / 1e6))
            await asyncio.sleep(SAMPLE_EVERY_S)


def growth(memory: list[tuple[float, float]]) -> float:
    """Return how fast memory grew after it had settled, MB a minute: the median of the slopes between any two samples.

    Not by least squares: a span of the archive takes 30 MB for a second, which at the end of a run made 8 MB a minute.
    """
    settled = memory[round(SETTLED_SHARE * len(memory)) :]
    pairs = itertools.combinations(settled, 2)
    return (
        statistics.median((mb - before) / (then - at) for (at, before), (then, mb) in pairs)
        if len(settled) > 1
        else 0.0
    )


def left_over(url: str) -> Counter[str]:
    """Return who is still there a moment after everybody has left."""
    until = time.monotonic() + LEAVING_S
    while True:
        samples = scrape.read(url)
        there = {name: int(samples[f"arena_{name}"]) for name in ("agents", "sockets")}
        if not any(there.values()) or time.monotonic() > until:
            return Counter(there)
        time.sleep(0.1)


def checks(churn: Churn, left: Counter[str], minutes: float) -> list[Check]:
    """Return what must hold of a run."""
    failed = sum(count for name, count in churn.counts.items() if name not in ("agents", "subscribers"))
    return [
        Check(name="memory_mb_per_minute", value=growth(churn.memory), bar=GROWTH_MB_PER_MINUTE, unit="MB/min"),
        Check(name="left_over", value=left.total(), bar=0, unit="agents and sockets"),
        Check(name="failed", value=failed, bar=0, unit="agents and frames"),
        Check(name="filled", value=churn.filled, bar=1, unit="files of receipts", at_least=True),
        Check(name="came_and_went", value=churn.counts["agents"], bar=AGENTS, unit="agents", at_least=True),
        Check(
            name="subscribers_came_and_went",
            value=churn.counts["subscribers"],
            bar=SUBSCRIBERS,
            unit="subscribers",
            at_least=True,
        ),
        Check(
            name="samples_per_minute",
            value=len(churn.memory) / minutes,
            bar=SAMPLES_PER_MINUTE,
            unit="of the memory",
            at_least=True,
        ),
    ]


def main() -> int:
    """Run it as the command line says, print what was seen and return 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server without other customers; default: one of its own for the run")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--bar", action="append", default=[], metavar="NAME=VALUE", help="another threshold")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the result as JSON to this file")
    given = parser.parse_args()
    with target(given.url) as url:
        churn = Churn(url, given.minutes)
        asyncio.run(churn.run())
        left = left_over(url)
    return finish(
        "leak",
        with_bars(checks(churn, left, given.minutes), given.bar),
        given.out,
        minutes=given.minutes,
        at_a_time={"agents": AGENTS, "subscribers": SUBSCRIBERS},
        counts=dict(churn.counts),
        left_over=dict(left),
        bytes_an_agent=round(1e6 * growth(churn.memory) * given.minutes / max(1, churn.counts["agents"])),
        memory_mb=[round(mb, 1) for _, mb in churn.memory[:: max(1, len(churn.memory) // 60)]],
    )


if __name__ == "__main__":
    sys.exit(main())
