"""A producer: buys hours of labour and inputs, makes a good of them, sells it.

    python clients/python/examples/producer.py --url http://127.0.0.1:8000 --seconds 30

What a lot takes is public: `GET /api/markets/{good}` has `production` with the hours and the lots of two inputs that
one lot needs. Hours held lapse at the end of each simulated day (tick mod 24 = 23), so inputs are bought first and
hours only when the inputs are there.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from arena_client import ArenaClient, ArenaStream, Receipt, RequestError, StateChanged

BATCH_LOTS = 20
"""Lots to make at a time."""
MARGIN = 0.02
"""Sold at the reference price less this, which still leaves the market's own markup over cost."""
HOURS_IN_DAY = 24
LABOUR = "labour"


@dataclass
class Producer:
    """One run of the bot. held: free lots by market. made, sold: lots of the good."""

    arena: ArenaClient
    good: str
    held: Counter[str] = field(default_factory=Counter)
    cash: float = 0.0
    orders: int = 0
    bought: int = 0
    made: int = 0
    sold: int = 0
    wealth: str = ""
    rejects: Counter[str] = field(default_factory=Counter)

    async def look(self) -> None:
        """Read our own account."""
        me = await self.arena.agent()
        self.cash = float(me["cash"])
        self.wealth = me["wealth"]
        self.held = Counter({name: held["quantity"] - held["reserved"] for name, held in me["holdings"].items()})

    async def step(self, tick: int, price: dict[str, float]) -> None:
        """Do the one thing that is next: sell what is made, make what can be made, buy what is missing."""
        await self.look()
        detail = await self.arena.market_detail(self.good)
        production = detail["production"]
        if self.held[self.good]:
            limit = price[self.good] * (1 - MARGIN)
            self.sold += await self.order("sell", self.good, self.held[self.good], limit)
            return
        lots = min(BATCH_LOTS, int(self.cash / (2 * price[self.good])) or 1)
        inputs, hours = needs(production, lots)
        for name, quantity in inputs.items():
            if self.held[name] < quantity:
                missing = quantity - self.held[name]
                self.bought += await self.order("buy", name, missing, price[name] * (1 + MARGIN))
                return
        if self.held[LABOUR] >= hours:
            self.made += await self.produce(lots)
        elif tick % HOURS_IN_DAY < HOURS_IN_DAY - 4:
            # bought later in the day, hours would lapse before they can be used
            self.bought += await self.order("buy", LABOUR, hours - self.held[LABOUR], price[LABOUR] * (1 + MARGIN))

    async def order(self, side: str, market: str, lots: int, price: float) -> int:
        """Order for one tick and return the lots traded."""
        return self.note(await self.arena.limit(market, side, lots, price, time_in_force="ioc", wait=True))

    async def produce(self, lots: int) -> int:
        """Make the good and return the lots made."""
        receipt = await self.arena.produce(self.good, lots, wait=True)
        self.note(receipt)
        return lots if receipt.outcome is not None and not receipt.outcome.is_rejected else 0

    def note(self, receipt: Receipt) -> int:
        """Count a decided action; return its lots."""
        self.orders += 1
        if receipt.outcome is None:
            return 0
        if receipt.outcome.is_rejected:
            self.rejects[str(receipt.outcome.document.get("detail", receipt.outcome.code))] += 1
        return receipt.outcome.filled


def needs(production: dict[str, Any], lots: int) -> tuple[dict[str, int], int]:
    """Return the lots of each input and the hours that making `lots` takes, rounded up as the world does."""
    inputs = {
        production["first_input"]: math.ceil(lots * production["first_per_lot"]),
        production["second_input"]: math.ceil(lots * production["second_per_lot"]),
    }
    return inputs, math.ceil(lots * production["hours_per_lot"])


async def run(url: str, seconds: float, good: str = "food") -> Producer:
    """Produce `good` for so many seconds and return what happened."""
    async with ArenaClient(url) as arena, ArenaStream(url) as stream:
        await arena.register()
        market_tick = await stream.subscribe("market_tick")
        producer = Producer(arena, good)
        async for update in stream.lasting(seconds):
            if not isinstance(update, StateChanged):
                continue
            price = dict(zip(stream.markets, market_tick.series("price"), strict=True))
            try:
                await producer.step(update.tick, price)
            except RequestError as error:
                # the next step reads the account again and goes on from what is true then
                print(f"tick {update.tick}: {error}")
        await producer.look()
    return producer


def main() -> None:
    """Run from the command line and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--good", default="food")
    options = parser.parse_args()
    producer = asyncio.run(run(options.url, options.seconds, options.good))
    print(f"{producer.orders} orders, {producer.bought} lots and hours bought, {producer.made} {producer.good} made")
    print(f"{producer.sold} sold, wealth {producer.wealth} credits")
    for reason, count in producer.rejects.most_common():
        print(f"refused {count} times: {reason}")


if __name__ == "__main__":
    main()
