"""Receipts: what was accepted under which client_action_id, and what became of it.

A receipt lives until valid_until + 6,000 ticks, and is rebuilt from the journal. A second action under the same id
meets the first one's receipt, so an effect happens once. What can no longer change is kept packed, in about 260 bytes
each (measured over 100,000), until it goes into the index on disk. Source: DESIGN D23, D24, R2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.events import TickReport
from engine.ladder import UCR
from engine.messages import REJECT_TEXT, Reject, Status
from server.live.errors import ReceiptsFull
from server.live.receipt_index import KEY_SIZE, ReceiptIndex

RETENTION_TICKS = 6_000
"""How long a receipt outlives its action's validity."""
VALIDITY_TICKS = 600
"""Default validity of an action, ticks from the last published one."""
VALIDITY_TICKS_MAX = 36_000
RECEIPTS_MAX = 1_000_000
"""Most that are kept in memory: about 0.25 GB. They are more than FLUSH_AT only while the disk does not take them."""
FLUSH_AT = 100_000
"""Receipts that can no longer change and are still in memory when they are written to the index."""

_OPEN = (Status.RESTING, Status.PARTIAL)
_PACKED = Struct("<qqq16sBi5q")
"""A receipt that can no longer change: ends, seq, tick, fingerprint, then its outcome up to the price."""
_REFUSED = Struct("<2q")
"""What a refusal adds: needed, available."""
_PAIR = Struct("<qq")
OPEN_KEYS, OPEN_ROWS = "receipts.open_keys", "receipts.open_rows"
"""Arrays of open receipts: keys of 16 bytes; seq, ends, tick, fingerprint as two words, decided, outcome."""
_MONEY_CODES = frozenset({Reject.NO_FUNDS, Reject.CREDIT_LIMIT, Reject.REPAY_OVER_DEBT})


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


_UNDECIDED = Outcome(0, 0, 0, 0, 0, 0, 0, 0, 0)


class Receipt:
    """One accepted action. tick and outcome: None until the tick that decided it is published.

    ends: last tick of its validity; it is kept RETENTION_TICKS longer.
    """

    __slots__ = ("_outcome", "client_action_id", "ends", "fingerprint", "key", "seq", "tick")

    def __init__(self, key: bytes, client_action_id: str, seq: int, fingerprint: bytes, ends: int) -> None:
        self.key = key
        self.client_action_id = client_action_id
        self.seq = seq
        self.fingerprint = fingerprint
        self.ends = ends
        self.tick: int | None = None
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> dict[str, Any] | None:
        """The outcome as published: status, code, and what says more about them; money in credits."""
        return None if self._outcome is None else outcome_document(self._outcome)

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


class OpenReceipts(NamedTuple):
    """The receipts that may still change, as they were after a tick: each with its tick and outcome of then."""

    items: list[tuple[Receipt, int | None, Outcome | None]]


class Receipts:
    """All receipts that are kept, by agent and client_action_id.

    tick: the last published one. index: where receipts go that can no longer change; limit: most receipts in memory,
    when it is reached nothing more is accepted.
    """

    def __init__(self, tick: int, index: ReceiptIndex | None = None, limit: int = RECEIPTS_MAX) -> None:
        self.tick = tick
        self.limit = limit
        self.index = index or ReceiptIndex()
        self._open: dict[bytes, Receipt] = {}
        """Receipts that may still change: undecided actions and resting orders."""
        self._settled: dict[bytes, bytes] = {}
        """Packed: those that cannot, since the last went into the index."""
        self._following: dict[int, Receipt] = {}
        """The open ones by sequence."""
        self._ending: dict[int, list[bytes]] = {}
        """Keys of receipts in memory by the last tick of their validity; kept RETENTION_TICKS longer."""
        self._oldest_end = tick

    def __len__(self) -> int:
        return len(self._open) + len(self._settled) + len(self.index)

    @property
    def in_memory(self) -> int:
        """How many are in memory."""
        return len(self._open) + len(self._settled) + self.index.waiting

    @property
    def should_flush(self) -> bool:
        """Whether settled receipts should go into the index now."""
        return len(self._settled) >= FLUSH_AT

    def get(self, agent: int, client_action_id: str) -> Receipt | None:
        """Return the receipt under that id, None when there is none (any more)."""
        key = _key(agent, client_action_id)
        receipt = self._open.get(key)
        if receipt is not None:
            receipt.client_action_id = client_action_id
            return receipt
        packed = self._settled.get(key) or self.index.get(key)
        if packed is None:
            return None
        found = _unpacked(key, client_action_id, packed)
        return found if found.ends >= self.tick - RETENTION_TICKS else None

    def make_room(self) -> None:
        """See to it that one more receipt can be kept. Raises ReceiptsFull."""
        if self.in_memory >= self.limit:
            raise ReceiptsFull(f"{self.limit} receipts are in memory, as many as may; the disk takes none")

    def add(self, agent: int, client_action_id: str, seq: int, fingerprint: bytes, valid_until: int) -> Receipt:
        """Keep and return the receipt of an action just accepted."""
        # an action whose validity is over already is still remembered for as long as any other
        receipt = Receipt(
            _key(agent, client_action_id), client_action_id, seq, fingerprint, max(valid_until, self.tick)
        )
        self._follow(receipt)
        return receipt

    def apply(self, report: TickReport) -> None:
        """Take in what a tick decided, and forget what is past its time."""
        self.tick = report.tick
        if len(report.outcomes):
            self._decide(report)
        if len(report.updates):
            self._update(report)
        while self._oldest_end < report.tick - RETENTION_TICKS:
            self._forget(self._ending.pop(self._oldest_end, []))
            self._oldest_end += 1
        self.index.forget(report.tick - RETENTION_TICKS)

    def open_now(self) -> OpenReceipts:
        """Return the receipts that may still change, as they are now."""
        return OpenReceipts([(receipt, receipt.tick, receipt._outcome) for receipt in self._following.values()])

    def flush(self) -> dict[bytes, bytes]:
        """Hand the settled receipts to the index, where they wait until they are written; return them."""
        settled, self._settled = self._settled, {}
        self.index.wait_for(settled)
        self._ending = {}
        for receipt in self._following.values():
            self._ending.setdefault(receipt.ends, []).append(receipt.key)
        return settled

    def take_back(self) -> None:
        """Keep in memory what the disk did not take; the next flush has it again."""
        back = self.index.take_back()
        self._settled |= back
        for key, packed in back.items():
            self._ending.setdefault(_PACKED.unpack_from(packed)[0], []).append(key)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take back what open_arrays made of the open receipts."""
        for key, row in zip(_keys_of(arrays[OPEN_KEYS]), arrays[OPEN_ROWS].tolist(), strict=True):
            seq, ends, tick, fingerprint_high, fingerprint_low, is_decided, *outcome = row
            receipt = Receipt(key, "", seq, _PAIR.pack(fingerprint_high, fingerprint_low), ends)
            if is_decided:
                receipt.tick, receipt._outcome = tick, Outcome(*outcome)
            self._follow(receipt)

    def _follow(self, receipt: Receipt) -> None:
        self._open[receipt.key] = receipt
        self._following[receipt.seq] = receipt
        self._ending.setdefault(receipt.ends, []).append(receipt.key)

    def _decide(self, report: TickReport) -> None:
        columns = ("seq", "status", "code", "order_id", "filled", "value", "open", "price", "needed", "available")
        following, tick = self._following, report.tick
        # whole columns at once: reading fields of numpy rows one by one takes ten times as long
        for seq, *rest in zip(*(report.outcomes[name].tolist() for name in columns), strict=True):
            receipt = following.get(seq)
            if receipt is None:
                continue
            receipt.tick = tick
            receipt._outcome = outcome = Outcome(*rest)
            if not (outcome.status in _OPEN and outcome.open > 0 and outcome.order_id == seq):
                self._settle(receipt)

    def _update(self, report: TickReport) -> None:
        columns = ("order_id", "filled", "value", "open", "price", "status")
        for seq, filled, value, left, price, status in zip(
            *(report.updates[name].tolist() for name in columns), strict=True
        ):
            receipt = self._following.get(seq)
            if receipt is None or receipt._outcome is None:
                continue
            before = receipt._outcome
            receipt._outcome = before._replace(
                status=status,
                filled=before.filled + filled,
                value=before.value + value,
                open=left,
                price=price or before.price,
            )
            if status not in _OPEN or left == 0:
                self._settle(receipt)

    def _settle(self, receipt: Receipt) -> None:
        """Pack a receipt that can no longer change."""
        del self._following[receipt.seq]
        del self._open[receipt.key]
        self._settled[receipt.key] = _packed(receipt)

    def _forget(self, keys: list[bytes]) -> None:
        for key in keys:
            self._settled.pop(key, None)
            if (receipt := self._open.pop(key, None)) is not None:
                del self._following[receipt.seq]


def open_arrays(opened: OpenReceipts) -> dict[str, NDArray[Any]]:
    """Return open receipts as arrays, for a snapshot; Receipts.restore takes them back."""
    rows = [
        (r.seq, r.ends, tick or 0, *_PAIR.unpack(r.fingerprint), outcome is not None, *(outcome or _UNDECIDED))
        for r, tick, outcome in opened.items
    ]
    keys = np.frombuffer(b"".join(item[0].key for item in opened.items), np.uint8).reshape(-1, KEY_SIZE)
    return {OPEN_KEYS: keys, OPEN_ROWS: np.array(rows, np.int64).reshape(len(rows), 6 + len(Outcome._fields))}


def _keys_of(keys: NDArray[np.uint8]) -> list[bytes]:
    whole = keys.tobytes()
    return [whole[i : i + KEY_SIZE] for i in range(0, len(whole), KEY_SIZE)]


def _key(agent: int, client_action_id: str) -> bytes:
    """Return what a receipt is kept under: 16 bytes of a hash, as no client_action_id is needed in full again."""
    return hashlib.blake2b(f"{agent}:{client_action_id}".encode(), digest_size=KEY_SIZE).digest()


def _packed(receipt: Receipt) -> bytes:
    outcome, tick = receipt._outcome, receipt.tick
    assert outcome is not None
    assert tick is not None
    *first, needed, available = outcome
    packed = _PACKED.pack(receipt.ends, receipt.seq, tick, receipt.fingerprint, *first)
    return packed + _REFUSED.pack(needed, available) if outcome.code else packed


def _unpacked(key: bytes, client_action_id: str, packed: bytes) -> Receipt:
    ends, seq, tick, fingerprint, *first = _PACKED.unpack_from(packed)
    refused = _REFUSED.unpack_from(packed, _PACKED.size) if len(packed) > _PACKED.size else (0, 0)
    receipt = Receipt(key, client_action_id, seq, fingerprint, ends)
    receipt.tick = tick
    receipt._outcome = Outcome(*first, *refused)
    return receipt


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
