"""Bots of a run: each wants some actions to happen once, retries under the same id, and asks what became of them.

A client lives through crashes of the server; what it has not been answered it asks again, sooner or later.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import orjson

from loadtest.simulation.forms import Form, results, written
from loadtest.simulation.network import Answer, Lost, Request
from loadtest.simulation.witness import SHOWN, Intent, Witness

MARKETS = ("food", "clothing", "energy", "labour")
MOODS = ("sentiment", "fear", "greed", "confidence")
FORGOTTEN_S = 60.0
"""An action that was not acknowledged for so long is given up: receipts are not kept for ever either."""
_JSON = (b"content-type", b"application/json")


class Carrier(Protocol):
    """What takes a request to the server."""

    async def exchange(self, request: Request) -> Answer:
        """Return the answer. Raises Lost."""


@dataclass
class Client:
    """One bot. name: unique in the run. pace_s: mean time between two of its requests.

    open: intents it has no receipt for yet. settled: those it has.
    """

    name: str
    draw: random.Random
    network: Carrier
    witness: Witness
    pace_s: float
    numbers: count[int]
    agent_id: str | None = None
    api_key: str | None = None
    open: list[Intent] = field(default_factory=list)
    settled: list[Intent] = field(default_factory=list)
    made: int = 0

    async def live(self) -> None:
        """Do something now and then, for as long as the server lives."""
        while True:
            await asyncio.sleep(self.draw.expovariate(1.0 / self.pace_s))
            try:
                await self._do_something()
            except Lost:
                self.witness.statuses["lost"] += 1

    def recent(self) -> list[Intent]:
        """Return the newest acknowledged actions: those whose receipts must be there."""
        now = asyncio.get_running_loop().time()
        return [intent for intent in self.settled[-50:] if now - intent.made < FORGOTTEN_S]

    async def _do_something(self) -> None:
        if self.agent_id is None or self.api_key is None:
            await self._register()
            return
        now = asyncio.get_running_loop().time()
        self.open = [intent for intent in self.open if now - intent.made < FORGOTTEN_S]
        recent = self.recent()
        choice = self.draw.random()
        if choice < 0.15:
            await self._read()
        elif choice < 0.30 and (self.open or recent):
            await self.ask(self.draw.choice(self.open + recent))
        elif choice < 0.45 and self.open:
            await self._act(self.draw.choice(self.open))
        elif choice < 0.50 and recent:
            # a bot that has lost its memory, or a network that has not
            await self._act(self.draw.choice(recent))
        elif choice < 0.58:
            await self._batch()
        elif choice < 0.60 and recent:
            await self._reuse(self.draw.choice(recent))
        else:
            await self._act(self._intend())

    async def _register(self) -> None:
        key = f"registration-of-{self.name}"
        answer = await self._send("POST", "/api/agents/register", b"{}", (_JSON, (b"idempotency-key", key.encode())))
        if answer.status == 201:
            self.agent_id, self.api_key = answer.document["agent_id"], answer.document["api_key"]

    async def _act(self, intent: Intent) -> None:
        query = "?wait=outcome" if self.draw.random() < 0.3 else ""
        path = f"/api/agents/{self.agent_id}/action{query}"
        answer = await self._send("POST", path, orjson.dumps(intent.body), (_JSON, *self._key()))
        self._take(intent, answer.status)

    async def _batch(self) -> None:
        intents = [self._intend() for _ in range(self.draw.randint(2, 5))]
        intents += self.draw.sample(self.open, min(2, len(self.open)))
        # one id twice in a batch is one action as well
        actions = [{"agent_id": self.agent_id, **intent.body} for intent in intents]
        form = self.draw.choice(list(Form))
        media, body = written(form, actions)
        headers = ((b"content-type", media), *self._key())
        answer = await self._exchange(
            Request(next(self.numbers), "POST", "/api/actions", headers, body, tuple(actions), form)
        )
        if answer.status == 202:
            for intent, result in zip(intents, results(form, answer.body), strict=True):
                self._take(intent, result.status)

    async def ask(self, intent: Intent) -> None:
        """Ask for the receipt of an action."""
        path = f"/api/agents/{self.agent_id}/actions/{intent.client_action_id}"
        answer = await self._send("GET", path, headers=self._key())
        self._take(intent, answer.status)
        if answer.status == 404 and intent.acknowledged:
            self.witness.contradictions.append(f"the receipt of {intent.client_action_id} is gone")

    async def _reuse(self, intent: Intent) -> None:
        """Ask for something else under an id that is taken."""
        other = {"client_action_id": intent.client_action_id, "type": "borrow", "amount": "0.123456"}
        body = orjson.dumps(other)
        answer = await self._send("POST", f"/api/agents/{self.agent_id}/action", body, (_JSON, *self._key()))
        if answer.status in (200, 202):
            self.witness.contradictions.append(f"{intent.client_action_id} was taken for two different actions")

    async def _read(self) -> None:
        if self.draw.random() < 0.3:
            await self._send("GET", "/api/events?limit=100&order=desc")
        else:
            await self._send("GET", self.draw.choice(SHOWN))

    async def _send(
        self, method: str, path: str, body: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> Answer:
        return await self._exchange(Request(next(self.numbers), method, path, headers, body))

    async def _exchange(self, request: Request) -> Answer:
        answer = await self.network.exchange(request)
        if answer.status == 401:
            # a late copy of our registration has made a new key: ask for one we know
            self.api_key = None
        return answer

    def _key(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"authorization", f"Bearer {self.api_key}".encode()),)

    def _take(self, intent: Intent, status: int) -> None:
        if status in (200, 202, 422):
            intent.acknowledged = True
            if intent in self.open:
                self.open.remove(intent)
                self.settled.append(intent)

    def _intend(self) -> Intent:
        assert self.agent_id is not None
        self.made += 1
        body = {"client_action_id": f"{self.name}-{self.made}", **self._wish()}
        intent = Intent(self.agent_id, body["client_action_id"], body, asyncio.get_running_loop().time())
        self.witness.intents[intent.agent_id, intent.client_action_id] = intent
        self.open.append(intent)
        return intent

    def _wish(self) -> dict[str, Any]:
        draw = self.draw
        market = draw.choice(MARKETS)
        kind = draw.choice(("limit", "limit", "limit", "market", "borrow", "repay", "consume", "set_sentiment"))
        side, quantity = draw.choice(("buy", "sell")), draw.randint(1, 9)
        match kind:
            case "limit":
                price = f"{draw.uniform(0.01, 40.0):.2f}"
                return {"type": kind, "market": market, "side": side, "quantity": quantity, "price": price}
            case "market":
                return {"type": kind, "market": market, "side": side, "quantity": quantity}
            case "borrow" | "repay":
                return {"type": kind, "amount": f"{draw.uniform(0.1, 50.0):.2f}"}
            case "consume":
                return {"type": kind, "market": "food", "quantity": quantity}
            case _:
                return {
                    "type": kind,
                    **{mood: round(draw.random(), 3) for mood in ("sentiment", "fear", "greed", "confidence")},
                }
