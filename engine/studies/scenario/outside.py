"""Groups of outside agents that act by the ordinary actions only, as a bot does over the network.

Actions are queued and handed to the next tick in the order they were queued; what the world makes of them is counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ladder import LAST_LEVEL, level_above, level_below
from engine.markets import LABOUR, SHARE_FIRST
from engine.messages import ACTION, Kind, Status, TimeInForce
from engine.state import SLOTS_USED, TOTAL_SKILL, State

_TIME_IN_FORCE = {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC, "gtt": TimeInForce.GTT}


class Outside:
    """The outside agents of one world, by group; refused counts what the world refused, by code."""

    def __init__(self) -> None:
        self.sent = 0
        self.refused: dict[int, int] = {}
        self._sequence = 0
        self._groups: dict[str, NDArray[np.int64]] = {}
        self._queued: list[NDArray[np.void]] = []

    def join(self, group: str, count: int) -> None:
        """Queue the registration of so many agents."""
        rows = self._rows(np.zeros(count, np.int64), Kind.REGISTER)
        # an agent's number is the sequence number of its registration
        rows["agent_id"] = rows["seq"]
        self._groups[group] = rows["agent_id"].copy()

    def leave(self, group: str) -> None:
        """Queue the departure of all agents of a group that is here."""
        if group in self._groups:
            self._rows(self._groups.pop(group), Kind.UNREGISTER)

    def order(
        self, group: str, state: State, market: int, side: str, lots: int, level: int | None,
        time_in_force: str | None, ticks: int | None,
    ) -> None:  # fmt: skip
        """Queue an order of each agent of a group: a market order without a level, else a limit.

        A group that has left this world, and not its twin, sends nothing.
        level: cut to the ladder. time_in_force: gtc, ioc or gtt. ticks: auctions a gtt order takes part in.
        """
        if group not in self._groups:
            return
        rows = self._rows(self._groups[group], Kind.MARKET if level is None else Kind.LIMIT)
        rows["market"], rows["side"], rows["quantity"] = market, 1 if side == "buy" else -1, lots
        if level is not None:
            rows["level"] = min(LAST_LEVEL, max(0, level))
            rows["time_in_force"] = _TIME_IN_FORCE[time_in_force or "gtc"]
            # the next tick is the order's first auction
            rows["order_until"] = state.tick + (ticks or 0)
        rows["valid_until"] = state.tick + 1

    def share_out(self, group: str, part: float, state: State, market: int) -> int:
        """Return the lots of each agent when the group orders a part of the market's size; at least one."""
        agents = len(self._groups.get(group, ()))
        return max(1, round(part * market_size(state, market) / max(1, agents)))

    @staticmethod
    def level_of(state: State, price: int, side: str) -> int:
        """Return the ladder level of a price, ucr a lot, never worse for the sender than the price."""
        find = level_below if side == "buy" else level_above
        return int(find(state.ladder, price))

    def take(self) -> NDArray[np.void]:
        """Return the queued actions, dtype ACTION, and forget them."""
        rows = np.concatenate(self._queued) if self._queued else np.zeros(0, ACTION)
        self._queued = []
        self.sent += len(rows)
        return rows

    def count(self, outcomes: NDArray[np.void]) -> int:
        """Count what the world refused of a tick's actions; return how many."""
        refused = outcomes["code"][outcomes["status"] == Status.REJECTED]
        for code, times in zip(*np.unique(refused, return_counts=True), strict=True):
            self.refused[int(code)] = self.refused.get(int(code), 0) + int(times)
        return len(refused)

    def _rows(self, agents: NDArray[np.int64], kind: Kind) -> NDArray[np.void]:
        """Queue one action of a kind for each agent and return the rows to fill in."""
        rows: NDArray[Any] = np.zeros(len(agents), ACTION)
        rows["seq"] = self._sequence + 1 + np.arange(len(agents))
        rows["agent_id"], rows["kind"], rows["market"] = agents, kind, -1
        self._sequence += len(agents)
        self._queued.append(rows)
        return rows


def market_size(state: State, market: int) -> float:
    """Return the size of a market: lots outstanding of a share or the consol, else a day's output at the start.

    Labour: the hours that all households offer in a day.
    """
    if market >= SHARE_FIRST:
        return float(state.shares_out[market])
    if market == LABOUR:
        return float(state.counters[TOTAL_SKILL])
    return float(state.output_weight[market])


def held_part(state: State, market: int) -> float:
    """Return what outside agents hold of a market, as a part of its size."""
    used = int(state.counters[SLOTS_USED])
    return float(state.agent_holdings[:used, market].sum()) / market_size(state, market)
