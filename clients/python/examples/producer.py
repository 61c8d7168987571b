"""A producer: buys hours of labour and inputs, makes a good of them, sells it.

    python clients/python/examples/producer.py --url http://127.0.0.1:8000 --seconds 30

What a lot takes is public: `GET /api/markets/{good}` has `production` with the hours and the lots of two inputs that
one lot needs; it changes at the end of each simulated day (tick mod 24 = 23), so the bot reads it once a day. Unless
told which, it makes the good that earns most at this moment's prices; while a batch would earn nothing, it waits. Hours
are bought whole and lapse at the end of the day, so a batch is as much as some whole hours make, hours are bought last,
and none late in the day.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from arena_client import ArenaClient, ArenaStream, Receipt, RequestError, StateChanged

LABOUR = "labour"
HOURS_IN_DAY = 24
LAST_HOUR_TO_BUY = 18
BATCH_HOURS = 4
"""Hours of labour to use at a time."""
SLACK = 0.02
"""Limits lie this far on the safe side of the reference price; a trade is at the auction's one price all the same."""
TICKS_BETWEEN = 5
"""Ticks from one step to the next: some two requests a step must stay below the key's 1,000 a minute."""


@dataclass(frozen=True)
class Recipe:
    """How a good is made. inputs: lots of each input for one lot. hours: hours for one lot."""

    good: str
    inputs: dict[str, float]
    hours: float

    def lots(self, hours: int) -> int:
        """Return the lots that so many hours make."""
        return int(hours / self.hours)

    def needs(self, lots: int) -> dict[str, int]:
        """Return what making `lots` takes, rounded up as the world does."""
        needs = {name: math.ceil(lots * per_lot) for name, per_lot in self.inputs.items()}
        return {**needs, LABOUR: math.ceil(lots * self.hours)}

    def margin(self, price: dict[str, float]) -> float:
        """Return the gain on a batch as a share of its cost, at the present prices."""
        lots = self.lots(BATCH_HOURS)
        cost = sum(quantity * price[name] for name, quantity in self.needs(lots).items())
        return lots * price[self.good] / cost - 1


@dataclass
class Producer:
    """One run of the bot. held: free lots by market. bought: lots and hours. made, sold: lots of the good.

    day: the simulated day whose recipe it has.
    """

    arena: ArenaClient
    recipe: Recipe
    held: Counter[str] = field(default_factory=Counter)
    cash: float = 0.0
    wealth: str = ""
    orders: int = 0
    bought: int = 0
    made: int = 0
    sold: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    day: int = -1

    async def look(self) -> None:
        """Read our own account."""
        me = await self.arena.agent()
        self.cash = float(me["cash"])
        self.wealth = me["wealth"]
        self.held = Counter({name: held["quantity"] - held["reserved"] for name, held in me["holdings"].items()})

    async def step(self, tick: int, price: dict[str, float]) -> None:
        """Do the one thing that is next: sell what is made, make what can be made, or buy what is missing."""
        await self.look()
        if self.day != (today := day_of(tick)):
            self.recipe = await read_recipe(self.arena, self.recipe.good) or self.recipe
            self.day = today
        good = self.recipe.good
        if self.held[good]:
            await self.sell(self.held[good], price[good])
            return
        lots = self.recipe.lots(BATCH_HOURS)
        missing = {name: lots - self.held[name] for name, lots in self.recipe.needs(lots).items()}
        missing = {name: quantity for name, quantity in missing.items() if quantity > 0}
        inputs = {name: quantity for name, quantity in missing.items() if name != LABOUR}
        if not missing:
            await self.produce(lots)
        elif self.recipe.margin(price) <= 0 or self.cost(missing, price) > self.cash:
            return
        elif inputs:
            await self.buy(inputs, price)
        elif tick % HOURS_IN_DAY <= LAST_HOUR_TO_BUY:
            await self.buy(missing, price)

    def cost(self, wanted: dict[str, int], price: dict[str, float]) -> float:
        """Return what bids for all of it take out of the free cash."""
        return sum(quantity * price[name] * (1 + SLACK) for name, quantity in wanted.items())

    async def sell(self, lots: int, price: float) -> None:
        """Offer what is made for one tick."""
        receipt = await self.arena.limit(
            self.recipe.good, "sell", lots, price * (1 - SLACK), time_in_force="ioc", wait=True
        )
        self.sold += self.note(receipt)

    async def produce(self, lots: int) -> None:
        """Make the good."""
        receipt = await self.arena.produce(self.recipe.good, lots, wait=True)
        self.note(receipt)
        if receipt.outcome is not None and not receipt.outcome.is_rejected:
            self.made += lots

    async def buy(self, missing: dict[str, int], price: dict[str, float]) -> None:
        """Bid for everything that is missing, in one request, for one tick."""
        results = await self.arena.batch(
            [
                {
                    "type": "limit",
                    "market": name,
                    "side": "buy",
                    "quantity": quantity,
                    "price": f"{price[name] * (1 + SLACK):.6f}",
                    "time_in_force": "ioc",
                }
                for name, quantity in missing.items()
            ],
            wait=True,
        )
        for result in results:
            if isinstance(result, Receipt):
                self.bought += self.note(result)
            else:
                self.rejects[str(result.detail)] += 1

    def note(self, receipt: Receipt) -> int:
        """Count a decided action; return its lots."""
        self.orders += 1
        if receipt.outcome is None:
            return 0
        if receipt.outcome.is_rejected:
            self.rejects[str(receipt.outcome.document.get("detail", receipt.outcome.code))] += 1
        return receipt.outcome.filled


def day_of(tick: int) -> int:
    """Return the simulated day of an action sent after this tick: after a day's last one it is the next day."""
    return (tick + 1) // HOURS_IN_DAY


async def recipes(arena: ArenaClient) -> list[Recipe]:
    """Read how every good is made."""
    found = [await read_recipe(arena, market["name"]) for market in await arena.markets()]
    return [recipe for recipe in found if recipe is not None]


async def read_recipe(arena: ArenaClient, good: str) -> Recipe | None:
    """Read how one good is made today; None when nobody makes it."""
    production: dict[str, Any] | None = (await arena.market_detail(good)).get("production")
    if not production:
        return None
    inputs = {
        production["first_input"]: production["first_per_lot"],
        production["second_input"]: production["second_per_lot"],
    }
    return Recipe(good, inputs, production["hours_per_lot"])


async def run(url: str, seconds: float, good: str | None = None) -> Producer:
    """Produce for so many seconds and return what happened; good: None = the one that earns most now."""
    async with ArenaClient(url) as arena, ArenaStream(url) as stream:
        known = await recipes(arena)
        await arena.register()
        market_tick = await stream.subscribe("market_tick")
        price = dict(zip(stream.markets, market_tick.series("price"), strict=True))
        wanted = [recipe for recipe in known if good in (None, recipe.good)]
        producer = Producer(arena, max(wanted, key=lambda recipe: recipe.margin(price)))
        next_tick = 0
        async for update in stream.lasting(seconds):
            if not isinstance(update, StateChanged) or update.tick < next_tick:
                continue
            next_tick = update.tick + TICKS_BETWEEN
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
    parser.add_argument("--good", help="what to make; unless given, what earns most")
    options = parser.parse_args()
    producer = asyncio.run(run(options.url, options.seconds, options.good))
    print(f"{producer.orders} orders, {producer.bought} lots and hours bought")
    print(f"{producer.made} {producer.recipe.good} made, {producer.sold} sold, wealth {producer.wealth} credits")
    for reason, count in producer.rejects.most_common():
        print(f"refused {count} times: {reason}")


if __name__ == "__main__":
    main()
