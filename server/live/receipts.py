"""Receipts: what was accepted under which client_action_id, and what became of it.

A receipt lives in memory until valid_until + 6,000 ticks, and is rebuilt from the journal. A second action under the
same id meets the first one's receipt, so an effect happens once. Source: DESIGN D23, D24, R2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.events import TickReport
from engine.messages import REJECT_TEXT, Reject, Status
from server.live.errors import ReceiptsFull

RETENTION_TICKS = 6_000
"""How long a receipt outlives its action's validity."""
VALIDITY_TICKS = 600
"""Default validity of an action, ticks from the last published one."""
VALIDITY_TICKS_MAX = 36_000
RECEIPTS_MAX = 1_000_000
"""About 0.5 GB when it is reached: 1,600 actions a second for ten minutes, or 16,000 for one."""
UCR = 1_000_000
"""Micro-credits in a credit."""

_OPEN = (Status.RESTING, Status.PARTIAL)
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

    __slots__ = ("_outcome", "agent", "client_action_id", "fingerprint", "seq", "tick", "valid_until")

    def __init__(self, agent: int, client_action_id: str, seq: int, fingerprint: bytes, valid_until: int) -> None:
        self.agent = agent
        self.client_action_id = client_action_id
        self.seq = seq
        self.fingerprint = fingerprint
        self.valid_until = valid_until
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
        self._by_id: dict[tuple[int, str], Receipt] = {}
        self._following: dict[int, Receipt] = {}
        """Receipts that may still change, by sequence: undecided actions and resting orders."""
        self._ending: dict[int, list[Receipt]] = {}
        """Receipts by the last tick of their validity; kept RETENTION_TICKS longer."""
        self._oldest_end = tick

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, agent: int, client_action_id: str) -> Receipt | None:
        """Return the receipt under that id, None when there is none (any more)."""
        return self._by_id.get((agent, client_action_id))

    def make_room(self) -> None:
        """See to it that one more receipt can be kept. Raises ReceiptsFull."""
        if len(self._by_id) >= self.limit and not self._drop_oldest():
            raise ReceiptsFull(f"{self.limit} receipts are kept, all of actions that are still valid")

    def add(self, agent: int, client_action_id: str, seq: int, fingerprint: bytes, valid_until: int) -> Receipt:
        """Keep and return the receipt of an action just accepted."""
        receipt = Receipt(agent, client_action_id, seq, fingerprint, valid_until)
        self._by_id[agent, client_action_id] = receipt
        self._following[seq] = receipt
        # an action whose validity is over already is still remembered for as long as any other
        self._ending.setdefault(max(valid_until, self.tick), []).append(receipt)
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
                del following[seq]

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
                del self._following[seq]

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

    def _forget(self, receipts: list[Receipt]) -> None:
        for receipt in receipts:
            del self._by_id[receipt.agent, receipt.client_action_id]
            self._following.pop(receipt.seq, None)


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
