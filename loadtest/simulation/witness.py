"""What clients were told, kept outside of everything that can crash, and held against itself as it comes in.

A contradiction is noticed when it is told: two receipts of one action that differ, an outcome that changes after it was
final, a tick or an event shown in two versions, a receipt for what is not on the disk.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from engine.commands import Command
from loadtest.simulation.forms import Result, results
from loadtest.simulation.network import Answer, Request

FINAL = frozenset({"filled", "rejected", "cancelled", "expired", "done"})
SHOWN = ("/api/indicators", "/api/psychology", "/api/monetary", "/api/scarcity", "/api/markets")
"""Public documents of a tick."""
REFUSED = frozenset({400, 401, 403, 404, 409, 413, 415, 429, 503})
"""Answers that say: surely not applied."""


@dataclass
class Intent:
    """An action a client wants to happen once. body: as sent; made: when, seconds.

    arrivals, answers: requests that may have reached a server, and what each was answered. told: the newest receipt.
    seq: of the first receipt.
    """

    agent_id: str
    client_action_id: str
    body: dict[str, Any]
    made: float = 0.0
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

    intents: by agent_id and client_action_id. commands: acknowledged ones by sequence. agents: agent_id by
    Idempotency-Key. contradictions: what should not have been told, in words. first_tick: of the first that has one
    time for ever; the start of a world has none.
    """

    intents: dict[tuple[str, str], Intent] = field(default_factory=dict)
    commands: dict[int, Command] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)
    first_tick: int = 0
    ticks: dict[int, bytes] = field(default_factory=dict)
    """Digest of what was published, by tick."""
    documents: dict[tuple[str, int], bytes] = field(default_factory=dict)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)

    def sent(self, request: Request) -> list[Intent]:
        """Take a request that may reach the server; return the intents it carries out.

        There are none when it asks for something else under their names.
        """
        if request.method != "POST" or not request.body:
            return []
        agent_id = request.path.split("/")[3] if request.path.startswith("/api/agents/") else None
        found = []
        for action in request.actions or [orjson.loads(request.body)]:
            agent = str(action.get("agent_id", agent_id))
            content = {name: value for name, value in action.items() if name != "agent_id"}
            intent = self.intents.get((agent, content.get("client_action_id", "")))
            if intent is not None and intent.body == content:
                found.append(intent)
                intent.arrivals += 1
        return found

    def answered(self, request: Request, intents: list[Intent], answer: Answer, durable_seq: float = math.inf) -> None:
        """Take the answer to a request. intents: what sent() gave; durable_seq: the last record surely on the disk."""
        path = request.path.partition("?")[0]
        self.statuses[str(answer.status)] += 1
        if answer.status == 500:
            self.contradictions.append(f"{request.method} {path} was answered 500")
        elif request.method == "POST" and path.endswith("/register"):
            if answer.status == 201:
                word = dict(request.headers)[b"idempotency-key"].decode()
                self._durable(word, answer.document["seq"], durable_seq)
                self.registered(word, answer.document["agent_id"])
        elif request.method == "POST" and path == "/api/actions" and answer.status == 202:
            for intent, result in zip(intents, results(request.form, answer.body), strict=True):
                self._result(intent, result, durable_seq)
        elif request.method == "POST":
            for intent in intents:
                document = answer.document
                receipt = document.get("receipt") if answer.status == 422 else document
                self._answer(intent, answer.status, receipt, durable_seq)
        elif answer.status == 200 and path in SHOWN:
            if (tick := answer.document["tick"]) >= self.first_tick:
                self.shown(path, tick, answer.body)
        elif answer.status == 200 and path == "/api/events":
            for event in answer.document["events"]:
                self.event(event)
        elif answer.status == 200 and "/actions/" in path:
            _, _, _, agent_id, _, client_action_id = path.split("/")
            self._durable(client_action_id, answer.document["seq"], durable_seq)
            self.receipt(self.intents[agent_id, client_action_id], answer.document, is_answer=False)

    def commanded(self, command: Command, answer: Answer, durable_seq: float) -> None:
        """Take the answer to a command of the operator."""
        self.statuses[f"operator {answer.status}"] += 1
        if answer.status == 500:
            self.contradictions.append(f"{command} was answered 500")
        elif answer.status in (200, 202):
            seq = answer.document["seq"]
            self._durable(str(command), seq, durable_seq)
            self.commands[seq] = command

    def _answer(self, intent: Intent, status: int, receipt: dict[str, Any] | None, durable_seq: float) -> None:
        intent.answers.append(status)
        if status in (200, 202, 422):
            assert receipt is not None
            self._durable(intent.client_action_id, receipt["seq"], durable_seq)
            self.receipt(intent, receipt, is_answer=True)

    def _result(self, intent: Intent, result: Result, durable_seq: float) -> None:
        """Take what became of one action of a batch; columns tell of a receipt no more than its number."""
        if result.receipt is not None or result.seq is None:
            self._answer(intent, result.status, result.receipt, durable_seq)
            return
        intent.answers.append(result.status)
        self._durable(intent.client_action_id, result.seq, durable_seq)
        self._accepted(intent, result.seq, is_first=not result.duplicate)

    def _accepted(self, intent: Intent, seq: int, *, is_first: bool) -> None:
        name = f"{intent.agent_id} {intent.client_action_id}"
        if intent.seq is None:
            intent.seq = seq
        self._same(f"seq of {name}", intent.seq, seq)
        if is_first:
            intent.firsts += 1
            if intent.firsts > 1:
                self.contradictions.append(f"{name} was accepted as new twice")

    def _durable(self, name: str, seq: int, durable_seq: float) -> None:
        if seq > durable_seq:
            self.contradictions.append(f"{name} was acknowledged as {seq} when only {durable_seq} was on the disk")

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
        self._accepted(intent, document["seq"], is_first=is_answer and not document["duplicate"])
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
