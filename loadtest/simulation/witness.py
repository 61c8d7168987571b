"""What clients were told, kept outside of everything that can crash, and held against itself as it comes in.

A contradiction is noticed when it is told: two receipts of one action that differ, an outcome that changes after it was
final, a tick or an event shown in two versions, a receipt for what is not on the disk.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

FINAL = frozenset({"filled", "rejected", "cancelled", "expired", "done"})
REFUSED = frozenset({400, 401, 403, 404, 409, 413, 415, 429, 503})
"""Answers that say: surely not applied."""


@dataclass
class Intent:
    """An action a client wants to happen once. body: as sent.

    arrivals, answers: requests that reached a server and what each was answered, whether or not that came back.
    told: the newest receipt. seq: of the first receipt.
    """

    agent_id: str
    client_action_id: str
    body: dict[str, Any]
    arrivals: int = 0
    answers: list[int] = field(default_factory=list)
    acknowledged: bool = False
    """The client itself has seen a receipt."""
    seq: int | None = None
    told: dict[str, Any] | None = None
    firsts: int = 0
    """Receipts that said it was not a duplicate."""

    @property
    def surely_refused(self) -> bool:
        """Whether no request of it can have been applied, by what was answered."""
        return self.seq is None and self.arrivals == len(self.answers) and all(code in REFUSED for code in self.answers)


@dataclass
class Witness:
    """Everything that was told to anybody, in the order in which the server told it.

    intents: by agent_id and client_action_id. agents: agent_id by Idempotency-Key. contradictions: what should not
    have been told, in words.
    """

    intents: dict[tuple[str, str], Intent] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)
    ticks: dict[int, bytes] = field(default_factory=dict)
    """Digest of what was published, by tick."""
    documents: dict[tuple[str, int], bytes] = field(default_factory=dict)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)

    def published(self, tick: int, digest: bytes) -> None:
        """Take what everybody may have seen of a tick."""
        self._same(f"tick {tick}", self.ticks.setdefault(tick, digest), digest)

    def shown(self, path: str, tick: int, body: bytes) -> None:
        """Take the public document of a tick."""
        self._same(f"{path} of tick {tick}", self.documents.setdefault((path, tick), body), body)

    def event(self, document: dict[str, Any]) -> None:
        """Take an event of the log."""
        number = document["id"]
        self._same(f"event {number}", self.events.setdefault(number, document), document)

    def registered(self, key: str, agent_id: str) -> None:
        """Take the answer to a registration."""
        self._same(f"agent under Idempotency-Key {key}", self.agents.setdefault(key, agent_id), agent_id)

    def receipt(self, intent: Intent, document: dict[str, Any], *, is_answer: bool) -> None:
        """Take a receipt. is_answer: to a request to act, not to a question."""
        name = f"{intent.agent_id} {intent.client_action_id}"
        self._same(f"name of {name}", intent.client_action_id, document["client_action_id"])
        if intent.seq is None:
            intent.seq = document["seq"]
        self._same(f"seq of {name}", intent.seq, document["seq"])
        if is_answer and not document["duplicate"]:
            intent.firsts += 1
            if intent.firsts > 1:
                self.contradictions.append(f"{name} was accepted as new twice")
        self._progress(name, intent.told, document)
        intent.told = document

    def _progress(self, name: str, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
        """See to it that a receipt goes on where the one before it stood."""
        if before is None or before["outcome"] is None:
            return
        self._same(f"tick of {name}", before["tick"], after["tick"])
        one, two = before["outcome"], after["outcome"]
        if two is None or one["status"] in FINAL:
            self._same(f"outcome of {name}", one, two)
        elif two["filled"] < one["filled"]:
            self.contradictions.append(f"{name} had {one['filled']} lots filled, then {two['filled']}")

    def _same(self, what: str, one: Any, two: Any) -> None:
        if one != two:
            self.contradictions.append(f"{what} was told in two versions: {str(one)[:300]} and {str(two)[:300]}")
