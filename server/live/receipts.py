"""Receipts: what was accepted under which client_action_id, and what became of it.

A receipt lives in memory until valid_until + 6,000 ticks, and is rebuilt from the journal. A second action under the
same id meets the first one's receipt, so an effect happens once. What can no longer change is kept packed, in about
260 bytes each (measured over 100,000). Source: DESIGN D23, D24, R2.
"""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import Any, NamedTuple

from engine.events import TickReport
from engine.ladder import UCR
from engine.messages import REJECT_TEXT, Reject, Status
from server.live.errors import ReceiptsFull

RETENTION_TICKS = 6_000
"""How long a receipt outlives its action's validity."""
VALIDITY_TICKS = 600
"""Default validity of an action, ticks from the last published one."""
VALIDITY_TICKS_MAX = 36_000
RECEIPTS_MAX = 1_000_000
"""About 0.25 GB when it is reached: 1,600 actions a second for ten minutes, or 16,000 for one."""

_OPEN = (Status.RESTING, Status.PARTIAL)
_PACKED = Struct("<qq16sBi5q")
"""A receipt that can no longer change: seq, tick, fingerprint, then its outcome up to the price."""
_REFUSED = Struct("<2q")
"""What a refusal adds: needed, available."""
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


class Receipt:
    """One accepted action. tick and outcome: None until the tick that decided it is published."""

    __slots__ = ("_outcome", "client_action_id", "fingerprint", "key", "seq", "tick")

    def __init__(self, key: bytes, client_action_id: str, seq: int, fingerprint: bytes) -> None:
        self.key = key
        self.client_action_id = client_action_id
        self.seq = seq
        self.fingerprint = fingerprint
        self.tick: int | None = None
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> dict[str, Any] | None:
        """The outcome as published: status, code, and what says more about them; money in credits."""
        return None if self._outcome is None else _document(self._outcome)

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


class Receipts:
    """All receipts that are kept, by agent and client_action_id.

    tick: the last published one. limit: most receipts kept; when it is reached those past their validity go first,
    oldest first, and when there are none left nothing more is accepted.
    """

    def __init__(self, tick: int, limit: int = RECEIPTS_MAX) -> None:
        self.tick = tick
        self.limit = limit
        self.dropped = 0
        """Receipts that had to go before their time."""
        self._by_key: dict[bytes, Receipt | bytes] = {}
        self._following: dict[int, Receipt] = {}
        """Receipts that may still change, by sequence: undecided actions and resting orders."""
        self._ending: dict[int, list[bytes]] = {}
        """Keys of receipts by the last tick of their validity; kept RETENTION_TICKS longer."""
        self._oldest_end = tick

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, agent: int, client_action_id: str) -> Receipt | None:
        """Return the receipt under that id, None when there is none (any more)."""
        key = _key(agent, client_action_id)
        kept = self._by_key.get(key)
        return _unpacked(key, client_action_id, kept) if isinstance(kept, bytes) else kept

    def make_room(self) -> None:
        """See to it that one more receipt can be kept. Raises ReceiptsFull."""
        if len(self._by_key) >= self.limit and not self._drop_oldest():
            raise ReceiptsFull(f"{self.limit} receipts are kept, all of actions that are still valid")

    def add(self, agent: int, client_action_id: str, seq: int, fingerprint: bytes, valid_until: int) -> Receipt:
        """Keep and return the receipt of an action just accepted."""
        key = _key(agent, client_action_id)
        receipt = Receipt(key, client_action_id, seq, fingerprint)
        self._by_key[key] = receipt
        self._following[seq] = receipt
        # an action whose validity is over already is still remembered for as long as any other
        self._ending.setdefault(max(valid_until, self.tick), []).append(key)
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
        self._by_key[receipt.key] = _packed(receipt)

    def _drop_oldest(self) -> bool:
        """Forget the receipts whose validity ended first; return whether there were any."""
        while self._oldest_end < self.tick:
            oldest = self._ending.pop(self._oldest_end, [])
            self._oldest_end += 1
            if oldest:
                self._forget(oldest)
                self.dropped += len(oldest)
                return True
        return False

    def _forget(self, keys: list[bytes]) -> None:
        for key in keys:
            kept = self._by_key.pop(key)
            if isinstance(kept, Receipt):
                self._following.pop(kept.seq, None)


def _key(agent: int, client_action_id: str) -> bytes:
    """Return what a receipt is kept under: 16 bytes of a hash, as no client_action_id is needed in full again."""
    return hashlib.blake2b(f"{agent}:{client_action_id}".encode(), digest_size=16).digest()


def _packed(receipt: Receipt) -> bytes:
    outcome, tick = receipt._outcome, receipt.tick
    assert outcome is not None
    assert tick is not None
    *first, needed, available = outcome
    packed = _PACKED.pack(receipt.seq, tick, receipt.fingerprint, *first)
    return packed + _REFUSED.pack(needed, available) if outcome.code else packed


def _unpacked(key: bytes, client_action_id: str, packed: bytes) -> Receipt:
    seq, tick, fingerprint, *first = _PACKED.unpack_from(packed)
    refused = _REFUSED.unpack_from(packed, _PACKED.size) if len(packed) > _PACKED.size else (0, 0)
    receipt = Receipt(key, client_action_id, seq, fingerprint)
    receipt.tick = tick
    receipt._outcome = Outcome(*first, *refused)
    return receipt


def _document(outcome: Outcome) -> dict[str, Any]:
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
