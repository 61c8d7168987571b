"""A hand-made world for the intake and the auction: no calibration, residents that stand where a test puts them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import actions
from engine.config import Config
from engine.markets import GOOD_FIRST, GOOD_LAST, MARKETS
from engine.messages import ACTION, Kind
from engine.phases import prices
from engine.state import (
    BANK,
    CENTRE,
    FLOW_ADVANCE_BACK,
    FLOW_ADVANCE_PAID,
    FLOW_ESTATE_INCOME,
    FLOW_ESTATE_SOLD,
    FLOW_OUTSIDE_INTEREST,
    FLOW_OUTSIDE_LOANS_NEW,
    FLOW_OUTSIDE_REPAID,
    FLOW_OUTSIDE_WRITTEN_OFF,
    LOAN_RATE_Q32,
    LOANS,
    MOOD_COUNT,
    NEXT_DEADLINE,
    ORDER_COUNT,
    TREASURY,
    State,
    new_state,
)

LEVEL = 76_013
"""Reference level of every market: 20 credits a lot."""
CREDIT = 1_000_000


def floor_config(**changes: Any) -> Config:
    """Return the config of a small floor."""
    return Config(**{"residents": 2_000, "max_agents": 16, "order_book_max": 1_024, **changes})


class Floor:
    """A state, its config and a clock that runs the intake and the auction only.

    Residents hold cash; the treasury owes it, so that the sum of all accounts is zero.
    """

    def __init__(self, threads: int = 1, tick: int = 0, **changes: Any) -> None:
        self.config = floor_config(**changes)
        self.state = new_state(self.config, threads)
        state = self.state
        state.tick = tick - 1
        state.level[:] = LEVEL
        state.price[:] = state.ladder[LEVEL]
        state.elasticity[:] = 0.2
        goods = slice(GOOD_FIRST, GOOD_LAST + 1)
        state.hours_q16[goods], state.input1_q16[goods], state.input2_q16[goods] = 2_000, 13_107, 6_553
        state.counters[LOAN_RATE_Q32] = int(0.07 / 360 * 2**32)
        state.cash[:] = 1_000 * CREDIT
        state.ledger[TREASURY] = -int(state.cash.sum())
        self.sequence = 0

    def row(self, agent: int, kind: Kind, **fields: Any) -> NDArray[np.void]:
        """Return one action with the next sequence number."""
        self.sequence += 1
        row = np.zeros(1, ACTION)
        row["seq"], row["agent_id"], row["kind"], row["market"] = self.sequence, agent, kind, -1
        row["valid_until"] = self.state.tick + 600
        for name, value in fields.items():
            row[name] = value
        return row

    def any_row(self, **fields: Any) -> NDArray[np.void]:
        """Return one action with the next sequence number and whatever else it is given."""
        row = self.row(0, Kind.LIMIT)
        for name, value in fields.items():
            row[name] = value
        return row

    def limit(self, agent: int, market: int, side: int, lots: int, level: int = LEVEL, **more: Any) -> NDArray[np.void]:
        """Return a limit order, good till cancelled."""
        return self.row(agent, Kind.LIMIT, market=market, side=side, quantity=lots, level=level, **more)

    def join(self, count: int = 1, owner: int = 0) -> list[int]:
        """Register so many agents in a tick of their own and return their numbers. owner: 0 = each its own."""
        rows = [self.row(self.sequence + 1, Kind.REGISTER, owner=owner) for _ in range(count)]
        self.tick(*rows)
        return [int(row["agent_id"][0]) for row in rows]

    def tick(self, *rows: NDArray[np.void]) -> NDArray[np.void]:
        """Run the intake and the auction of the next tick, book the flows, and return the outcomes."""
        self.intake(*rows)
        prices.step(self.state, self.config)
        self._book()
        return self.state.outcomes

    def intake(self, *rows: NDArray[np.void]) -> NDArray[np.void]:
        """Begin the next tick and run its intake only."""
        state = self.state
        state.tick += 1
        state.events = []
        state.flows[:] = 0
        state.goods_flow[:] = 0
        state.actions = np.concatenate(rows) if rows else np.zeros(0, ACTION)
        actions.step(state, self.config)
        return state.outcomes

    def outcome(self, row: NDArray[np.void]) -> Any:
        """Run a tick with one action and return its outcome."""
        return self.tick(row)[0]

    def slot(self, agent: int) -> int:
        """Return an agent's slot."""
        return int(np.flatnonzero(self.state.agent_id == agent)[0])

    def give(self, agent: int, market: int, lots: int) -> None:
        """Give an agent goods out of nowhere."""
        self.state.agent_holdings[self.slot(agent), market] += lots
        actions.rebuild_index(self.state)

    def cash_sum(self) -> int:
        """Return the sum of all cash accounts, ucr."""
        state = self.state
        return int(state.cash.sum() + state.agent_cash.sum() + state.agent_escrow.sum() + state.ledger[:LOANS].sum())

    def stand(self, resident: int, level: int, lots: int, offer: bool = False, thread: int = 0) -> None:
        """Put a resident's order (lots > 0 buys) into the arrays and into the histogram of its next auction.

        offer: as the second order of a producer.
        """
        state, layout = self.state, self.state.layout
        block = int(np.searchsorted(layout.block_start, resident, side="right")) - 1
        if offer:
            m = int(layout.block_home[block])
            state.sell_level[resident - layout.producer_first] = level
            state.sell_qty[resident - layout.producer_first] = -lots
        else:
            m = int(layout.markets_at(state.tick + 1)[block])
            state.ord_level[resident], state.ord_qty[resident] = level, lots
        slot = CENTRE + level - int(state.level[m])
        state.histogram[thread, m, 0 if lots > 0 else 1, slot] += abs(lots)
        touched = state.touched[thread, m]
        touched[0], touched[1] = min(touched[0], slot), max(touched[1], slot)

    def clear_residents(self) -> None:
        """Let all residents' orders lapse."""
        for array in (self.state.ord_qty, self.state.sell_qty):
            array[:] = 0

    def resident_fills(self) -> tuple[list[int], list[int]]:
        """Return what each resident's first order and each producer's offer got in the last auction, signed lots.

        By the rule of the engine's seam: full beyond the margin, cumulative rounding from the block's start at it.
        """
        state, layout = self.state, self.state.layout
        first, offers = [0] * layout.residents, [0] * layout.producers
        for b in range(layout.blocks):
            m = int(layout.markets_at(state.tick)[b])
            running = [int(state.block_before[b, side]) for side in range(2)]
            for i in range(int(layout.block_start[b]), int(layout.block_end[b])):
                if m >= 0:
                    first[i] = self._fill(m, int(state.ord_level[i]), int(state.ord_qty[i]), running)
        for s in range(len(layout.segment_start)):
            running = [0, int(state.segment_before[s])]
            for i in range(int(layout.segment_start[s]), int(layout.segment_end[s])):
                k = i - layout.producer_first
                offers[k] = self._fill(
                    int(layout.segment_market[s]), int(state.sell_level[k]), -int(state.sell_qty[k]), running
                )
        return first, offers

    def _fill(self, m: int, level: int, lots: int, running: list[int]) -> int:
        state = self.state
        sign = 1 if lots > 0 else -1
        side = 0 if lots > 0 else 1
        ahead = sign * (level - int(state.margin_level[side, m]))
        if ahead != 0 or lots == 0:
            return lots if ahead > 0 else 0
        ration, total = int(state.margin_ration[side, m]), int(state.margin_total[side, m])
        before = running[side]
        running[side] += abs(lots)
        return sign * (ration * running[side] // total - ration * before // total)

    def _book(self) -> None:
        """Do to the ledger what the monetary phase does with the flows of outside agents."""
        flows, ledger = self.state.flows, self.state.ledger
        ledger[TREASURY] += flows[FLOW_ADVANCE_BACK] + flows[FLOW_ESTATE_SOLD] + flows[FLOW_ESTATE_INCOME]
        ledger[TREASURY] -= flows[FLOW_ADVANCE_PAID]
        new, repaid = flows[FLOW_OUTSIDE_LOANS_NEW], flows[FLOW_OUTSIDE_REPAID]
        ledger[BANK] += repaid + flows[FLOW_OUTSIDE_INTEREST] - new
        ledger[LOANS] += new - repaid - flows[FLOW_OUTSIDE_WRITTEN_OFF]


def economic_arrays(state: State) -> dict[str, NDArray[Any]]:
    """Return copies of everything a refused action must leave alone."""
    names = (
        "agent_id", "agent_owner", "agent_cash", "agent_escrow", "agent_debt", "agent_advance", "agent_holdings",
        "agent_reserved", "agent_orders", "agent_mood", "agent_has_mood", "agent_mood_tick",
        "agent_deadline", "blocked_owner", "blocked_until", "estate", "flows", "goods_flow", "cash", "ledger",
    )  # fmt: skip
    arrays = {name: getattr(state, name).copy() for name in names}
    count = int(state.counters[ORDER_COUNT])
    for name in ("order_id", "order_slot", "order_market", "order_side", "order_level", "order_qty", "order_expires"):
        arrays[name] = getattr(state, name)[:count].copy()
    arrays["counters"] = state.counters[[ORDER_COUNT, MOOD_COUNT, NEXT_DEADLINE]].copy()
    assert len(state.level) == MARKETS
    return arrays
