"""The table of receipts against a dict: whatever is asked in whatever order, both know the same."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import receipt_table
from engine.messages import ORDER_UPDATE, OUTCOME, Status
from engine.receipt_table import FREE, OPEN, RECEIPT, SETTLED, USED, Table, Verdict, new_table
from tests.support.naive_receipts import Entry, NaiveTable, candidates

FIELDS = ("seq", "ends", "tick", "order_id", "filled", "value", "open", "price", "code", "status")


class Twins:
    """The table and its plain twin, asked the same."""

    def __init__(self, capacity: int) -> None:
        self.table = new_table(capacity)
        self.naive = NaiveTable(capacity)

    def admit(
        self, keys: list[tuple[int, int]], prints: list[tuple[int, int]], ends: list[int], oldest: int = 0,
        next_seq: int = 1, room: int = 1 << 30, asked: list[int] | None = None,
    ) -> list[tuple[int, int]]:  # fmt: skip
        """Return verdict and sequence of each action, on which both agree."""
        asked = [Verdict.ASKED] * len(keys) if asked is None else asked
        verdicts, seqs = np.array(asked, np.int32), np.zeros(len(keys), np.int64)
        pairs = [np.array(pair, np.uint64).reshape(-1, 2) for pair in (keys, prints)]
        count = receipt_table.admit(
            self.table, pairs[0], pairs[1], np.array(ends, np.int64), oldest, next_seq, room, verdicts, seqs
        )
        found = list(zip(verdicts.tolist(), seqs.tolist(), strict=True))
        assert found == self.naive.admit(keys, prints, ends, oldest, next_seq, room, asked)
        assert count == [verdict for verdict, _ in found].count(Verdict.ACCEPTED)
        return found

    def decide(self, tick: int, outcomes: list[dict[str, int]]) -> None:
        """Take outcomes."""
        full = [dict.fromkeys(OUTCOME.names or (), 0) | one for one in outcomes]
        receipt_table.decide(self.table, filled(OUTCOME, full), tick)
        self.naive.decide(tick, full)

    def follow(self, updates: list[dict[str, int]]) -> None:
        """Take updates of orders."""
        full = [dict.fromkeys(ORDER_UPDATE.names or (), 0) | one for one in updates]
        receipt_table.follow(self.table, filled(ORDER_UPDATE, full))
        self.naive.follow(full)

    def settled(self) -> NDArray[np.int32]:
        """Return the slots of receipts that settled since the last time."""
        slots = self.table.settled[: self.table.counters[SETTLED]].copy()
        self.table.counters[SETTLED] = 0
        return slots

    def check(self) -> None:
        """See to it that both know the same of every key, and that the table's books are in order."""
        entries, table = self.naive.findable, self.table
        keys = np.array(list(entries), np.uint64).reshape(-1, 2)
        slots = np.empty(len(keys), np.int64)
        receipt_table.find(table, keys, slots)
        assert (slots >= 0).all()
        found = table.rows[slots]
        assert [tuple(row) for row in zip(*(found[name].tolist() for name in FIELDS), strict=True)] == [
            tuple(getattr(entry, name) for name in FIELDS) for entry in entries.values()
        ]
        assert table.counters[USED] - table.counters[FREE] == len(self.naive.entries)
        opened = [entry.seq for entry in self.naive.entries if not entry.is_settled]
        assert table.counters[OPEN] == len(opened)
        copied = np.zeros(len(opened), RECEIPT)
        assert receipt_table.copy_open(table, 1 << 60, copied) == len(opened)
        assert sorted(copied["seq"].tolist()) == sorted(opened)
        assert np.count_nonzero(table.by_key) == len(entries)
        assert np.count_nonzero(table.by_seq) == len(opened)


def filled(dtype: np.dtype[Any], rows: list[dict[str, int]]) -> NDArray[np.void]:
    """Return rows of a dtype."""
    table = np.zeros(len(rows), dtype)
    for i, row in enumerate(rows):
        for name, value in row.items():
            table[name][i] = value
    return table


def test_random_lives_of_receipts_are_those_of_the_plain_twin() -> None:
    """Admit, decide, follow, sweep, release in any order over a table that is often full; keys that share places."""
    for seed in range(30):
        draw = random.Random(seed)
        twins = Twins(draw.choice((5, 40, 300)))
        next_seq, pending = 1, []
        names = draw.choice((10, 1_000))
        for tick in range(1, 60):
            keys = [(draw.randrange(3), draw.randrange(names)) for _ in range(draw.randrange(12))]
            prints = [(7, draw.randrange(2)) for _ in keys]
            asked = [draw.choice((Verdict.ASKED,) * 6 + (Verdict.LEFT, Verdict.REFUSED)) for _ in keys]
            ends = [tick + draw.randrange(30) for _ in keys]
            found = twins.admit(keys, prints, ends, tick - 20, next_seq, draw.choice((2, 100)), list(map(int, asked)))
            next_seq += len(found)
            pending += [seq for verdict, seq in found if verdict == Verdict.ACCEPTED]
            twins.check()
            now, pending = (pending, []) if draw.random() < 0.8 else ([], pending)
            twins.decide(tick, [outcome(draw, seq) for seq in now])
            resting = [entry.seq for entry in twins.naive.entries if entry.status in (2, 3)]
            twins.follow([update(draw, seq) for seq in draw.sample(resting, len(resting) // 3)])
            twins.check()
            if draw.random() < 0.5:
                receipt_table.sweep(twins.table, 0, len(twins.table.rows), tick - 20)
                twins.naive.sweep(tick - 20)
            if draw.random() < 0.3:
                slots = twins.settled()
                twins.naive.release(set(twins.table.rows["seq"][slots].tolist()))
                receipt_table.release(twins.table, slots)
            twins.check()


def outcome(draw: random.Random, seq: int) -> dict[str, int]:
    """Return what might become of an action."""
    kind = draw.randrange(5)
    if kind == 0:
        return {"seq": seq, "status": Status.REJECTED, "code": 201, "needed": 9, "available": 3}
    if kind == 1:
        return {"seq": seq, "order_id": seq, "status": Status.RESTING, "open": 5}
    if kind == 2:
        return {"seq": seq, "order_id": seq, "status": Status.PARTIAL, "open": 3, "filled": 2, "value": -8, "price": 4}
    if kind == 3:
        # a replace that kept the order's id: the order is followed by the action that placed it
        return {"seq": seq, "order_id": seq - 1, "status": Status.RESTING, "open": 5}
    return {"seq": seq, "order_id": seq, "status": Status.FILLED, "filled": 5, "value": -20, "price": 4}


def update(draw: random.Random, seq: int) -> dict[str, int]:
    """Return what might happen to a resting order."""
    if draw.random() < 0.5:
        return {"order_id": seq, "filled": 1, "value": -4, "open": 1, "price": 4, "status": Status.PARTIAL}
    return {"order_id": seq, "open": 0, "status": Status.CANCELLED}


def test_one_id_twice_in_a_batch_is_accepted_once() -> None:
    """The second meets the receipt of the first, whether it is the same action or another."""
    twins = Twins(10)

    found = twins.admit([(1, 1), (1, 1), (1, 1)], [(5, 5), (5, 5), (5, 6)], [9, 9, 9], next_seq=40)

    assert found == [(Verdict.ACCEPTED, 40), (Verdict.DUPLICATE, 40), (Verdict.CONFLICT, 40)]


def test_without_room_known_ids_are_still_known() -> None:
    """Neither a full queue nor a full table takes an answer from whoever asks again."""
    twins = Twins(2)
    twins.admit([(1, 1), (1, 2)], [(5, 5)] * 2, [9, 9])

    no_receipts = twins.admit([(1, 3), (1, 2)], [(5, 5)] * 2, [9, 9], next_seq=3)
    no_actions = twins.admit([(1, 3), (1, 1)], [(5, 5)] * 2, [9, 9], next_seq=3, room=0)

    assert no_receipts == [(Verdict.RECEIPTS_FULL, 0), (Verdict.DUPLICATE, 2)]
    assert no_actions == [(Verdict.FULL, 0), (Verdict.DUPLICATE, 1)]


def test_open_receipts_are_put_back_as_they_were() -> None:
    """What a snapshot keeps is followed to its end afterwards."""
    twins, table = Twins(10), new_table(10)
    twins.admit([(1, 1), (1, 2), (1, 3)], [(5, 5)] * 3, [9, 9, 9])
    twins.decide(4, [{"seq": 1, "order_id": 1, "status": Status.RESTING, "open": 5}, {"seq": 2, "status": Status.DONE}])
    opened = np.zeros(2, RECEIPT)
    receipt_table.copy_open(twins.table, 99, opened)

    assert receipt_table.put_back(table, opened) == 2

    receipt_table.follow(table, filled(ORDER_UPDATE, [{"order_id": 1, "open": 0, "status": Status.CANCELLED}]))
    rows = {int(row["seq"]): row for row in table.rows[:2]}
    assert (rows[1]["status"], rows[1]["tick"], rows[3]["status"]) == (Status.CANCELLED, 4, 0)
    assert (table.counters[OPEN], table.counters[SETTLED]) == (1, 1)


def test_only_receipts_before_a_sequence_are_copied() -> None:
    """Those behind a snapshot's mark come again with the replay of what follows it."""
    twins = Twins(10)
    twins.admit([(1, 1), (1, 2), (1, 3)], [(5, 5)] * 3, [9, 9, 9])
    copied = np.zeros(3, RECEIPT)

    assert receipt_table.copy_open(twins.table, 3, copied) == 2
    assert copied["seq"].tolist() == [1, 2, 0]


def test_a_table_that_is_full_takes_back_no_more_than_fits() -> None:
    """It says how many it took."""
    receipts = np.zeros(5, RECEIPT)
    receipts["seq"] = receipts["low"] = range(1, 6)

    assert receipt_table.put_back(new_table(3), receipts) == 3
    keys = np.arange(10, dtype=np.uint64).reshape(5, 2)
    numbers = np.arange(1, 6, dtype=np.int64)
    assert receipt_table.keep(new_table(4), keys, keys, numbers, numbers) == 4


def test_candidates_of_sorted_receipts_hold_every_key() -> None:
    """The first receipt with the key's remainder in its bucket, for any number of buckets."""
    draw = np.random.default_rng(1)
    receipts = np.zeros(3_000, RECEIPT)
    receipts["high"] = np.sort(draw.integers(0, 1 << 64, 3_000, np.uint64))
    keys = np.stack([receipts["high"], receipts["low"]], axis=1)
    for bits in (1, 5, 9):
        counts, remainders = np.zeros((1 << bits) + 1, np.uint32), np.zeros(3_000, np.uint16)
        receipt_table.add_keys(receipts[:1_000], 0, counts, remainders)
        receipt_table.add_keys(receipts[1_000:], 1_000, counts, remainders)
        starts = np.cumsum(counts, dtype=np.uint32)
        at, places = np.empty((2, 3_000), np.int64)

        count = receipt_table.find_candidates(starts, remainders, bits, keys, at, places)

        assert (starts[-1], count) == (3_000, 3_000)
        own = np.arange(3_000)
        assert (at == own).all()
        assert (places <= own).all()
        assert (remainders[places] == remainders[own]).all()
        assert np.mean(places == own) > 0.98


def test_candidates_of_other_keys_are_those_whose_remainder_is_there() -> None:
    """As a look through the whole bucket finds them, in the order of the keys."""
    draw = np.random.default_rng(2)
    receipts, bits = np.zeros(3_000, RECEIPT), 4
    receipts["high"] = np.sort(draw.integers(0, 1 << 63, 3_000, np.uint64))
    counts, remainders = np.zeros((1 << bits) + 1, np.uint32), np.zeros(3_000, np.uint16)
    receipt_table.add_keys(receipts, 0, counts, remainders)
    starts = np.cumsum(counts, dtype=np.uint32)
    keys = draw.integers(0, 1 << 64, (2_000, 2), np.uint64)
    at, places = np.empty((2, 2_000), np.int64)

    count = receipt_table.find_candidates(starts, remainders, bits, keys, at, places)

    found = dict(zip(at[:count].tolist(), places[:count].tolist(), strict=True))
    assert list(found) == sorted(found)
    assert 0 < count < 100
    assert found == candidates(starts.tolist(), remainders.tolist(), bits, keys[:, 0].tolist())


def test_a_receipt_is_104_bytes_without_gaps() -> None:
    """Its bytes are what the disk keeps; changing one is a decision."""
    assert RECEIPT.itemsize == 104
    assert sum(RECEIPT[name].itemsize for name in RECEIPT.names or ()) == 104
    assert isinstance(new_table(3), Table)
    assert Entry((1, 1), (1, 1), 1, 1).may_change
