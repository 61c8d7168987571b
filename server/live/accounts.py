"""An agent's own view of itself: its account as a document, and what the world would say to an action.

Reads the world's arrays, so it may be asked only while they hold what is published: `async with ticker.settled()`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.agent_index import find
from engine.economy import Economy
from engine.markets import NAMES
from engine.messages import REJECT_TEXT, Reject
from engine.preview import preview
from engine.state import NEVER, Q15_ONE
from server.live.receipts import credits

_MOODS = ("sentiment", "fear", "greed", "confidence")


class AccountReader:
    """Answers from the arrays of an economy that stands still."""

    def __init__(self, economy: Economy) -> None:
        self._economy = economy
        self._state = economy.state

    def document(self, number: int) -> dict[str, Any]:
        """Return an agent's account, money in credits; one that waits for its registration has nothing yet."""
        state = self._state
        slot = find(state.agent_index, state.agent_id, number)
        if slot < 0:
            return _EMPTY | {"agent_id": f"a{number}", "tick": state.tick}
        holdings, reserved = state.agent_holdings[slot].tolist(), state.agent_reserved[slot].tolist()
        cash, escrow, debt, advance = (
            int(column[slot])
            for column in (state.agent_cash, state.agent_escrow, state.agent_debt, state.agent_advance)
        )
        # exact in Python's integers: lots x price may pass 2^63
        value = sum(lots * price for lots, price in zip(holdings, state.price.tolist(), strict=True))
        return {
            "agent_id": f"a{number}",
            "status": "active",
            "tick": state.tick,
            "cash": credits(cash),
            "escrow": credits(escrow),
            "debt": credits(debt),
            "advance": credits(advance),
            "wealth": credits(cash + escrow + value - debt - advance),
            "holdings": {
                NAMES[m]: {"quantity": lots, "reserved": reserved[m]} for m, lots in enumerate(holdings) if lots
            },
            "orders": self._orders(slot),
            "mood": self._mood(slot),
            "last_action_tick": int(state.agent_last_tick[slot]),
        }

    def verdict(self, row: NDArray[np.void], client_action_id: str) -> dict[str, Any]:
        """Return whether the published state would let an action pass (dtype ACTION, shape (1,)), and why not."""
        outcome = preview(self._state, self._economy.config, row)
        code = int(outcome["code"])
        return {
            "client_action_id": client_action_id,
            "valid": code == 0,
            "code": code,
            "detail": REJECT_TEXT[Reject(code)] if code else "the published state would let it pass",
            "tick": self._state.tick,
        }

    def _orders(self, slot: int) -> list[dict[str, Any]]:
        state, rows = self._state, []
        # an agent's orders form a list through the book: looking for them in a million orders takes a millisecond
        row = int(state.agent_first_order[slot]) - 1
        while row >= 0:
            if state.order_qty[row] > 0:
                rows.append(row)
            row = int(state.order_next[row]) - 1
        rows.sort()
        columns = (
            column[rows].tolist()
            for column in (
                state.order_id,
                state.order_market,
                state.order_side,
                state.order_level,
                state.order_qty,
                state.order_since,
                state.order_expires,
            )
        )
        return [
            {
                "order_id": str(order_id),
                "market": NAMES[market],
                "side": "buy" if side > 0 else "sell",
                "price": credits(int(state.ladder[level])),
                "quantity": quantity,
                "since_tick": since,
                "expires_tick": None if expires >= NEVER else expires,
            }
            for order_id, market, side, level, quantity, since, expires in zip(*columns, strict=True)
        ]

    def _mood(self, slot: int) -> dict[str, float] | None:
        if not self._state.agent_has_mood[slot]:
            return None
        values = self._state.agent_mood[slot].tolist()
        return {name: round(value / Q15_ONE, 6) for name, value in zip(_MOODS, values, strict=True)}


_EMPTY: dict[str, Any] = {
    "status": "registering",
    "cash": credits(0),
    "escrow": credits(0),
    "debt": credits(0),
    "advance": credits(0),
    "wealth": credits(0),
    "holdings": {},
    "orders": [],
    "mood": None,
    "last_action_tick": None,
}
