"""Small worlds and reproducible random bots for tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.economy import Economy
from engine.ladder import prices
from engine.markets import GOOD_FIRST, GOOD_LAST, MARKETS
from engine.messages import ACTION, Kind, TimeInForce
from engine.state import ORDER_COUNT, Parallel


def small_config(**changes: Any) -> Config:
    """Return the config of a world of 2 000 residents that starts in a moment."""
    return Config(**{"residents": 2_000, "max_agents": 64, "order_book_max": 4_096, **changes})


def in_threads(threads: int) -> Parallel:
    """Return a Parallel that runs its ranges in a pool of that many threads."""
    pool = ThreadPoolExecutor(threads)

    def run(work: Any, count: int) -> None:
        list(pool.map(work, range(count)))

    return run


class RandomBots:
    """Bots that do anything an agent may do, well or badly, the same way for the same seed.

    edges: trade far from the market as often as near it, in sizes up to everything.
    """

    def __init__(self, agents: int, seed: int, *, edges: bool = False) -> None:
        self.random = np.random.default_rng(seed)
        self.agents = agents
        self.edges = edges
        self.sequence = 0
        self.numbers: list[int] = []

    def rows(self, economy: Economy, count: int) -> NDArray[np.void]:
        """Return the next tick's actions: all registrations first, then so many random ones."""
        if not self.numbers:
            rows = [self._register() for _ in range(self.agents)]
        else:
            rows = [self._random(economy) for _ in range(count)]
        return np.concatenate(rows) if rows else np.zeros(0, ACTION)

    def _row(self, economy_tick: int, kind: Kind, agent: int, **fields: Any) -> NDArray[np.void]:
        self.sequence += 1
        row = np.zeros(1, ACTION)
        row["seq"], row["agent_id"], row["kind"], row["market"] = self.sequence, agent, kind, -1
        row["valid_until"] = economy_tick + 600
        for name, value in fields.items():
            row[name] = value
        return row

    def _register(self) -> NDArray[np.void]:
        number = self.sequence + 1
        self.numbers.append(number)
        return self._row(0, Kind.REGISTER, number, owner=1 + (number - 1) // 3)

    def _random(self, economy: Economy) -> NDArray[np.void]:
        random, state = self.random, economy.state
        agent = int(random.choice(self.numbers))
        tick = economy.tick
        market = int(random.integers(0, MARKETS))
        kind = random.choice(
            [Kind.LIMIT] * 10
            + [Kind.MARKET] * 3
            + [Kind.CANCEL] * 3
            + [Kind.REPLACE] * 2
            + [Kind.BORROW, Kind.REPAY, Kind.PRODUCE, Kind.CONSUME, Kind.SET_SENTIMENT]
            + [Kind.CANCEL_ALL, Kind.CANCEL_AFTER]
        )
        side = int(random.choice([-1, 1]))
        quantity = int(random.pareto(1.0) * 3) + 1
        if self.edges and random.random() < 0.3:
            quantity = int(10 ** random.uniform(0, 9))
        spread = 7_500 if self.edges else 60
        level = int(np.clip(state.level[market] + random.integers(-spread, spread + 1), 0, len(prices()) - 1))
        open_count = int(state.counters[ORDER_COUNT])
        order = int(state.order_id[random.integers(0, open_count)]) if open_count else 1
        match kind:
            case Kind.LIMIT | Kind.REPLACE:
                time_in_force = int(random.integers(0, 3))
                return self._row(
                    tick, Kind(kind), agent, market=market, side=side, quantity=quantity, level=level,
                    time_in_force=time_in_force if kind == Kind.LIMIT else 0,
                    order_until=tick + 5 if time_in_force == TimeInForce.GTT else 0,
                    order_id=order if kind == Kind.REPLACE else 0,
                )  # fmt: skip
            case Kind.MARKET:
                return self._row(tick, Kind.MARKET, agent, market=market, side=side, quantity=quantity)
            case Kind.CANCEL:
                return self._row(tick, Kind.CANCEL, agent, order_id=order)
            case Kind.CANCEL_ALL:
                return self._row(tick, Kind.CANCEL_ALL, agent, market=market if random.random() < 0.5 else -1)
            case Kind.CANCEL_AFTER:
                return self._row(tick, Kind.CANCEL_AFTER, agent, quantity=int(random.integers(0, 6)))
            case Kind.BORROW | Kind.REPAY:
                return self._row(tick, Kind(kind), agent, amount=int(10 ** random.uniform(6, 10)))
            case Kind.PRODUCE | Kind.CONSUME:
                good = int(random.integers(GOOD_FIRST, GOOD_LAST + 1))
                return self._row(tick, Kind(kind), agent, market=good, quantity=quantity)
            case _:
                mood = random.integers(0, 32_768, 4)
                return self._row(tick, Kind.SET_SENTIMENT, agent, mood=mood)


def run(economy: Economy, ticks: int, bots: RandomBots | None = None, count: int = 20) -> Iterator[bytes]:
    """Advance so many ticks under the bots' actions and yield the state hash of each."""
    for _ in range(ticks):
        if bots is None:
            economy.advance()
        else:
            economy.advance(bots.rows(economy, count))
        yield economy.state_hash()
