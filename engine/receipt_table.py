"""Receipts as rows of one array, found by key and, while they may change, by sequence.

Two open-addressing tables with linear probing hold slots + 1; a slot that becomes free is used again first, so that
only as much memory is touched as receipts were ever there at once. A key is a keyed hash of 128 bits (engine.siphash):
nobody can choose where a receipt goes. Source: DESIGN D23, D24, R2.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.agent_index import table_size
from engine.kernels import kernel, prefetch, short_kernel, whole
from engine.messages import Status

Rows = NDArray[np.void]
Ints = NDArray[np.int64]
Slots = NDArray[np.int32]
Words = NDArray[np.uint64]

#: A receipt, in memory and on disk.
RECEIPT = np.dtype(
    [
        ("high", "<u8"),  # its key
        ("low", "<u8"),
        ("print_high", "<u8"),  # fingerprint of the action
        ("print_low", "<u8"),
        ("seq", "<i8"),  # 0 = a free slot
        ("ends", "<i8"),  # last tick of the action's validity
        ("tick", "<i8"),  # that decided it
        ("order_id", "<i8"),
        ("filled", "<i8"),  # lots
        ("value", "<i8"),  # ucr; of a refused action what was needed
        ("open", "<i8"),  # lots
        ("price", "<i8"),  # ucr a lot; of a refused action what was available
        ("code", "<i2"),  # Reject
        ("status", "u1"),  # Status, 0 = not decided yet
        ("spare", "u1"),
        ("check", "<u4"),  # on disk: checksum of what comes before it
    ]
)


class Verdict(IntEnum):
    """What becomes of an action at the door. ASKED and LEFT are the questions, the others the answers."""

    ASKED = 0
    LEFT = 1  # asked for an agent that has left: it gets no more than a receipt it has
    ACCEPTED = 2
    DUPLICATE = 3
    CONFLICT = 4  # the id stands for another action
    FULL = 5  # no room for another action
    RECEIPTS_FULL = 6  # no room for another receipt
    UNKNOWN_AGENT = 7
    REFUSED = 8  # for another reason, found before


class Table(NamedTuple):
    """Receipts in memory. rows: by slot; by_key, by_seq: slot + 1, by_seq of those that may still change.

    settled: slots of receipts that can no longer change and were not taken yet. counters: see below.
    """

    rows: Rows
    by_key: Slots
    by_seq: Slots
    free: Slots
    settled: Slots
    counters: Ints


USED, FREE, OPEN, SETTLED, SEEN = range(5)
"""Slots ever used, how many of them are free again, receipts that may still change, those in settled; SEEN: scratch."""
AHEAD = 64
"""Keys whose entries are brought into the cache together."""

_ASKED, _LEFT, _ACCEPTED = int(Verdict.ASKED), int(Verdict.LEFT), int(Verdict.ACCEPTED)
_DUPLICATE, _CONFLICT, _FULL = int(Verdict.DUPLICATE), int(Verdict.CONFLICT), int(Verdict.FULL)
_RECEIPTS_FULL, _UNKNOWN_AGENT = int(Verdict.RECEIPTS_FULL), int(Verdict.UNKNOWN_AGENT)
_RESTING, _PARTIAL = int(Status.RESTING), int(Status.PARTIAL)
_REMAINDER = np.uint64(0xFFFF)
_FOLD, _ODD = 0x7FFFFFFF, 2654435761
"""A 31-bit fold times a 32-bit odd constant stays in int64, so that the interpreter sees no overflow."""


def new_table(capacity: int) -> Table:
    """Return an empty table for so many receipts; rows take memory only where they are used.

    The places of keys and sequences take theirs at once: they are used all over from the first receipts on, and the
    system's large pages, cleared one by one, took 10 to 45 ms of the first batches.
    """
    size = table_size(capacity)
    return Table(
        np.zeros(capacity, RECEIPT),
        np.full(size, 0, np.int32),
        np.full(size, 0, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(5, np.int64),
    )


@short_kernel
def find(table: Table, keys: Words, slots: Ints) -> None:
    """Write the slot of each key, -1 where there is none. keys: shape (n, 2)."""
    for i in range(len(keys)):
        if i % AHEAD == 0:
            _look_ahead(table, keys, i)
        slots[i] = table.by_key[_place_of_key(table, keys[i, 0], keys[i, 1])] - 1


@short_kernel
def admit(
    table: Table, keys: Words, prints: Words, ends: Ints, oldest: int, next_seq: int, room: int, verdicts: Slots,
    seqs: Ints,
) -> int:  # fmt: skip
    """Decide on actions in their order and keep a receipt of each accepted one; return how many those are.

    keys, prints: shape (n, 2). ends: last tick of each validity. oldest: receipts that ended before it are forgotten.
    next_seq: of the first accepted one, the others follow. room: actions that may be accepted at most. verdicts: ASKED
    or LEFT where a decision is wanted; becomes Verdict. seqs: becomes the sequence of accepted, known or taken ids.
    """
    count = 0
    for i in range(len(keys)):
        if i % AHEAD == 0:
            _look_ahead(table, keys, i)
        if verdicts[i] != _ASKED and verdicts[i] != _LEFT:
            continue
        slot = table.by_key[_place_of_key(table, keys[i, 0], keys[i, 1])] - 1
        if slot >= 0 and table.rows[slot]["ends"] < oldest:
            _forget(table, slot)
            slot = -1
        if slot >= 0:
            row = table.rows[slot]
            is_same = row["print_high"] == prints[i, 0] and row["print_low"] == prints[i, 1]
            verdicts[i] = _DUPLICATE if is_same else _CONFLICT
            seqs[i] = row["seq"]
        elif verdicts[i] == _LEFT:
            verdicts[i] = _UNKNOWN_AGENT
        elif count >= room:
            verdicts[i] = _FULL
        elif _is_full(table):
            verdicts[i] = _RECEIPTS_FULL
        else:
            seqs[i] = next_seq + count
            _insert(table, keys[i, 0], keys[i, 1], prints[i, 0], prints[i, 1], seqs[i], ends[i])
            verdicts[i] = _ACCEPTED
            count += 1
    return count


@kernel
def keep(table: Table, keys: Words, prints: Words, seqs: Ints, ends: Ints) -> int:
    """Keep receipts of actions that were accepted before; return how many found room. Arrays as in admit."""
    for i in range(len(keys)):
        if _is_full(table):
            return i
        _insert(table, keys[i, 0], keys[i, 1], prints[i, 0], prints[i, 1], seqs[i], ends[i])
    return len(keys)


@kernel
def put_back(table: Table, receipts: Rows) -> int:
    """Keep receipts that may still change, as copy_open gave them; return how many found room."""
    for i in range(len(receipts)):
        if _is_full(table):
            return i
        one = receipts[i]
        slot = _insert(table, one["high"], one["low"], one["print_high"], one["print_low"], one["seq"], one["ends"])
        table.rows[slot] = one
    return len(receipts)


@kernel
def decide(table: Table, outcomes: Rows, tick: int) -> None:
    """Write what a tick decided (dtype OUTCOME) into the receipts; those that can no longer change are settled."""
    for i in range(len(outcomes)):
        outcome = outcomes[i]
        slot = table.by_seq[_place_of_seq(table, outcome["seq"])] - 1
        if slot < 0:
            continue
        row = table.rows[slot]
        is_refused = outcome["code"] != 0
        row["tick"], row["order_id"], row["filled"] = tick, outcome["order_id"], outcome["filled"]
        row["value"] = outcome["needed"] if is_refused else outcome["value"]
        row["price"] = outcome["available"] if is_refused else outcome["price"]
        row["open"], row["code"], row["status"] = outcome["open"], outcome["code"], outcome["status"]
        if not _may_change(row):
            _settle(table, slot)


@kernel
def follow(table: Table, updates: Rows) -> None:
    """Write what happened to resting orders (dtype ORDER_UPDATE) into the receipts of the actions that placed them."""
    for i in range(len(updates)):
        update = updates[i]
        slot = table.by_seq[_place_of_seq(table, update["order_id"])] - 1
        if slot < 0 or table.rows[slot]["status"] == 0:
            continue
        row = table.rows[slot]
        row["filled"] += update["filled"]
        row["value"] += update["value"]
        row["open"], row["status"] = update["open"], update["status"]
        if update["price"] != 0:
            row["price"] = update["price"]
        if not _may_change(row):
            _settle(table, slot)


@short_kernel
def sweep(table: Table, first: int, last: int, oldest: int) -> None:
    """Forget those of slots first..last - 1 that may still change though they ended before oldest."""
    for slot in range(first, min(last, table.counters[USED])):
        row = table.rows[slot]
        if row["seq"] != 0 and row["ends"] < oldest and _may_change(row):
            _forget(table, slot)


@short_kernel
def release(table: Table, slots: Slots) -> None:
    """Give slots back whose receipts are kept elsewhere."""
    for i in range(len(slots)):
        _unlink_key(table, slots[i])
        _give_back(table, slots[i])


@kernel
def copy_open(table: Table, before: int, out: Rows) -> int:
    """Copy the receipts that may still change and have a sequence below `before`; return how many those are.

    out: counters[OPEN] rows.
    """
    count = 0
    for slot in range(table.counters[USED]):
        if 0 < table.rows[slot]["seq"] < before and _may_change(table.rows[slot]):
            out[count] = table.rows[slot]
            count += 1
    return count


@short_kernel
def find_candidates(
    starts: NDArray[np.uint32], remainders: NDArray[np.uint16], bits: int, keys: Words, at: Ints, places: Ints
) -> int:
    """Write which keys may be in a sorted row of receipts, ascending, and where; return how many those are.

    A place is that of the first receipt whose remainder is the key's. starts: where each of 2^bits buckets begins, and
    at last how many receipts there are; bits: in [1, 48]. remainders: ascending in each bucket. at, places: as long as
    keys.
    """
    to_bucket, to_remainder = np.uint64(64 - bits), np.uint64(48 - bits)
    count = 0
    for i in range(len(keys)):
        if i % AHEAD == 0:
            _look_ahead_on_disk(starts, remainders, to_bucket, keys, i)
        bucket = np.int64(keys[i, 0] >> to_bucket)
        remainder = np.uint16((keys[i, 0] >> to_remainder) & _REMAINDER)
        for place in range(np.int64(starts[bucket]), np.int64(starts[bucket + 1])):
            # sorted as the receipts are: the first that is no smaller decides
            if remainders[place] >= remainder:
                if remainders[place] == remainder:
                    at[count], places[count] = i, place
                    count += 1
                break
    return count


@kernel
def _look_ahead_on_disk(
    starts: NDArray[np.uint32], remainders: NDArray[np.uint16], to_bucket: np.uint64, keys: Words, first: int
) -> None:
    """Have the buckets of the next keys brought into the cache: waiting for each took 1.8 times as long."""
    last = min(len(keys), first + AHEAD)
    for i in range(first, last):
        prefetch(starts, keys[i, 0] >> to_bucket)
    for i in range(first, last):
        # a bucket behind all receipts has no place of its own
        prefetch(remainders, np.uint64(min(whole(starts[whole(keys[i, 0] >> to_bucket)]), len(remainders) - 1)))


@kernel
def add_keys(receipts: Rows, first: int, counts: NDArray[np.uint32], remainders: NDArray[np.uint16]) -> None:
    """Count the next sorted receipts in their buckets and write their remainders from `first` on.

    counts: by bucket + 1; their running sums are what find_candidates takes as starts.
    """
    bits = 0
    while (1 << bits) + 1 < len(counts):
        bits += 1
    to_bucket, to_remainder = np.uint64(64 - bits), np.uint64(48 - bits)
    for i in range(len(receipts)):
        high = receipts[i]["high"]
        counts[np.int64(high >> to_bucket) + 1] += 1
        remainders[first + i] = np.uint16((high >> to_remainder) & _REMAINDER)


@kernel
def _look_ahead(table: Table, keys: Words, first: int) -> None:
    """Read what the next keys will need, each read without waiting for the one before (see actions._look_ahead)."""
    mask = len(table.by_key) - 1
    total = np.int64(0)
    for i in range(first, min(len(keys), first + AHEAD)):
        at = _home_of_key(keys[i, 1], mask)
        entry = table.by_key[at]
        total += table.rows[entry - (entry > 0)]["seq"]
    table.counters[SEEN] = total


@kernel
def _may_change(row: np.void) -> bool:
    """Whether a receipt waits for its tick, or its action's own order is in the market."""
    if row["status"] == 0:
        return True
    is_open = row["status"] == _RESTING or row["status"] == _PARTIAL
    return bool(is_open and row["open"] > 0 and row["order_id"] == row["seq"])


@kernel
def _is_full(table: Table) -> bool:
    return bool(table.counters[FREE] == 0 and table.counters[USED] == len(table.rows))


@kernel
def _insert(
    table: Table, high: np.uint64, low: np.uint64, print_high: np.uint64, print_low: np.uint64, seq: int, ends: int
) -> int:
    """Keep a new receipt, for which there is room; return its slot."""
    if table.counters[FREE] > 0:
        table.counters[FREE] -= 1
        slot = int(table.free[table.counters[FREE]])
    else:
        slot = int(table.counters[USED])
        table.counters[USED] += 1
    row = table.rows[slot]
    row["high"], row["low"], row["print_high"], row["print_low"] = high, low, print_high, print_low
    row["seq"], row["ends"], row["tick"] = seq, ends, 0
    row["order_id"] = row["filled"] = row["value"] = row["open"] = row["price"] = 0
    row["code"] = row["status"] = 0
    table.by_key[_place_of_key(table, high, low)] = slot + 1
    table.by_seq[_place_of_seq(table, seq)] = slot + 1
    table.counters[OPEN] += 1
    return slot


@kernel
def _settle(table: Table, slot: int) -> None:
    """Note that a receipt can no longer change."""
    _unlink_seq(table, slot)
    table.counters[OPEN] -= 1
    table.settled[table.counters[SETTLED]] = slot
    table.counters[SETTLED] += 1


@kernel
def _forget(table: Table, slot: int) -> None:
    """Let nobody find a receipt any more; a settled one keeps its slot, for it may be on its way to the disk."""
    _unlink_key(table, slot)
    if _may_change(table.rows[slot]):
        _unlink_seq(table, slot)
        table.counters[OPEN] -= 1
        _give_back(table, slot)


@kernel
def _give_back(table: Table, slot: int) -> None:
    table.rows[slot]["seq"] = 0
    table.free[table.counters[FREE]] = slot
    table.counters[FREE] += 1


@kernel
def _place_of_key(table: Table, high: np.uint64, low: np.uint64) -> int:
    """Return where a key's entry is, or the empty place where it would go."""
    mask = len(table.by_key) - 1
    at = _home_of_key(low, mask)
    while table.by_key[at] != 0:
        row = table.rows[table.by_key[at] - 1]
        if row["low"] == low and row["high"] == high:
            break
        at = (at + 1) & mask
    return at


@kernel
def _place_of_seq(table: Table, seq: int) -> int:
    """Return where a sequence's entry is, or the empty place where it would go."""
    mask = len(table.by_seq) - 1
    at = _home_of_seq(seq, mask)
    while table.by_seq[at] != 0 and table.rows[table.by_seq[at] - 1]["seq"] != seq:
        at = (at + 1) & mask
    return at


@kernel
def _unlink_key(table: Table, slot: int) -> None:
    """Take the entry of a slot out, if there is one; an entry behind it moves up unless that were before its home."""
    mask = len(table.by_key) - 1
    hole = _home_of_key(table.rows[slot]["low"], mask)
    while table.by_key[hole] != slot + 1:
        if table.by_key[hole] == 0:
            return
        hole = (hole + 1) & mask
    at = (hole + 1) & mask
    while table.by_key[at] != 0:
        home = _home_of_key(table.rows[table.by_key[at] - 1]["low"], mask)
        if ((at - home) & mask) >= ((at - hole) & mask):
            table.by_key[hole] = table.by_key[at]
            hole = at
        at = (at + 1) & mask
    table.by_key[hole] = 0


@kernel
def _unlink_seq(table: Table, slot: int) -> None:
    """Take the entry of a slot out, which is there."""
    mask = len(table.by_seq) - 1
    hole = _place_of_seq(table, table.rows[slot]["seq"])
    at = (hole + 1) & mask
    while table.by_seq[at] != 0:
        home = _home_of_seq(table.rows[table.by_seq[at] - 1]["seq"], mask)
        if ((at - home) & mask) >= ((at - hole) & mask):
            table.by_seq[hole] = table.by_seq[at]
            hole = at
        at = (at + 1) & mask
    table.by_seq[hole] = 0


@kernel
def _home_of_key(low: np.uint64, mask: int) -> int:
    return int(np.int64(low & np.uint64(_FOLD)) & mask)


@kernel
def _home_of_seq(seq: int, mask: int) -> int:
    # sequences in a row are in a row: a tick's actions are decided in their order, and share cache lines
    line = ((((seq >> 4) & _FOLD) * _ODD) >> 15) & (mask >> 4)
    return int((line << 4) | (seq & 15))
