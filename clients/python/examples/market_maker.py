"""A market maker: quotes both sides of one market around its reference price and keeps its stock bounded.

    python clients/python/examples/market_maker.py --url http://127.0.0.1:8000 --seconds 30

It buys a little below the reference price and sells a little above. Its stock moves both quotes: the more it holds,
the lower they are, so that it sells sooner than it buys, and the other way round.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from dataclasses import dataclass, field

from arena_client import ArenaClient, ArenaStream, Receipt, RequestError, StateChanged

QUOTE_LOTS = 5
STOCK_MAX = 40
EDGE = 0.0012
"""Distance of a quote from the reference price, as a share of it: about what a resource moves in a tick."""
LEAN = 0.004
"""How far a full stock lowers both quotes."""
MOVE = 0.0005
"""Change of a quote's price that is worth a replace."""
TICKS_BETWEEN = 5


@dataclass
class Quote:
    """An order of ours in the market, as far as we know."""

    order_id: str
    price: float
    lots: int


@dataclass
class MarketMaker:
    """One run of the bot. traded: lots, both sides. rejects: how often the world refused, by its reason."""

    arena: ArenaClient
    market: str
    quotes: dict[str, Quote] = field(default_factory=dict)
    orders: int = 0
    traded: int = 0
    stock: int = 0
    wealth: str = ""
    rejects: Counter[str] = field(default_factory=Counter)

    async def look(self) -> float:
        """Read our own account: what we hold, what our quotes traded since. Return the free cash in credits."""
        me = await self.arena.agent()
        self.stock = me["holdings"].get(self.market, {}).get("quantity", 0)
        self.wealth = me["wealth"]
        left = {order["order_id"]: order["quantity"] for order in me["orders"]}
        for side, quote in list(self.quotes.items()):
            lots = left.get(quote.order_id, 0)
            self.traded += quote.lots - lots
            quote.lots = lots
            if not lots:
                del self.quotes[side]
        return float(me["cash"])

    async def requote(self, price: float) -> None:
        """Bring both quotes to where they belong around `price`."""
        cash = await self.look()
        centre = price * (1 - LEAN * self.stock / STOCK_MAX)
        targets = {"buy": centre * (1 - EDGE), "sell": centre * (1 + EDGE)}
        room = {"buy": min(STOCK_MAX - self.stock, int(cash / targets["buy"])), "sell": self.stock}
        # the quote that moves away goes first, or the other one would meet it: own orders must not trade
        highest_first = "sell" in self.quotes and self.quotes["sell"].price < targets["sell"]
        for side in ("sell", "buy") if highest_first else ("buy", "sell"):
            lots = min(QUOTE_LOTS, room[side])
            try:
                await self.place(side, lots, targets[side])
            except RequestError as error:
                # the next round looks at the account again and knows what came of it
                print(f"{side}: {error}")

    async def place(self, side: str, lots: int, price: float) -> None:
        """Place the quote of a side, or move it when its price is off."""
        quote = self.quotes.get(side)
        if quote is None and lots > 0:
            self.note(side, price, lots, await self.arena.limit(self.market, side, lots, price, wait=True))
        elif quote is not None and abs(quote.price / price - 1) > MOVE:
            receipt = await self.arena.replace(quote.order_id, quote.lots, price, side=side, wait=True)
            del self.quotes[side]
            self.note(side, price, quote.lots, receipt)

    def note(self, side: str, price: float, lots: int, receipt: Receipt) -> None:
        """Remember what the world made of an order."""
        self.orders += 1
        outcome = receipt.outcome
        if outcome is None:
            return
        if outcome.is_rejected:
            self.rejects[str(outcome.document.get("detail", outcome.code))] += 1
            return
        self.traded += outcome.filled
        if outcome.is_open:
            self.quotes[side] = Quote(receipt.order_id, price, lots - outcome.filled)

    async def leave(self) -> None:
        """Take the quotes back."""
        await self.look()
        for side, quote in list(self.quotes.items()):
            del self.quotes[side]
            receipt = await self.arena.cancel(quote.order_id, wait=True)
            if receipt.outcome is not None and receipt.outcome.is_rejected:
                # there was nothing left to cancel: it traded while we were leaving
                self.traded += quote.lots
        await self.look()


async def run(url: str, seconds: float, market: str = "oil") -> MarketMaker:
    """Quote in `market` for so many seconds, take the quotes back and return what happened."""
    async with ArenaClient(url) as arena, ArenaStream(url) as stream:
        await arena.register()
        prices = await stream.subscribe("market_tick")
        index = stream.markets.index(market)
        maker = MarketMaker(arena, market)
        next_tick = 0
        async for update in stream.lasting(seconds):
            if isinstance(update, StateChanged) and update.tick >= next_tick:
                next_tick = update.tick + TICKS_BETWEEN
                await maker.requote(prices.series("price")[index])
        await maker.leave()
    return maker


def main() -> None:
    """Run from the command line and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--market", default="oil")
    options = parser.parse_args()
    maker = asyncio.run(run(options.url, options.seconds, options.market))
    print(f"{maker.orders} orders, {maker.traded} lots traded, {maker.stock} held, wealth {maker.wealth} credits")
    for reason, count in maker.rejects.most_common():
        print(f"refused {count} times: {reason}")


if __name__ == "__main__":
    main()
