"""Receipts: an action is known by its id, its outcome follows its order, and it is forgotten in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.events import PublicState, TickReport
from engine.messages import ORDER_UPDATE, OUTCOME, Kind, Reject, Status
from server.live.errors import ReceiptsFull
from server.live.receipts import RETENTION_TICKS, Receipts, credits

PRINT = b"0123456789abcdef"


def report(
    tick: int, outcomes: list[dict[str, Any]] | None = None, updates: list[dict[str, Any]] | None = None
) -> TickReport:
    """Return the report of a tick with these outcomes and updates, and nothing public."""
    tables = []
    for dtype, rows in ((OUTCOME, outcomes or []), (ORDER_UPDATE, updates or [])):
        table = np.zeros(len(rows), dtype)
        for row, values in zip(table, rows, strict=True):
            for name, value in values.items():
                row[name] = value
        tables.append(table)
    return TickReport(tick, tables[0], tables[1], (), PublicState(tick, {}, {}, {}, {}, {}))


def test_a_receipt_has_no_outcome_until_its_tick_is_published() -> None:
    """Accepted means accepted: what becomes of it is not known yet."""
    receipts = Receipts(9)

    receipt = receipts.add(1, "a-1", 5, PRINT, 600)

    assert receipts.get(1, "a-1") is receipt
    assert receipts.get(2, "a-1") is None, "ids are an agent's own"
    assert receipt.document(False) == {
        "client_action_id": "a-1",
        "status": "accepted",
        "seq": 5,
        "tick": None,
        "duplicate": False,
        "outcome": None,
    }


def test_a_resting_order_is_followed_to_its_end() -> None:
    """Fills of later ticks add up in the receipt of the action that placed the order."""
    receipts = Receipts(9)
    receipt = receipts.add(1, "a-1", 5, PRINT, 600)

    placed = {"seq": 5, "agent_id": 1, "order_id": 5, "open": 10, "kind": Kind.LIMIT, "status": Status.RESTING}
    receipts.apply(report(10, [placed]))
    resting = receipt.document(True)
    fill = {"order_id": 5, "filled": 4, "value": -5_000_000, "open": 6, "price": 1_250_000, "status": Status.PARTIAL}
    receipts.apply(report(11, updates=[fill]))
    partial = receipt.outcome
    rest = {"order_id": 5, "filled": 6, "value": -7_200_001, "open": 0, "price": 1_200_000, "status": Status.FILLED}
    receipts.apply(report(12, updates=[rest]))
    receipts.apply(report(13, updates=[rest]))

    assert (resting["tick"], resting["duplicate"], resting["outcome"]["status"]) == (10, True, "resting")
    assert partial is not None
    assert (partial["status"], partial["filled"], partial["open"]) == ("partial", 4, 6)
    assert receipt.outcome == {
        "status": "filled",
        "code": 0,
        "order_id": "5",
        "filled": 10,
        "open": 0,
        "price": "1.200000",
        "value": "-12.200001",
    }, "and is left alone once it is over"


def test_a_cancelled_order_keeps_what_it_had_traded() -> None:
    """A cancel changes the status of the order's own receipt; what was filled stays."""
    receipts = Receipts(9)
    order = receipts.add(1, "order", 5, PRINT, 600)
    cancel = receipts.add(1, "cancel", 6, PRINT, 600)
    placed = {"seq": 5, "order_id": 5, "filled": 3, "open": 7, "kind": Kind.LIMIT, "status": Status.PARTIAL}
    receipts.apply(report(10, [placed]))

    done = {"seq": 6, "order_id": 5, "kind": Kind.CANCEL, "status": Status.CANCELLED}
    receipts.apply(report(11, [done], [{"order_id": 5, "open": 0, "status": Status.CANCELLED}]))

    assert order.outcome is not None
    assert cancel.outcome is not None
    assert (order.outcome["status"], order.outcome["filled"]) == ("cancelled", 3)
    assert (cancel.outcome["status"], cancel.outcome["order_id"], cancel.tick) == ("cancelled", "5", 11)


@pytest.mark.parametrize(
    ("code", "needed", "available"),
    [(Reject.NO_FUNDS, "12.500000", "3.100000"), (Reject.NO_HOLDINGS, 12_500_000, 3_100_000)],
)
def test_a_refusal_says_what_was_needed_in_its_own_unit(code: Reject, needed: Any, available: Any) -> None:
    """Money is in credits with six places, lots and ticks are whole numbers."""
    receipts = Receipts(9)
    receipt = receipts.add(1, "a-1", 5, PRINT, 600)

    refused = {"seq": 5, "code": code, "status": Status.REJECTED, "needed": 12_500_000, "available": 3_100_000}
    receipts.apply(report(10, [refused]))

    assert receipt.outcome is not None
    assert (receipt.outcome["status"], receipt.outcome["code"]) == ("rejected", code)
    assert (receipt.outcome["needed"], receipt.outcome["available"]) == (needed, available)
    assert receipt.outcome["order_id"] is None
    assert "not enough" in receipt.outcome["detail"]


def test_a_receipt_is_kept_6000_ticks_longer_than_its_action_is_valid() -> None:
    """It is there at the last tick of its time and gone after it, even if its order still rests."""
    receipts = Receipts(0)
    receipts.add(1, "short", 5, PRINT, 3)
    receipts.add(1, "long", 6, PRINT, 4)
    receipts.apply(report(1, [{"seq": 5, "order_id": 5, "open": 1, "status": Status.RESTING}]))

    for tick in range(2, 3 + RETENTION_TICKS + 1):
        receipts.apply(report(tick))
    assert receipts.get(1, "short") is not None
    receipts.apply(report(4 + RETENTION_TICKS))

    assert receipts.get(1, "short") is None
    assert receipts.get(1, "long") is not None
    receipts.apply(report(5 + RETENTION_TICKS, updates=[{"order_id": 5, "filled": 1, "status": Status.FILLED}]))
    assert len(receipts) == 0


def test_when_memory_is_full_nothing_more_is_accepted() -> None:
    """No receipt goes before its time: an action that could not be told from a retry of it might happen twice."""
    receipts = Receipts(0, limit=2)
    receipts.add(1, "one", 1, PRINT, 1)
    receipts.add(1, "two", 2, PRINT, 600)
    receipts.apply(report(1, [{"seq": 1, "status": Status.DONE}]))

    with pytest.raises(ReceiptsFull, match="2 receipts"):
        receipts.make_room()

    receipts.flush()
    with pytest.raises(ReceiptsFull, match="2 receipts"):
        receipts.make_room()


def test_an_action_that_comes_expired_is_remembered_all_the_same() -> None:
    """Its receipt tells of the refusal for as long as others' do."""
    receipts = Receipts(100)

    receipts.add(1, "late", 1, PRINT, 5)
    for tick in range(101, 200):
        receipts.apply(report(tick))

    assert receipts.get(1, "late") is not None


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.000000"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (1_250_000, "1.250000"),
        (-(10**18), "-1000000000000.000000"),
    ],
)
def test_amounts_are_exact(amount: int, text: str) -> None:
    """No float is between the ledger and the text."""
    assert credits(amount) == text


@pytest.mark.parametrize("code", [Reject.NONE, Reject.NO_FUNDS])
def test_a_packed_receipt_says_what_it_said_before(code: Reject) -> None:
    """What can no longer change is kept as bytes; whoever asks later gets the same document, print and sequence."""
    receipts = Receipts(9)
    receipt = receipts.add(1, "a-1", 5, PRINT, 600)
    outcome = {"seq": 5, "order_id": 5, "filled": 4, "value": -(1 << 60), "price": 1 << 40, "status": Status.FILLED}
    if code:
        outcome = {"seq": 5, "code": code, "needed": 1 << 62, "available": 3, "status": Status.REJECTED}

    receipts.apply(report(10, [outcome]))
    later = receipts.get(1, "a-1")

    assert later is not None
    assert later is not receipt
    assert (later.seq, later.fingerprint) == (5, PRINT)
    assert later.document(True) == receipt.document(True)
