"""A momentum trader: buys what has been rising and sells it when it has been falling.

    python clients/python/examples/momentum_trader.py --url http://127.0.0.1:8000 --seconds 30

It keeps its own price history of the seven raw resources from the stream (a share costs more than a new agent has),
compares a short mean with a long one, and holds at most one position a market. After a reconnect the history goes on
with the snapshot: a gap in it is only a gap.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field

from arena_client import ArenaClient, ArenaStream, Receipt, RequestError, StateChanged

SHORT, LONG = 5, 20
"""Ticks of the two means."""
SIGNAL = 0.0005
"""How far the short mean must be above the long one to buy, or below it to sell."""
STAKE = 100.0
"""Credits to spend on a position."""
POSITIONS_MAX = 5


@dataclass
class MomentumTrader:
    """One run of the bot. positions: lots held by market. history: prices by market, oldest first, bounded."""

    arena: ArenaClient
    positions: dict[str, int] = field(default_factory=dict)
    history: dict[str, deque[float]] = field(default_factory=dict)
    orders: int = 0
    traded: int = 0
    wealth: str = ""
    rejects: Counter[str] = field(default_factory=Counter)

    def remember(self, market: str, price: float) -> float:
        """Add a price and return the momentum: short mean over long mean - 1, 0 while the history is too short."""
        prices = self.history.setdefault(market, deque(maxlen=LONG))
        prices.append(price)
        if len(prices) < LONG:
            return 0.0
        recent = list(prices)[-SHORT:]
        return (sum(recent) / SHORT) / (sum(prices) / LONG) - 1

    async def decide(self, market: str, price: float, momentum: float) -> None:
        """Buy, sell or do nothing."""
        held = self.positions.get(market, 0)
        lots = int(STAKE / price)
        if momentum > SIGNAL and not held and lots and len(self.positions) < POSITIONS_MAX:
            await self.trade(market, "buy", lots)
        elif momentum < -SIGNAL and held:
            await self.trade(market, "sell", held)

    async def trade(self, market: str, side: str, lots: int) -> None:
        """Send a market order, wait for what became of it, and keep the books."""
        try:
            receipt = await self.arena.market(market, side, lots, wait=True)
        except RequestError as error:
            print(f"{side} {lots} {market}: {error}")
            await self.recount()
            return
        self.book(market, side, receipt)

    def book(self, market: str, side: str, receipt: Receipt) -> None:
        """Add what traded to the position."""
        self.orders += 1
        outcome = receipt.outcome
        if outcome is None:
            return
        if outcome.is_rejected:
            self.rejects[str(outcome.document.get("detail", outcome.code))] += 1
        self.traded += outcome.filled
        lots = self.positions.get(market, 0) + (outcome.filled if side == "buy" else -outcome.filled)
        self.positions[market] = lots
        if not lots:
            del self.positions[market]

    async def recount(self) -> None:
        """Read the positions from our account: after an unclear answer only the server knows them."""
        me = await self.arena.agent()
        self.wealth = me["wealth"]
        self.positions = {name: held["quantity"] for name, held in me["holdings"].items() if held["quantity"]}


async def run(url: str, seconds: float) -> MomentumTrader:
    """Trade the raw resources for so many seconds and return what happened; positions are kept."""
    async with ArenaClient(url) as arena, ArenaStream(url) as stream:
        await arena.register()
        market_tick = await stream.subscribe("market_tick")
        traded = [(stream.markets.index(name), name) for name in stream.resources]
        trader = MomentumTrader(arena)
        async for update in stream.lasting(seconds):
            if not isinstance(update, StateChanged):
                continue
            prices = market_tick.series("price")
            for i, name in traded:
                await trader.decide(name, prices[i], trader.remember(name, prices[i]))
        await trader.recount()
    return trader


def main() -> None:
    """Run from the command line and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    trader = asyncio.run(run(options.url, options.seconds))
    print(f"{trader.orders} orders, {trader.traded} lots traded, wealth {trader.wealth} credits")
    print("holds " + (", ".join(f"{lots} {name}" for name, lots in trader.positions.items()) or "nothing"))
    for reason, count in trader.rejects.most_common():
        print(f"refused {count} times: {reason}")


if __name__ == "__main__":
    main()
