"""Actions that come over a socket: the same door, rate, journal and receipts as over REST, and an answer once synced.

    op action -> the key's rate, whose agent, what shape -> recorder -> synced -> ack with the receipt

An action is the same in every encoding and over every way in, so a bot may send it again over another one. One task
answers for all connections, in the order in which the actions came. Source: DESIGN D2, D22, D24, R1 to R3.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from server import bodies
from server.errors import Code, Problem
from server.live.admission import Admission
from server.live.errors import JournalFailed, LiveError
from server.live.recorder import Recorder, Submitted
from server.live.switches import Switches

WAITING_MAX: Final = 128
"""Actions of one connection that may wait for their answer: a key may send a hundred at once."""

Answer = Callable[[dict[str, Any]], None]
"""Takes the fields of an ack or of an error, without op and id."""


class Identity(NamedTuple):
    """Who a connection speaks for. key_hash: of the key it showed."""

    owner: int
    key_hash: bytes


class _Waiting(NamedTuple):
    submitted: Submitted
    answer: Answer


class Desk:
    """Takes actions and answers each of them once. problem_of: how an error of the live path is answered."""

    def __init__(
        self,
        admission: Admission,
        recorder: Recorder,
        switches: Switches,
        problem_of: Callable[[LiveError], Problem],
    ) -> None:
        self._admission = admission
        self._recorder = recorder
        self._switches = switches
        self._problem_of = problem_of
        self._waiting: deque[_Waiting] = deque()
        self._news = asyncio.Event()

    def identify(self, key_hash: bytes) -> Identity | None:
        """Return whom a key speaks for, None when it opens nothing."""
        owner = self._recorder.registry.owner_of_key(key_hash)
        return None if owner is None else Identity(owner, key_hash)

    def hold(self, identity: Identity) -> None:
        """Take note that a connection wants the orders of its owner's agents to end with it."""
        self._switches.hold(identity.owner)

    def release(self, identity: Identity, *, is_stopping: bool) -> None:
        """Take note that it ended. is_stopping: because the server stops."""
        self._switches.release(identity.owner, is_stopping=is_stopping)

    def is_valid(self, identity: Identity) -> bool:
        """Say whether a connection may still speak for whom it did: a revoked key ends it."""
        return self._recorder.registry.owner_of_key(identity.key_hash) == identity.owner

    def submit(self, identity: Identity, agent_id: Any, action: Any, answer: Answer) -> None:
        """Take an action; `answer` is called once: now when it is refused, else when it is on disk or never will be."""
        try:
            self._admission.take(identity.key_hash)
            agent = self._admission.own_agent(identity.owner, agent_id, or_left=True)
            submitted = self._admission.submit(agent, self._admission.parse(bodies.exact(action)))
        except Problem as problem:
            answer(error_of(problem))
        except LiveError as error:
            answer(error_of(self._problem_of(error)))
        else:
            self._waiting.append(_Waiting(submitted, answer))
            self._news.set()

    async def run(self) -> None:
        """Answer what is on disk, until cancelled."""
        while True:
            await self._news.wait()
            if not self._waiting:
                self._news.clear()
                continue
            try:
                await self._recorder.durable(self._waiting[0].submitted.receipt.seq)
            except JournalFailed as failure:
                told = error_of(self._problem_of(failure))
                while self._waiting:
                    self._waiting.popleft().answer(told)
                continue
            durable = self._recorder.journal.durable_seq
            while self._waiting and self._waiting[0].submitted.receipt.seq <= durable:
                submitted, answer = self._waiting.popleft()
                answer({"type": "ack", "receipt": submitted.receipt.document(submitted.duplicate)})


def too_many() -> dict[str, Any]:
    """Return the answer to an action of a connection that has too many others under way."""
    detail = f"{WAITING_MAX} actions of this connection wait for their answer"
    return error_of(Problem(Code.QUEUE_FULL, detail, status=429, temporary=True, headers={"Retry-After": "1"}))


def error_of(problem: Problem) -> dict[str, Any]:
    """Return a problem as the fields of an error message: the members of problem+json, and when to try again."""
    members = problem.members()
    told: dict[str, Any] = {
        "type": "error",
        "code": members["code"],
        "title": members["title"],
        "detail": members["detail"],
        "allowed": [error["allowed"] for error in members["errors"] if "allowed" in error],
        "temporary": members["temporary"],
        "status": members["status"],
        "errors": members["errors"],
    }
    if "Retry-After" in problem.headers:
        told["retry_after_s"] = int(problem.headers["Retry-After"])
    return told
