"""The private channel `agent`: what an owner's agents did and what became of it, complete, in order, and only for it.

    subscribe -> what was missed, as far as it is kept | the accounts as they stand -> every tick in which something
    happened, one frame -> ...

A frame says which one comes before it, so that nothing can be missing unnoticed, and nothing is ever left out: a reader
that falls behind what is kept is closed with the code that says come back and resume. Accounts are made while the world
stands still, a few at a time, whenever somebody subscribes: they are how things are, the entries are how they came to
be. Source: DESIGN section 3 (channel `agent`), R9.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from arena_client import wire

from server.live.agent_frames import AGENT, accounts_frame, balances_of, entries_frame, entries_of
from server.live.agent_log import AgentLog, OwnerLog
from server.live.agent_records import PART_BITS, end_of
from server.live.errors import Frozen
from server.live.topics import Message, Subscription, TooFarBehind

QUIET_TICKS: Final = 100
"""After so many ticks in which nothing happened a frame without entries says so: a place to resume from grows old."""
PULL_BYTES: Final = 64 * 1024
"""Handed out at a time; the frame that passes it is the last one."""
ACCOUNTS_AT_ONCE: Final = 4
"""Accounts made in one turn of the loop, and in one frame: half a millisecond."""
ACCOUNTS_WAITING: Final = 16
"""Accounts that wait for a reader before no more are made for it."""
READ_AT: Final = "GET /api/agents/{agent_id}/actions/{client_action_id}"
"""Where what was missed can be read."""


@dataclass(slots=True, kw_only=True)
class AgentSubscription(Subscription):
    """A reader. owed: agents whose account it has not got; made: accounts it is to be given next.

    told: the tick up to which balances were given. notify: to be called when there is something to pull.
    """

    log: OwnerLog
    told: int
    notify: Callable[[], None]
    owed: deque[int] = field(default_factory=deque)
    made: deque[dict[str, Any]] = field(default_factory=deque)


class AgentTopic:
    """The channel of all owners. log: of what happened. account: an agent's account as the world stands.

    settled: waits until the world stands still. now: the last published tick and the time as sent_ns; sent_ns: of a
    time in ns since 1970. account: None for an agent that has left.
    """

    name = AGENT

    def __init__(
        self,
        epoch: str,
        log: AgentLog,
        account: Callable[[int], dict[str, Any] | None],
        settled: Callable[[], AbstractAsyncContextManager[None]],
        now: Callable[[], tuple[int | None, int]],
        sent_ns: Callable[[int], int],
    ) -> None:
        self.epoch = epoch
        self._log = log
        self._account = account
        self._settled = settled
        self._now = now
        self._sent_ns = sent_ns
        self._owing: deque[AgentSubscription] = deque()
        self._asked = asyncio.Event()

    @property
    def seq(self) -> int:
        """The position behind the last published tick."""
        return end_of(self._log.tick)

    def subscribe(
        self, epoch: str | None, seq: int | None, owner: int, notify: Callable[[], None]
    ) -> tuple[AgentSubscription, dict[str, Any]]:
        """Return a new subscription, after seq where that can be resumed, and what the acknowledgement says of it."""
        log = self._log.watch(owner)
        start, told = self._resume(log, epoch, seq)
        form: Hashable = (AGENT, owner)
        subscription = AgentSubscription(start, log=log, told=self._log.tick, notify=notify, form=form)
        subscription.owed.extend(sorted(log.agents))
        self._owe(subscription)
        return subscription, told

    def leave(self, subscription: Subscription) -> None:
        """End a subscription."""
        assert isinstance(subscription, AgentSubscription)
        subscription.owed.clear()
        self._log.unwatch(subscription.log)

    def pending(self, subscription: Subscription) -> bool:
        """Say whether there is something to pull."""
        assert isinstance(subscription, AgentSubscription)
        assert subscription.seq is not None
        log = subscription.log
        is_quiet = self.seq - subscription.seq >= QUIET_TICKS << PART_BITS
        return bool(subscription.made) or log.newest > subscription.seq or is_quiet

    def pull(self, subscription: Subscription, subprotocol: str) -> list[Message]:
        """Return the next frames for a subscription and move it on. Raises TooFarBehind."""
        assert isinstance(subscription, AgentSubscription)
        assert subscription.seq is not None
        if subscription.seq < subscription.log.floor:
            behind = (self.seq - subscription.seq) >> PART_BITS
            raise TooFarBehind(f"channel {AGENT}: {behind} ticks behind, more than is kept")
        frames = [self._accounts(subscription)] if subscription.made else []
        size, records = 0, subscription.log.after(subscription.seq)
        for i, record in enumerate(records):
            is_last = i == len(records) - 1
            frame = entries_frame(
                self.epoch,
                record.seq,
                record.base,
                self._sent_ns(record.unix_ns) if record.unix_ns else 0,
                entries_of(record),
                balances_of(subscription.log.balances, subscription.told) if is_last else [],
            )
            frames.append(frame)
            subscription.seq = record.seq
            if is_last:
                subscription.told = self._log.tick
            size += record.size
            if size > PULL_BYTES:
                break
        if not records and self.seq - subscription.seq >= QUIET_TICKS << PART_BITS:
            frames.append(entries_frame(self.epoch, self.seq, subscription.seq, self._now()[1], [], []))
            subscription.seq = self.seq
        return [Message(wire.encode(frame, subprotocol), AGENT, frame["type"], frame.get("seq")) for frame in frames]

    async def run(self) -> None:
        """Make the accounts that are owed, a few at a time, each as the world stands; until cancelled."""
        while True:
            await self._asked.wait()
            if not self._owing:
                self._asked.clear()
                continue
            try:
                async with self._settled():
                    self._pay(self._owing.popleft())
            except Frozen:
                # a world that stopped in the middle of a tick has no accounts to show; reads say so too
                self._owing.clear()
            await asyncio.sleep(0)

    def _pay(self, subscription: AgentSubscription) -> None:
        for _ in range(ACCOUNTS_AT_ONCE):
            if subscription.owed and (account := self._account(subscription.owed.popleft())) is not None:
                subscription.made.append(account)
        if subscription.owed and len(subscription.made) < ACCOUNTS_WAITING:
            self._owe(subscription)
        if subscription.made:
            subscription.notify()

    def _owe(self, subscription: AgentSubscription) -> None:
        if subscription.owed:
            self._owing.append(subscription)
            self._asked.set()

    def _accounts(self, subscription: AgentSubscription) -> dict[str, Any]:
        was_full = len(subscription.made) >= ACCOUNTS_WAITING
        accounts = [subscription.made.popleft() for _ in range(min(ACCOUNTS_AT_ONCE, len(subscription.made)))]
        if was_full:
            self._owe(subscription)
        tick, sent_ns = self._now()
        left = len(subscription.made) + len(subscription.owed)
        return accounts_frame(self.epoch, self._log.tick if tick is None else tick, sent_ns, accounts, left)

    def _resume(self, log: OwnerLog, epoch: str | None, seq: int | None) -> tuple[int, dict[str, Any]]:
        now = self.seq
        if epoch is None or seq is None:
            return now, {"seq": now, "resumed": False}
        if epoch != self.epoch or seq > now:
            return now, {"seq": now, "resumed": False, "reason": "ahead" if epoch == self.epoch else "epoch"}
        if seq >= log.floor:
            return seq, {"seq": now, "resumed": True}
        return log.floor, {
            "seq": now, "resumed": True, "missed_from": seq + 1, "missed_to": log.floor, "missed_at": READ_AT
        }  # fmt: skip
