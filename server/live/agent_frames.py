"""What the private channel carries: records of an agent log as frames, accounts as they stand.

Money is decimal text in credits and an outcome is the one of its receipt: the channel, the receipts and
GET /api/agents/{id} say the same in the same words. Source: DESIGN section 3 (channel `agent`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from engine.markets import NAMES
from engine.messages import ORDER_UPDATE, OUTCOME, Kind, Status
from server.live.agent_log import Balance
from server.live.agent_records import PART_BITS, Record
from server.live.receipts import Outcome, credits, outcome_document

AGENT: Final = "agent"
"""Name of the channel."""
_OUTCOME = ("agent_id", "seq", "kind", *Outcome._fields)
_UPDATE = ("agent_id", "order_id", "market", "side", "status", "filled", "open", "price", "value")


def entries_frame(
    epoch: str, seq: int, base: int, sent_ns: int, entries: list[dict[str, Any]], balances: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the frame of what lies between two positions; balances: of agents whose newest one is not told yet."""
    frame: dict[str, Any] = {
        "type": "entries",
        "channel": AGENT,
        "epoch": epoch,
        "seq": seq,
        "base": base,
        "tick": seq >> PART_BITS,
        "sent_ns": sent_ns,
        "entries": entries,
    }
    if balances:
        frame["balances"] = balances
    return frame


def accounts_frame(epoch: str, tick: int, sent_ns: int, accounts: list[dict[str, Any]], left: int) -> dict[str, Any]:
    """Return the frame that carries agents as they were after a tick; left: how many are still to come."""
    return {
        "type": "accounts",
        "channel": AGENT,
        "epoch": epoch,
        "tick": tick,
        "sent_ns": sent_ns,
        "accounts": accounts,
        "left": left,
    }


def entries_of(record: Record) -> list[dict[str, Any]]:
    """Return the entries of a record, in order."""
    return [
        *({"entry": "switch", "agent_id": f"a{agent}"} for agent in record.fired),
        *_outcomes(record),
        *_updates(record),
        *({"entry": "left", "agent_id": f"a{agent}", "reason": reason} for agent, reason in record.left),
    ]


def balances_of(balances: Mapping[int, Balance], after_tick: int) -> list[dict[str, Any]]:
    """Return the balances of later ticks than one, each in the fields it has in the agent's account."""
    return [
        {
            "agent_id": f"a{agent}",
            "tick": balance.tick,
            "cash": credits(balance.cash),
            "escrow": credits(balance.escrow),
            "debt": credits(balance.debt),
            "advance": credits(balance.advance),
            "holdings": holdings(balance.holdings, balance.reserved),
        }
        for agent, balance in balances.items()
        if balance.tick > after_tick
    ]


def holdings(lots: list[int], reserved: list[int]) -> dict[str, dict[str, int]]:
    """Return what an agent holds, by market; those of which it has nothing are left out."""
    return {NAMES[m]: {"quantity": held, "reserved": reserved[m]} for m, held in enumerate(lots) if held}


def _outcomes(record: Record) -> Iterable[dict[str, Any]]:
    rows = np.frombuffer(record.outcomes, OUTCOME)
    columns = (rows[name].tolist() for name in _OUTCOME)
    for name, (agent, seq, kind, *outcome) in zip(record.names, zip(*columns, strict=True), strict=True):
        yield {
            "entry": "outcome",
            "agent_id": f"a{agent}",
            "client_action_id": name,
            "seq": seq,
            "type": Kind(kind).name.lower(),
            "outcome": outcome_document(Outcome(*outcome)),
        }


def _updates(record: Record) -> Iterable[dict[str, Any]]:
    rows = np.frombuffer(record.updates, ORDER_UPDATE)
    columns = (rows[name].tolist() for name in _UPDATE)
    for agent, order, market, side, status, filled, left, price, value in zip(*columns, strict=True):
        yield {
            "entry": "order",
            "agent_id": f"a{agent}",
            "order_id": str(order),
            "market": NAMES[market],
            "side": "buy" if side > 0 else "sell",
            "status": Status(status).name.lower(),
            "filled": filled,
            "open": left,
            "price": credits(price) if price else None,
            "value": credits(value),
        }
