"""Receipts: an action is known by its id, its outcome follows its order, and it is forgotten in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.events import PublicState, TickReport
from engine.messages import ACTION, ORDER_UPDATE, OUTCOME, Kind, Reject, Status
from engine.receipt_table import RECEIPT, Verdict
from server.live.errors import ReceiptsFull
from server.live.receipt_index import write_generation
from server.live.receipts import (
    FLUSH_AT,
    KEPT_MAX,
    RECEIPTS_MAX,
    RETENTION_TICKS,
    Entry,
    Receipt,
    Receipts,
    credits,
    entry_of,
    in_memory_max,
    names_of,
)

PRINT = b"0123456789abcdef"


def keep(receipts: Receipts, agent: int, name: str, seq: int, fingerprint: bytes, valid_until: int) -> Receipt:
    """Keep and return the receipt of an action."""
    return receipts.add(receipts.key_of(agent, name), name, seq, fingerprint, valid_until)


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

    receipt = keep(receipts, 1, "a-1", 5, PRINT, 600)

    found = receipts.get(1, "a-1")
    assert found is not None
    assert (found.document(False), found.fingerprint) == (receipt.document(False), PRINT)
    assert receipts.get(2, "a-1") is None, "ids are an agent's own"
    assert receipt.document(False) == {
        "client_action_id": "a-1",
        "status": "accepted",
        "seq": 5,
        "tick": None,
        "duplicate": False,
        "outcome": None,
    }


def test_an_entry_is_a_row_in_plain_numbers() -> None:
    """The same fields in the same order."""
    row = np.zeros(1, RECEIPT)
    for i, name in enumerate(RECEIPT.names or ()):
        row[name] = i + 1

    assert Entry._fields == RECEIPT.names
    assert entry_of(row, 0) == tuple(range(1, len(Entry._fields) + 1))


@pytest.mark.parametrize("name", ["a", "a-1", "order-17", "a" * 63, "a" * 64])
def test_what_was_kept_among_many_is_found_alone(name: str) -> None:
    """An id alone has the key it has in a column of them."""
    receipts = Receipts(9)
    names = names_of([name, "another"])

    receipts.add_all(np.array([1, 1]), names, np.array([5, 6]), np.ones((2, 2), np.uint64), np.array([600, 600]))

    found = receipts.get(1, name)
    assert found is not None
    assert found.seq == 5
    assert receipts.get(1, "") is None


def test_an_action_is_decided_alone_as_among_others(tmp_path: Path) -> None:
    """New, known, taken and refused; what is on disk is known as well as what is in memory."""
    receipts = Receipts(9, kept_max=3)
    rows = [np.zeros(1, ACTION) for _ in range(2)]
    rows[1]["quantity"] = 5

    first = receipts.take(rows[0].tobytes(), "a", -1, 600, 5, 1)
    assert first[0] is Verdict.ACCEPTED
    assert first[1] is not None
    again = receipts.take(rows[0].tobytes(), "a", -1, 900, 6, 0)
    other = receipts.take(rows[1].tobytes(), "a", -1, 600, 6, 1)
    full = receipts.take(rows[1].tobytes(), "b", -1, 600, 6, 0)
    done = {"seq": 5, "agent_id": 0, "order_id": 5, "kind": Kind.LIMIT, "status": Status.FILLED}
    receipts.apply(report(10, [done]))
    receipts.adopt(write_generation(tmp_path, 1, receipts.flush().rows()))
    receipts.apply(report(11))
    receipts.apply(report(12))
    in_memory = receipts.in_memory
    later = [receipts.take(row.tobytes(), "a", -1, 600, 6, 1) for row in rows]
    more = [receipts.take(rows[1].tobytes(), name, -1, 600, 6 + i, 1) for i, name in enumerate("bcd")]

    for verdict, known in (again, later[0]):
        assert known is not None
        assert (verdict, known.seq) == (Verdict.DUPLICATE, 5)
    assert (other[0], later[1][0]) == (Verdict.CONFLICT, Verdict.CONFLICT)
    assert full == (Verdict.FULL, None)
    assert in_memory == 0, "it was only on disk"
    assert [verdict for verdict, _ in more] == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.FULL]
    assert receipts.fullness() is not None
    assert first[1].document(False) == receipts.get(0, "a").document(False)  # type: ignore[union-attr]


def test_a_resting_order_is_followed_to_its_end() -> None:
    """Fills of later ticks add up in the receipt of the action that placed the order."""
    receipts = Receipts(9)
    receipt = keep(receipts, 1, "a-1", 5, PRINT, 600)

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
    order = keep(receipts, 1, "order", 5, PRINT, 600)
    cancel = keep(receipts, 1, "cancel", 6, PRINT, 600)
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
    receipt = keep(receipts, 1, "a-1", 5, PRINT, 600)

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
    keep(receipts, 1, "short", 5, PRINT, 3)
    keep(receipts, 1, "long", 6, PRINT, 4)
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
    keep(receipts, 1, "one", 1, PRINT, 1)
    keep(receipts, 1, "two", 2, PRINT, 600)
    receipts.apply(report(1, [{"seq": 1, "status": Status.DONE}]))

    with pytest.raises(ReceiptsFull, match="2 receipts"):
        receipts.make_room()

    receipts.flush()
    with pytest.raises(ReceiptsFull, match="2 receipts"):
        receipts.make_room()


def test_tables_follow_the_most_that_may_be_kept() -> None:
    """A small world takes little memory, one as large as may be no more than ever; what rests has room in any case."""
    assert in_memory_max(KEPT_MAX, 1_048_576, 65_536) == RECEIPTS_MAX
    assert in_memory_max(20_000, 4_096, 1_024) == 20_000 + 4_096 + 1_024 + 2 * FLUSH_AT


def test_an_action_that_comes_expired_is_remembered_all_the_same() -> None:
    """Its receipt tells of the refusal for as long as others' do."""
    receipts = Receipts(100)

    keep(receipts, 1, "late", 1, PRINT, 5)
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


@pytest.mark.parametrize("name", ["", "ä", "a" * 65, "a\0", "\ud800"])
def test_what_can_be_no_id_has_no_receipt(name: str) -> None:
    """An id is looked for whole: neither its beginning nor its end is another one's."""
    receipts = Receipts(9)
    keep(receipts, 1, "a", 5, PRINT, 600)
    keep(receipts, 1, "a" * 64, 6, PRINT, 600)

    assert receipts.get(1, name) is None


def test_names_are_hashed_with_a_secret() -> None:
    """Whoever knows the code but not the world cannot choose where a receipt goes."""
    keys = [Receipts(0, secret=secret).keys(np.array([1]), names_of(["a"])).tolist() for secret in (b"1", b"2", b"1")]

    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize("code", [Reject.NONE, Reject.NO_FUNDS])
def test_a_receipt_on_disk_says_what_it_said_before(code: Reject, tmp_path: Path) -> None:
    """Whoever asks later gets the same document, print and sequence; memory has one receipt less."""
    receipts = Receipts(9)
    receipt = keep(receipts, 1, "a-1", 5, PRINT, 600)
    outcome = {"seq": 5, "order_id": 5, "filled": 4, "value": -(1 << 60), "price": 1 << 40, "status": Status.FILLED}
    if code:
        outcome = {"seq": 5, "code": code, "needed": 1 << 62, "available": 3, "status": Status.REJECTED}

    receipts.apply(report(10, [outcome]))
    said = receipt.document(True)
    flush(receipts, tmp_path)
    receipts.apply(report(11))
    later = receipts.get(1, "a-1")

    assert later is not None
    assert (later.seq, later.fingerprint) == (5, PRINT)
    assert later.document(True) == receipt.document(True) == said
    assert (receipts.in_memory, len(receipts)) == (0, 1)


def test_a_receipt_is_never_missing_on_its_way_to_the_disk(tmp_path: Path) -> None:
    """While it is written, when it is on disk, when it has left the memory: it is there, and counted once."""
    receipts = Receipts(9)
    for i in range(3):
        keep(receipts, 1, f"a-{i}", 5 + i, PRINT, 600)
    receipts.apply(report(10, [{"seq": 5 + i, "status": Status.DONE} for i in range(2)]))
    stages: list[tuple[int, int]] = []

    def look() -> None:
        assert all(receipts.get(1, f"a-{i}") is not None for i in range(3))
        stages.append((receipts.in_memory, len(receipts)))

    settled = receipts.flush()
    look()
    generation = write_generation(tmp_path, 10, settled.rows())
    look()
    receipts.adopt(generation)
    look()
    receipts.apply(report(11))
    look()

    assert stages == [(3, 3), (3, 3), (3, 3), (1, 3)]


def test_what_the_disk_did_not_take_is_taken_by_the_next_flush(tmp_path: Path) -> None:
    """Nothing is lost, nothing is written twice."""
    receipts = Receipts(9)
    for i in range(4):
        keep(receipts, 1, f"a-{i}", 5 + i, PRINT, 600)
    receipts.apply(report(10, [{"seq": 5, "status": Status.DONE}, {"seq": 6, "status": Status.DONE}]))
    receipts.flush()
    receipts.apply(report(11, [{"seq": 7, "status": Status.DONE}]))

    receipts.take_back()

    assert sorted(receipts.flush().rows()["seq"].tolist()) == [5, 6, 7]


def test_a_batch_meets_what_is_in_memory_and_what_is_on_disk(tmp_path: Path) -> None:
    """The same action is a duplicate, another one a conflict, wherever the first one's receipt is."""
    receipts = Receipts(9)
    for i, name in enumerate(("disk", "memory")):
        keep(receipts, 1, name, 5 + i, PRINT, 600)
    receipts.apply(report(10, [{"seq": 5, "status": Status.DONE}]))
    flush(receipts, tmp_path)
    receipts.apply(report(11))

    names = ["disk", "memory", "new", "disk", "memory", "gone"]
    keys = receipts.keys(np.ones(6, np.int64), names_of(names))
    prints = np.frombuffer(PRINT * 3 + b"another print..." * 2 + PRINT, np.uint64).reshape(6, 2)
    verdicts = np.array([Verdict.ASKED] * 5 + [Verdict.LEFT], np.int32)
    admitted = receipts.admit(keys, prints, np.full(6, 600), verdicts, 70, 10)

    assert [Verdict(verdict).name for verdict in admitted.verdicts] == [
        "DUPLICATE", "DUPLICATE", "ACCEPTED", "CONFLICT", "CONFLICT", "UNKNOWN_AGENT",
    ]  # fmt: skip
    assert admitted.seqs.tolist() == [5, 6, 70, 5, 6, 0]
    assert admitted.accepted == 1
    at, rows = receipts.rows(keys)
    assert at.tolist() == [0, 1, 2, 3, 4]
    assert rows["seq"].tolist() == [5, 6, 70, 5, 6]


def test_when_as_many_are_kept_as_may_be_nothing_more_is_accepted(tmp_path: Path) -> None:
    """The bound counts those on disk; who asks again is still answered."""
    receipts = Receipts(9, kept_max=2)
    keep(receipts, 1, "one", 5, PRINT, 600)
    keep(receipts, 1, "two", 6, PRINT, 600)
    receipts.apply(report(10, [{"seq": 5, "status": Status.DONE}]))
    flush(receipts, tmp_path)

    keys = receipts.keys(np.ones(2, np.int64), names_of(["one", "three"]))
    prints = np.frombuffer(PRINT * 2, np.uint64).reshape(2, 2)
    admitted = receipts.admit(keys, prints, np.full(2, 600), np.zeros(2, np.int32), 70, 10)

    assert admitted.verdicts.tolist() == [Verdict.DUPLICATE, Verdict.RECEIPTS_FULL]
    with pytest.raises(ReceiptsFull, match="2 receipts are kept"):
        receipts.make_room()


def flush(receipts: Receipts, folder: Path) -> None:
    """Bring the settled receipts to the disk."""
    receipts.adopt(write_generation(folder, receipts.tick, receipts.flush().rows()))
