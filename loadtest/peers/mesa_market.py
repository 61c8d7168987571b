"""The market in Mesa 3: agents are objects, a step asks each of them once.

    python -m loadtest.peers.mesa_market --agents 100000

Three idioms of its users, of which the fastest counts: `AgentSet.do` with a method; `AgentSet.do` with a function;
a plain loop over a list of the agents, with the noise of a step drawn at once. Agents act simultaneously, so no idiom
pays for a random order; settlement touches only the agents that traded.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import mesa
import numpy as np

from loadtest.peers.serving import serve

RATE = 1.0 / 16.0
LIMIT = itemgetter(0)


class Trader(mesa.Agent):  # type: ignore[misc]
    """One agent: cash, lots and three moods."""

    def __init__(self, model: mesa.Model) -> None:
        super().__init__(model)
        self.cash = 1_000.0
        self.lots = 10
        self.fear = self.greed = 0.1
        self.confidence = 0.7

    def act(self) -> None:
        """Feel the last move, then order a lot."""
        market = self.model
        self.fear += (market.fear - self.fear) * RATE
        self.greed += (market.greed - self.greed) * RATE
        self.confidence += (market.confidence - self.confidence) * RATE
        value = market.price * (1.0 + 0.01 * market.random.gauss(0.0, 1.0) + 0.02 * (self.greed - self.fear))
        if value > market.price:
            if self.cash >= value:
                market.bids.append((value, self))
        elif self.lots > 0:
            market.asks.append((value, self))


class Base(mesa.Model):  # type: ignore[misc]
    """The market itself: what all idioms share."""

    def __init__(self, agents: int) -> None:
        super().__init__(seed=1)
        self.price = 100.0
        self.volume = 0
        self.fear = self.greed = 0.1
        self.confidence = 0.7
        self.bids: list[tuple[float, Any]] = []
        self.asks: list[tuple[float, Any]] = []
        Trader.create_agents(self, agents)

    def clear(self) -> None:
        """Sort, find where bids end to cover asks, settle those that trade, say what the crowd feels next."""
        bids, asks = self.bids, self.asks
        bids.sort(key=LIMIT, reverse=True)
        asks.sort(key=LIMIT)
        low, high = 0, min(len(bids), len(asks))
        while low < high:
            middle = (low + high) // 2
            if bids[middle][0] >= asks[middle][0]:
                low = middle + 1
            else:
                high = middle
        self.volume = low
        before = self.price
        if low:
            price = self.price = (bids[low - 1][0] + asks[low - 1][0]) / 2.0
            for _, buyer in bids[:low]:
                buyer.cash -= price
                buyer.lots += 1
            for _, seller in asks[:low]:
                seller.cash += price
                seller.lots -= 1
        move = self.price / before - 1.0
        self.fear, self.greed = 0.1 + max(-move, 0.0) * 20.0, 0.1 + max(move, 0.0) * 20.0
        self.confidence = 0.7 - abs(move)
        bids.clear()
        asks.clear()


class ByMethod(Base):
    """`AgentSet.do` with the method's name."""

    def step(self) -> None:
        """Ask every agent, then clear."""
        self.agents.do("act")
        self.clear()


class ByFunction(Base):
    """`AgentSet.do` with the function itself: no look-up by name."""

    def step(self) -> None:
        """Ask every agent, then clear."""
        self.agents.do(Trader.act)
        self.clear()


class ByLoop(Base):
    """A list of the agents and one loop; all noise of a step from one numpy call."""

    def __init__(self, agents: int) -> None:
        super().__init__(agents)
        self.people = list(self.agents)

    def step(self) -> None:
        """Let every agent feel and order, then clear."""
        fear, greed, confidence, price = self.fear, self.greed, self.confidence, self.price
        bid, ask = self.bids.append, self.asks.append
        for one, noise in zip(self.people, self.rng.standard_normal(len(self.people)).tolist(), strict=True):
            one.fear = feared = one.fear + (fear - one.fear) * RATE
            one.greed = wanted = one.greed + (greed - one.greed) * RATE
            one.confidence += (confidence - one.confidence) * RATE
            value = price * (1.0 + 0.01 * noise + 0.02 * (wanted - feared))
            if value > price:
                if one.cash >= value:
                    bid((value, one))
            elif one.lots > 0:
                ask((value, one))
        self.clear()


if __name__ == "__main__":
    np.seterr(all="raise")
    serve({"AgentSet.do by name": ByMethod, "AgentSet.do by function": ByFunction, "list and loop": ByLoop})
