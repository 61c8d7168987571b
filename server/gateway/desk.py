"""Actions that come over a gateway's sockets: handed to the engine's desk one by one, in the order of their key.

As over REST: an acknowledgement only with the engine's receipt, 503 when nothing was sent, 504 when it may have been
applied. What an answer belongs to is known by the id of the client's message. Source: DESIGN D10, R3.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import structlog

from server.errors import Problem
from server.gateway.forward import Forwarder, engine_away, unknown_fate
from server.gateway.owners import Owners
from server.gateway.upstream import Headers
from server.live import relay
from server.live.desk import WAITING_MAX, Identity, error_of, too_many
from server.live.subscriber import BAD_FIELD, Refusal
from server.routes.gateway import ACTION

ELSEWHERE: Final = "false at a gateway; set cancel_after, which the world itself keeps"

Told = dict[str, Any]

log = structlog.get_logger("arena.gateway")


class _Waiting(NamedTuple):
    question: bytes
    answer: Callable[[Told], None]


class RemoteDesk:
    """The way to the engine's desk. Actions of one key are sent one after another, those of several at a time."""

    def __init__(self, owners: Owners, forwarder: Forwarder, headers: Headers) -> None:
        self._owners = owners
        self._forwarder = forwarder
        self._headers = headers
        self._waiting: dict[bytes, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def identify(self, key_hash: bytes) -> Identity | None:
        """Return whom a key speaks for that was found valid a moment ago."""
        return self._owners.identify(key_hash)

    def hold(self, identity: Identity) -> None:
        """Refuse: a gateway that dies could not keep it, nor tell."""
        raise Refusal(BAD_FIELD, "cancel_on_disconnect is True", ELSEWHERE)

    def release(self, identity: Identity, *, is_stopping: bool) -> None:
        """Do nothing: there is nothing that is held."""

    def is_valid(self, identity: Identity) -> bool:
        """Return True: connections of revoked keys are closed by the engine's news."""
        return True

    def submit(self, identity: Identity, agent_id: Any, action: Any, answer: Callable[[Told], None]) -> None:
        """Hand an action on; `answer` is called once."""
        question = relay.pack({"key_hash": identity.key_hash, "agent_id": agent_id, "action": action})
        waiting = self._waiting.get(identity.key_hash)
        if waiting is not None:
            if len(waiting) >= WAITING_MAX:
                answer(too_many())
            else:
                waiting.append(_Waiting(question, answer))
            return
        self._waiting[identity.key_hash] = deque([_Waiting(question, answer)])
        task = asyncio.get_running_loop().create_task(self._work(identity.key_hash))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """End what is under way and return when it has ended; to be called when no connection is left to answer to."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            # its senders learn nothing, and have to ask for their receipts
            log.error("actions_not_answered", exc_info=failure)

    async def _work(self, key_hash: bytes) -> None:
        waiting = self._waiting[key_hash]
        try:
            while waiting:
                question, answer = waiting.popleft()
                answer(await self._ask(question))
        finally:
            del self._waiting[key_hash]

    async def _ask(self, question: bytes) -> Told:
        try:
            answer = await self._forwarder.send(b"POST", ACTION.encode(), self._headers, question, is_read=False)
        except Problem as problem:
            return error_of(problem)
        if answer.status == 503:
            # the engine is starting or stopping, and has not looked at it
            return error_of(engine_away("the engine takes nothing now"))
        if answer.status != 200:
            return error_of(unknown_fate(f"the engine answers {answer.status}"))
        try:
            told: Told = relay.unpack(answer.body)
        except ValueError as error:
            return error_of(unknown_fate(f"the engine answers what is no msgpack ({error})"))
        return told
