"""What an accepted action is answered with, over REST and over the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome", "Receipt"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the world did with an action.

    status: filled, resting, partial, rejected, cancelled, expired or done. code: 0, or why it was rejected (2xx
    funds, 3xx market, 4xx limits). document: everything the server said: filled, open, price, value, detail, ...
    """

    status: str
    code: int
    document: Mapping[str, Any]

    @property
    def is_rejected(self) -> bool:
        return self.status == "rejected"

    @property
    def is_open(self) -> bool:
        """Whether an order of this action still waits in the market."""
        return self.status in ("resting", "partial")

    @property
    def filled(self) -> int:
        """Lots traded so far, or made, or consumed."""
        return int(self.document.get("filled") or 0)


@dataclass(frozen=True, slots=True)
class Receipt:
    """An accepted action: it is in the journal and will be decided in a tick.

    seq: its place in the journal. tick: the tick it was decided in, None before. duplicate: whether it had been
    accepted before. outcome: None before that tick.
    """

    client_action_id: str
    seq: int
    tick: int | None
    duplicate: bool
    outcome: Outcome | None

    @property
    def order_id(self) -> str:
        """The id of the order that the action placed or changed, for cancel and replace."""
        named = self.outcome.document.get("order_id") if self.outcome else None
        return str(named or self.seq)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Receipt:
        """Read the server's document."""
        outcome = document.get("outcome")
        return cls(
            client_action_id=document["client_action_id"],
            seq=document["seq"],
            tick=document.get("tick"),
            duplicate=document["duplicate"],
            outcome=None if outcome is None else Outcome(outcome["status"], outcome["code"], outcome),
        )
