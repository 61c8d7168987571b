"""Bots that send orders at a fixed rate, each in time whether or not the one before was answered.

    python -m loadtest.bots --url http://127.0.0.1:8000 --bots 20 --rate 200

Runs until its standard input closes, then prints one JSON object. Latency is measured from the moment an action was
due, so that a slow answer is not hidden by the ones that waited behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any

from arena_client import ArenaClient, ArenaError

from loadtest.process import percentile

PRICES_EVERY_S = 5.0
SPREAD = 0.02
"""Orders are placed up to this share above or below the market's price."""


async def run(url: str, bots: int, rate: float, seed: int) -> dict[str, Any]:
    """Send rate actions a second, spread over bots, until standard input closes; return counts and latencies."""
    draw = random.Random(seed)
    latencies_ms: list[float] = []
    outcomes: Counter[str] = Counter()
    clients = [ArenaClient(url, attempts=1) for _ in range(bots)]
    for client in clients:
        await client.register()
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    prices: dict[str, float] = {}
    prices_due = next_due = loop.time()
    pending: set[asyncio.Task[None]] = set()
    number = 0
    while not ended.done():
        if next_due >= prices_due:
            prices = {market["name"]: market["price"] for market in await clients[0].markets()}
            prices_due += PRICES_EVERY_S
        await asyncio.sleep(max(0.0, next_due - loop.time()))
        market = draw.choice(list(prices))
        price = prices[market] * (1 + draw.uniform(-SPREAD, SPREAD))
        action = (market, draw.choice(("buy", "sell")), draw.randint(1, 3), price)
        task = asyncio.create_task(_act(clients[number % bots], action, next_due, latencies_ms, outcomes))
        pending.add(task)
        task.add_done_callback(pending.discard)
        number += 1
        next_due += 1 / rate
    await asyncio.gather(*pending)
    for client in clients:
        await client.close()
    return {
        "bots": bots,
        "rate_per_s": rate,
        "actions": number,
        "outcomes": dict(outcomes),
        "ack_ms_p50": percentile(latencies_ms, 0.50),
        "ack_ms_p99": percentile(latencies_ms, 0.99),
    }


async def _act(
    client: ArenaClient,
    action: tuple[str, str, int, float],
    due: float,
    latencies_ms: list[float],
    outcomes: Counter[str],
) -> None:
    try:
        await client.limit(*action)
    except ArenaError as error:
        outcomes[type(error).__name__] += 1
    else:
        outcomes["accepted"] += 1
        latencies_ms.append((time.monotonic() - due) * 1000)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--bots", type=int, default=20)
    parser.add_argument("--rate", type=float, default=200.0, help="actions a second, all bots together")
    parser.add_argument("--seed", type=int, default=1, help="of the bots' choices")
    given = parser.parse_args()
    result = asyncio.run(run(given.url, given.bots, given.rate, given.seed))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
