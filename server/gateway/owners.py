"""Whose agents a connection speaks for: the engine knows, and says when a key opens nothing any more.

A gateway knows keys by their digests only, and keeps nothing but what its connections have authenticated with.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, Final

from server.clock import Clock
from server.gateway.upstream import Headers, Unanswered, Unsent, Upstream
from server.live import relay
from server.live.desk import Identity
from server.live.hub import Hub
from server.live.subscriber import OUT_OF_REACH, Agents, Refusal
from server.routes.gateway import KEYS, KEYS_MAX

OWNERS_MAX: Final = 100_000
RETRY_S: Final = 0.2
LIMIT_S: Final = 2.0
ALLOWED: Final = "the same again, in a moment"


class Owners:
    """Asks the engine about keys. `run` looks after those of open connections until cancelled.

    lookups: for what clients ask; questions: for what the gateway asks by itself, which no client may keep waiting.
    """

    def __init__(self, lookups: Upstream, questions: Upstream, headers: Headers, clock: Clock) -> None:
        self._lookups = lookups
        self._questions = questions
        self._headers = headers
        self._clock = clock
        self._doubted = asyncio.Event()
        self._owners: OrderedDict[bytes, int] = OrderedDict()
        """By digest of a key, of those that were looked up last."""

    async def authenticate(self, key_hash: bytes) -> Agents:
        """Return whose agents a key speaks for, None for one that opens nothing. Raises Refusal OUT_OF_REACH."""
        try:
            (found,) = await self._ask(self._lookups, [key_hash])
        except (Unsent, Unanswered) as error:
            raise Refusal(OUT_OF_REACH, str(error), ALLOWED) from None
        if found is None:
            return None
        self._owners[key_hash] = found["owner"]
        self._owners.move_to_end(key_hash)
        if len(self._owners) > OWNERS_MAX:
            self._owners.popitem(last=False)
        agents: list[str] = found["agents"]
        return agents

    def identify(self, key_hash: bytes) -> Identity | None:
        """Return whom a key speaks for that `authenticate` has found valid a moment ago."""
        owner = self._owners.get(key_hash)
        return None if owner is None else Identity(owner, key_hash)

    def doubt_all(self) -> None:
        """Have every key of an open connection asked about again."""
        self._doubted.set()

    async def run(self, hub: Hub) -> None:
        """Close the connections whose keys the engine does not know any more, whenever they are doubted."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            try:
                await self._check(hub)
            except (Unsent, Unanswered):
                self._doubted.set()
                await self._clock.sleep_until(self._clock.monotonic() + RETRY_S)

    async def _check(self, hub: Hub) -> None:
        hashes = list({one.key_hash for one in hub.subscribers if one.key_hash is not None})
        for start in range(0, len(hashes), KEYS_MAX):
            chunk = hashes[start : start + KEYS_MAX]
            for key_hash, found in zip(chunk, await self._ask(self._questions, chunk), strict=True):
                if found is None:
                    hub.revoke(key_hash)

    async def _ask(self, upstream: Upstream, hashes: list[bytes]) -> list[dict[str, Any] | None]:
        question = relay.pack({"keys": hashes})
        answer = await upstream.exchange(b"POST", KEYS.encode(), self._headers, question, LIMIT_S)
        if answer.status != 200:
            raise Unanswered(f"the engine answers {answer.status}")
        found: list[Any] = relay.unpack(answer.body)
        return found
