"""Receipts: what was accepted under which client_action_id, and what became of it.

A receipt lives until valid_until + 6,000 ticks, and is rebuilt from the journal. A second action under the same id
meets the first one's receipt, so an effect happens once. What may still change is in one array in memory, and so is
what can no longer change until it goes into the index on disk. Source: DESIGN D23, D24, R2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import receipt_table
from engine.events import TickReport
from engine.ladder import UCR
from engine.messages import ACTION, ORDER_UPDATE, OUTCOME, REJECT_TEXT, Reject, Status
from engine.receipt_door import NAME_SIZE, SEQ_WORD, UNTIL_WORD, Answer, Door
from engine.receipt_table import FREE, OPEN, RECEIPT, SETTLED, USED, Verdict
from engine.siphash import KEY_SIZE, hash_but_two, hash_names, key_words, longest
from server.live import receipt_index
from server.live.errors import ReceiptsFull
from server.live.receipt_index import Generation, ReceiptIndex

Rows = NDArray[np.void]
Words = NDArray[np.uint64]
Ints = NDArray[np.int64]

RETENTION_TICKS = 6_000
"""How long a receipt outlives its action's validity."""
VALIDITY_TICKS = 600
"""Default validity of an action, ticks from the last published one."""
VALIDITY_TICKS_MAX = 36_000
RECEIPTS_MAX = 2_000_000
"""Most that are in memory: 0.25 GB. Resting orders are at most half of them, the others wait for the disk."""
KEPT_MAX = 100_000_000
"""Most that are kept in all: 0.25 GB of memory and 10.7 GB of disk for those that can no longer change."""
FLUSH_AT = 200_000
"""Receipts that can no longer change and are still in memory when they are written to the index."""
RELEASED_MAX = 20_000
"""Receipts taken out of memory at once when they are on disk: a millisecond."""
SWEPT_MIN = 4_096
SWEEP_TICKS = 600
"""In so many ticks every receipt is looked at once whether it is past its time."""
OPEN_ROWS = "receipts.open"
"""Array of open receipts in a snapshot: the bytes of their rows."""

_WORDS = Struct("<QQ")
_UNDECIDED = (0,) * 10
"""The fields of an Entry behind `ends` before its tick."""
_MONEY_CODES = frozenset({Reject.NO_FUNDS, Reject.CREDIT_LIMIT, Reject.REPAY_OVER_DEBT})


def in_memory_max(kept_max: int, order_book_max: int, queue_max: int) -> int:
    """Return how many receipts must fit into memory where no more than kept_max are accepted in all.

    Room for more than that is for what a journal may hold that was written under a larger kept_max: orders that rest, a
    tick's actions, what is settled until it is written and what leaves memory meanwhile. At the default of kept_max the
    tables take 33 MB at once.
    """
    return min(RECEIPTS_MAX, kept_max + order_book_max + queue_max + 2 * FLUSH_AT)


class Outcome(NamedTuple):
    """What became of an action so far. Units: lots, ucr (paid < 0, received > 0), ucr a lot."""

    status: int
    code: int
    order_id: int
    filled: int
    value: int
    open: int
    price: int
    needed: int
    available: int


class Entry(NamedTuple):
    """A receipt in plain numbers, the fields of RECEIPT: a row of an array takes ten times as long to copy and read."""

    high: int
    low: int
    print_high: int
    print_low: int
    seq: int
    ends: int
    tick: int
    order_id: int
    filled: int
    value: int
    open: int
    price: int
    code: int
    status: int
    spare: int
    check: int

    @property
    def may_change(self) -> bool:
        """Whether a receipt that stood so may stand otherwise by now."""
        is_open = self.status in (Status.RESTING, Status.PARTIAL) and self.open > 0 and self.order_id == self.seq
        return self.status == 0 or is_open


class Receipt:
    """One accepted action, as it stands whenever it is asked. seq: of its record."""

    __slots__ = ("_entry", "_looked_at", "_receipts", "client_action_id", "seq")

    def __init__(self, receipts: Receipts, client_action_id: str, entry: Entry) -> None:
        self.client_action_id = client_action_id
        self.seq = entry.seq
        self._receipts = receipts
        self._entry = entry
        self._looked_at = receipts.tick

    @property
    def fingerprint(self) -> bytes:
        """The 16 bytes that identify what was asked for."""
        return _WORDS.pack(self._entry.print_high, self._entry.print_low)

    @property
    def tick(self) -> int | None:
        """The tick that decided it, None until that is published."""
        entry = self._now()
        return entry.tick if entry.status else None

    @property
    def outcome(self) -> dict[str, Any] | None:
        """The outcome as published: status, code, and what says more about them; money in credits."""
        entry = self._now()
        return outcome_document(outcome_of(entry)) if entry.status else None

    def document(self, duplicate: bool) -> dict[str, Any]:
        """Return the receipt as published. duplicate: whether it answers a second request."""
        return {
            "client_action_id": self.client_action_id,
            "status": "accepted",
            "seq": self.seq,
            "tick": self.tick,
            "duplicate": duplicate,
            "outcome": self.outcome,
        }

    def _now(self) -> Entry:
        """Return what is known of it, at least what was known before."""
        # only a tick changes it, and most are asked for in the tick they came in
        if self._looked_at != self._receipts.tick and self._entry.may_change:
            self._looked_at = self._receipts.tick
            self._entry = self._receipts.newer(self._entry)
        return self._entry


class Settled(NamedTuple):
    """Receipts that can no longer change, where they are in memory; they stay as they are until taken out of it."""

    table: Rows
    slots: NDArray[np.int32]

    def rows(self) -> Rows:
        """Return a copy; may be called in any thread."""
        rows: Rows = self.table[self.slots]
        return rows


class Admitted(NamedTuple):
    """What became of actions at the door. verdicts: Verdict; seqs: of accepted, known and taken ids, else 0.

    accepted: how many are new; they have the sequences from the first on, in order.
    """

    verdicts: NDArray[np.int32]
    seqs: Ints
    accepted: int


class Receipts:
    """All receipts that are kept, by agent and client_action_id.

    tick: the last published one. index: where receipts go that can no longer change; limit: most receipts in memory,
    kept_max: most in all; when one of them is reached nothing more is accepted. secret: what names are hashed with.
    """

    def __init__(
        self,
        tick: int,
        index: ReceiptIndex | None = None,
        limit: int = RECEIPTS_MAX,
        kept_max: int = KEPT_MAX,
        secret: bytes = b"",
    ) -> None:
        self.tick = tick
        self.limit = limit
        self.kept_max = kept_max
        self.index = index or ReceiptIndex()
        self._key = key_words(blake2b(secret, digest_size=KEY_SIZE, person=b"receipts").digest())
        self._table = receipt_table.new_table(limit)
        self._door = Door(self._table, self._key)
        self._writing: deque[NDArray[np.int32]] = deque()
        """Slots of receipts on their way to the disk, those that left first in front."""
        self._written: deque[NDArray[np.int32]] = deque()
        """Slots of receipts that are on disk and still in memory."""
        self._swept = 0
        self._slot = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return self.in_memory - sum(map(len, self._written)) + len(self.index)

    @property
    def in_memory(self) -> int:
        """How many are in memory."""
        counters = self._table.counters
        return int(counters[USED] - counters[FREE])

    @property
    def should_flush(self) -> bool:
        """Whether settled receipts should go into the index now."""
        return bool(self._table.counters[SETTLED] >= FLUSH_AT)

    @property
    def oldest(self) -> int:
        """The last tick of the validity of the oldest receipts that are still kept."""
        return self.tick - RETENTION_TICKS

    # --- names and fingerprints ----------------------------------------------------------------------------------
    def keys(self, agents: Ints, names: NDArray[np.uint8]) -> Words:
        """Return what receipts are kept under, shape (n, 2).

        names: client_action_ids in ASCII, shape (n, width), filled up with zero bytes.
        """
        keys = np.empty((len(agents), 2), np.uint64)
        hash_names(self._key, agents, names, keys)
        return keys

    def fingerprints(self, rows: NDArray[np.void], asked_until: Ints) -> Words:
        """Return words that are equal for the same action however it was written, and only then, shape (n, 2).

        rows: dtype ACTION. asked_until: valid_until_tick as it was asked for, -1 where it was not: the validity counts
        as it was asked for, so that a retry with the default one is the same action later on.
        """
        words = np.ascontiguousarray(rows).view(np.uint64).reshape(-1, ACTION.itemsize // 8)
        prints = np.empty((len(rows), 2), np.uint64)
        hash_but_two(self._key, words, SEQ_WORD, UNTIL_WORD, asked_until, prints)
        return prints

    # --- one -----------------------------------------------------------------------------------------------------
    def get(self, agent: int, client_action_id: str) -> Receipt | None:
        """Return the receipt under that id, None when there is none (any more). Raises ReceiptDamaged."""
        if not (client_action_id.isascii() and 0 < len(client_action_id) <= NAME_SIZE and "\0" not in client_action_id):
            return None
        return self.find(self.key_of(agent, client_action_id), client_action_id)

    def key_of(self, agent: int, client_action_id: str) -> Words:
        """Return what the receipt of an id is kept under, shape (1, 2). client_action_id: as an action may have it."""
        # a third of the time of names_of; a bytearray because what is read-only is of another type to the compiler
        name = np.frombuffer(bytearray(client_action_id.encode()), np.uint8)
        return self.keys(np.array([agent]), name[None])

    def find(self, key: Words, client_action_id: str) -> Receipt | None:
        """Return the receipt under the key of an id, None when there is none (any more). Raises ReceiptDamaged."""
        entry = self._find(key)
        return None if entry is None else Receipt(self, client_action_id, entry)

    def fullness(self) -> ReceiptsFull | None:
        """Return why not one more receipt can be kept, None when it can."""
        if self.in_memory >= self.limit:
            return ReceiptsFull(f"{self.limit} receipts are in memory, as many as may; the disk takes none")
        if len(self) >= self.kept_max:
            return ReceiptsFull(f"{self.kept_max} receipts are kept, as many as may")
        return None

    def make_room(self) -> None:
        """See to it that one more receipt can be kept. Raises ReceiptsFull."""
        if (full := self.fullness()) is not None:
            raise full

    def add(self, key: Words, client_action_id: str, seq: int, fingerprint: bytes, valid_until: int) -> Receipt:
        """Keep and return the receipt of an action just accepted. key: of its id."""
        # an action whose validity is over already is still remembered for as long as any other
        ends = max(valid_until, self.tick)
        prints = np.frombuffer(bytearray(fingerprint), np.uint64).reshape(1, 2)
        if not receipt_table.keep(self._table, key, prints, np.array([seq]), np.array([ends])):
            raise self._no_room()
        words = (*key[0].tolist(), *_WORDS.unpack(fingerprint))
        return Receipt(self, client_action_id, Entry._make((*words, seq, ends, *_UNDECIDED)))

    def take(
        self, row: bytes, client_action_id: str, asked_until: int, valid_until: int, next_seq: int, room: int
    ) -> tuple[Verdict, Receipt | None]:
        """Decide on one action and keep its receipt when it is accepted; the receipt is None when there is none.

        row: bytes of dtype ACTION; asked_until: -1 for none; next_seq: its sequence when it is accepted;
        room: 0 when it cannot be. Raises ReceiptDamaged; then nothing has happened.
        """
        ends, on_disk = max(valid_until, self.tick), len(self.index)
        # all that fit into memory are counted first: how many those are takes longer to say
        if on_disk + self.limit > self.kept_max and len(self) >= self.kept_max:
            room = 0
        asked = (row, client_action_id, asked_until, ends, self.oldest, next_seq)
        # what is not in memory is looked for on the disk before it is kept
        answer = self._door.ask(*asked, 0 if on_disk else room)
        if on_disk and answer.verdict == Verdict.FULL:
            entry = self._find_on_disk(_key(answer))
            if entry is not None:
                known = Receipt(self, client_action_id, entry)
                is_same = known.fingerprint == _WORDS.pack(answer.print_high, answer.print_low)
                return Verdict.DUPLICATE if is_same else Verdict.CONFLICT, known
            answer = self._door.ask(*asked, room)
        if answer.verdict == Verdict.ACCEPTED:
            entry = Entry._make((*answer[1:5], answer.seq, ends, *_UNDECIDED))
            return Verdict.ACCEPTED, Receipt(self, client_action_id, entry)
        return Verdict(answer.verdict), self.find(_key(answer), client_action_id)

    def newer(self, entry: Entry) -> Entry:
        """Return a receipt as it stands now; as it stood when it is not kept any more."""
        found = self._find(_key(entry))
        return entry if found is None or found.seq != entry.seq else found

    # --- many ----------------------------------------------------------------------------------------------------
    def admit(
        self, keys: Words, prints: Words, valid_until: Ints, verdicts: NDArray[np.int32], next_seq: int, room: int
    ) -> Admitted:
        """Decide on actions in their order and keep a receipt of each accepted one.

        keys, prints: as of the methods of these names. verdicts: Verdict.ASKED or LEFT where a decision is wanted;
        changed in place. next_seq: of the first accepted one. room: actions that may be accepted at most.
        Raises ReceiptDamaged; then nothing has happened.
        """
        seqs = np.zeros(len(keys), np.int64)
        self._know_from_disk(keys, prints, verdicts, seqs)
        left = self.kept_max - len(self)
        count = receipt_table.admit(
            self._table, keys, prints, np.maximum(valid_until, self.tick), self.oldest, next_seq, min(room, left),
            verdicts, seqs,
        )  # fmt: skip
        if left < room:
            verdicts[verdicts == Verdict.FULL] = Verdict.RECEIPTS_FULL
        return Admitted(verdicts, seqs, count)

    def add_all(self, agents: Ints, names: NDArray[np.uint8], seqs: Ints, prints: Words, valid_until: Ints) -> None:
        """Keep the receipts of actions accepted earlier. Raises ReceiptsFull when there is no room."""
        ends = np.maximum(valid_until, self.tick)
        # copied: what is read-only is of another type to the compiler
        if receipt_table.keep(self._table, self.keys(agents, names), np.array(prints), seqs, ends) < len(seqs):
            raise self._no_room()

    def rows(self, keys: Words) -> tuple[Ints, Rows]:
        """Return which of keys have a receipt, ascending, and these receipts. Raises ReceiptDamaged."""
        slots = np.empty(len(keys), np.int64)
        receipt_table.find(self._table, keys, slots)
        at, missing = np.flatnonzero(slots >= 0), np.flatnonzero(slots < 0)
        rows = self._table.rows[slots[at]]
        is_kept = rows["ends"] >= self.oldest
        at, rows = at[is_kept], rows[is_kept]
        if len(missing) and len(self.index):
            found, on_disk = self.index.get(keys[missing], self.oldest)
            at, rows = np.concatenate([at, missing[found]]), np.concatenate([rows, on_disk])
            order = np.argsort(at)
            at, rows = at[order], rows[order]
        return at, rows

    def apply(self, report: TickReport) -> None:
        """Take in what a tick decided, and forget what is past its time."""
        self.tick = report.tick
        if len(report.outcomes):
            receipt_table.decide(self._table, report.outcomes, report.tick)
        if len(report.updates):
            receipt_table.follow(self._table, report.updates)
        self._sweep()
        self._release()
        self.index.forget(self.oldest)

    # --- to disk and back ----------------------------------------------------------------------------------------
    def open_before(self, seq: int) -> Rows:
        """Return the receipts of earlier records that may still change, as they are now."""
        rows = np.empty(int(self._table.counters[OPEN]), RECEIPT)
        return rows[: receipt_table.copy_open(self._table, seq, rows)]

    def flush(self) -> Settled:
        """Return the settled receipts; adopt or take_back follows, in the order of the flushes."""
        slots = self._table.settled[: self._table.counters[SETTLED]].copy()
        self._table.counters[SETTLED] = 0
        self._writing.append(slots)
        return Settled(self._table.rows, slots)

    def adopt(self, generation: Generation | None) -> None:
        """Take in that the receipts of the first flush are on disk; None: there were none."""
        self._written.append(self._writing.popleft())
        self.index.adopt(generation)

    def take_back(self) -> None:
        """Take in that the receipts of the first flush could not be written; the next flush has them again."""
        slots = self._writing.popleft()
        first = self._table.counters[SETTLED]
        self._table.settled[first : first + len(slots)] = slots
        self._table.counters[SETTLED] += len(slots)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take back the open receipts of a snapshot. Raises ReceiptsFull when there is no room."""
        # a map of a file cannot be written to, and kernels are compiled for arrays that can
        rows = np.array(arrays[OPEN_ROWS]).view(RECEIPT).reshape(-1)
        if receipt_table.put_back(self._table, rows) < len(rows):
            raise ReceiptsFull(f"the snapshot has {len(rows)} open receipts, {self.limit} fit into memory")

    # --- parts ---------------------------------------------------------------------------------------------------
    def _no_room(self) -> ReceiptsFull:
        return ReceiptsFull(f"{self.limit} receipts are in memory, as many as may")

    def _find(self, key: Words) -> Entry | None:
        receipt_table.find(self._table, key, self._slot)
        if self._slot[0] >= 0:
            entry = entry_of(self._table.rows, int(self._slot[0]))
            return entry if entry.ends >= self.oldest else None
        return self._find_on_disk(key)

    def _find_on_disk(self, key: Words) -> Entry | None:
        if not len(self.index):
            return None
        _, rows = self.index.get(key, self.oldest)
        return entry_of(rows, 0) if len(rows) else None

    def _know_from_disk(self, keys: Words, prints: Words, verdicts: NDArray[np.int32], seqs: Ints) -> None:
        """Decide on the actions whose receipts are on disk."""
        asked = np.flatnonzero((verdicts == Verdict.ASKED) | (verdicts == Verdict.LEFT))
        if not len(asked) or not len(self.index):
            return
        slots = np.empty(len(asked), np.int64)
        receipt_table.find(self._table, keys[asked], slots)
        asked = asked[slots < 0]
        found, rows = self.index.get(keys[asked], self.oldest)
        at = asked[found]
        is_same = (rows["print_high"] == prints[at, 0]) & (rows["print_low"] == prints[at, 1])
        verdicts[at] = np.where(is_same, int(Verdict.DUPLICATE), int(Verdict.CONFLICT))
        seqs[at] = rows["seq"]

    def _sweep(self) -> None:
        used = int(self._table.counters[USED])
        first = self._swept if self._swept < used else 0
        self._swept = first + max(SWEPT_MIN, used // SWEEP_TICKS)
        receipt_table.sweep(self._table, first, self._swept, self.oldest)

    def _release(self) -> None:
        if self._written:
            slots = self._written.popleft()
            receipt_table.release(self._table, slots[:RELEASED_MAX])
            if len(slots) > RELEASED_MAX:
                self._written.appendleft(slots[RELEASED_MAX:])


def warm() -> None:
    """Load or compile every kernel of receipts: the first action and the first tick shall not wait for them."""
    receipts = Receipts(0, limit=16)
    names = names_of(["a", "b"])
    agents, ends = np.array([1, 1]), np.array([5, 5])
    keys = receipts.keys(agents, names)
    prints = receipts.fingerprints(np.zeros(2, ACTION), ends)
    receipts.admit(keys, prints, ends, np.zeros(2, np.int32), 1, 1)
    receipts.rows(keys)
    outcomes, updates = np.zeros(1, OUTCOME), np.zeros(1, ORDER_UPDATE)
    receipt_table.decide(receipts._table, outcomes, 1)
    receipt_table.follow(receipts._table, updates)
    receipts._sweep()
    receipt_table.release(receipts._table, np.zeros(0, np.int32))
    receipts.restore(open_arrays(receipts.open_before(99)))
    receipts.add_all(agents, names, np.array([7, 8]), prints, ends)
    receipts.take(bytes(ACTION.itemsize), "c", -1, 5, 9, 1)
    longest(names)
    receipt_index.warm()


def names_of(client_action_ids: Sequence[str]) -> NDArray[np.uint8]:
    """Return ids of at most NAME_SIZE characters of ASCII as rows of bytes, filled up with zeros."""
    joined = np.array(client_action_ids, f"S{NAME_SIZE}")
    return joined.view(np.uint8).reshape(len(joined), NAME_SIZE)


def open_arrays(opened: Rows) -> dict[str, NDArray[Any]]:
    """Return open receipts as arrays, for a snapshot; Receipts.restore takes them back."""
    return {OPEN_ROWS: opened.view(np.uint8).reshape(len(opened), RECEIPT.itemsize)}


def _key(words: Entry | Answer) -> Words:
    """Return what a receipt is kept under, shape (1, 2)."""
    return np.array([[words.high, words.low]], np.uint64)


def entry_of(rows: Rows, i: int) -> Entry:
    """Return one of rows, dtype RECEIPT, in plain numbers."""
    return Entry._make(rows.item(i))


def outcome_of(entry: Entry) -> Outcome:
    """Return what a receipt says of its action; one that is decided."""
    status, code, order_id, filled = entry.status, entry.code, entry.order_id, entry.filled
    if code:
        return Outcome(status, code, order_id, filled, 0, entry.open, 0, entry.value, entry.price)
    return Outcome(status, code, order_id, filled, entry.value, entry.open, entry.price, 0, 0)


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as published: status, code, and what says more about them; money in credits."""
    document: dict[str, Any] = {"status": Status(outcome.status).name.lower(), "code": outcome.code}
    if outcome.code:
        document["detail"] = REJECT_TEXT[Reject(outcome.code)]
        document["needed"] = _amount(outcome.code, outcome.needed)
        document["available"] = _amount(outcome.code, outcome.available)
    document["order_id"] = str(outcome.order_id) if outcome.order_id else None
    document["filled"] = outcome.filled
    document["open"] = outcome.open
    document["price"] = credits(outcome.price) if outcome.price else None
    document["value"] = credits(outcome.value)
    return document


def _amount(code: int, amount: int) -> int | str:
    return credits(amount) if code in _MONEY_CODES else amount


def credits(amount: int) -> str:
    """Return an amount of ucr as credits, decimal, six places, exact."""
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    return f"{sign}{amount // UCR}.{amount % UCR:06d}"
