"""Cancel on disconnect: the orders of an owner's agents end with the connection that asked for it, and with the server.

While such a connection lives, the agents that have open orders have their dead-man's switch set ahead, again and again,
by actions that are journaled like any other: if this server dies, the world itself cancels the orders. An agent without
orders costs nothing, one with orders a record a minute. When the last such connection of an owner ends, all orders of
its agents are cancelled at once and the switches taken back. A server that stops leaves them set: who comes back in
time keeps its orders. Source: DESIGN D8, D22; specification of `cancel_after`: ECONOMY A13.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.agent_index import find
from engine.journal import FINGERPRINT_SIZE
from engine.messages import ACTION, Kind
from engine.state import State
from server.live.errors import Full, LiveError, ReceiptsFull
from server.live.receipts import VALIDITY_TICKS
from server.live.recorder import Recorder
from server.metrics import Metrics

SET_TICKS: Final = 1_200
"""How far ahead a switch is set: two minutes of ten ticks a second. So long orders outlive a server that died."""
RENEW_TICKS: Final = 600
"""Ticks after which it is set again."""
A_TICK: Final = 250
"""Actions of this part's own in one tick: a crowd that disconnects at once is worked off over several."""
OWN_ID: Final = "~"
"""First character of the client_action_ids of the server's own actions; no client can use it."""
_OWN: Final = ord(OWN_ID)
_RESTS: Final = (int(Kind.LIMIT), int(Kind.REPLACE))


class Switches:
    """Which owners asked for it, and how far ahead the switches of their agents are set.

    state: of the world; read only while it stands still, in `publish`.
    """

    def __init__(self, recorder: Recorder, state: State, metrics: Metrics) -> None:
        self._recorder = recorder
        self._registry = recorder.registry
        self._state = state
        self._counts = {what: metrics.switches.labels(what) for what in ("set", "cancelled", "put_off")}
        self._tick = state.tick
        self._holds: Counter[int] = Counter()
        """Connections that asked for it, by owner."""
        self._set: dict[int, int] = {}
        """Tick until which each agent's switch is set, of those that were ever set by us and are not over."""
        self._own: set[int] = set()
        """Agents whose owner sets the switch: theirs is left alone."""
        self._due: deque[tuple[int, int]] = deque()
        """When to look again after an agent, and its number; those due first in front."""
        self._next: dict[int, int] = {}
        """The one of them that counts, by agent."""
        self._jobs: deque[tuple[int, Kind]] = deque()
        """What is to be journaled for an agent, oldest first."""

    def hold(self, owner: int) -> None:
        """Take note that a connection of an owner asked for it; what is open is covered from the next tick on."""
        self._holds[owner] += 1
        if self._holds[owner] > 1:
            return
        agents = self._registry.agents_of(owner)
        if self._jobs:
            # what its last connection left to be done is done before its new orders come, where there is room; a
            # switch that is to be taken back stays, or it would be one that covers those orders
            own = set(agents)
            mine = [job for job in self._jobs if job[0] in own and job[1] == Kind.CANCEL_ALL]
            self._jobs = deque([*mine, *(job for job in self._jobs if job[0] not in own)])
            self._work(len(mine))
        for agent in agents:
            self._look_soon(agent)

    def release(self, owner: int, *, is_stopping: bool) -> None:
        """Take note that such a connection ended. is_stopping: because the server stops: then nothing is cancelled."""
        self._holds[owner] -= 1
        if self._holds[owner] > 0:
            return
        del self._holds[owner]
        agents = self._registry.agents_of(owner)
        self._own.difference_update(agents)
        if is_stopping:
            return
        for agent in agents:
            self._jobs.append((agent, Kind.CANCEL_ALL))
            if self._set.get(agent, self._tick) > self._tick:
                self._jobs.append((agent, Kind.CANCEL_AFTER))
        self._work(A_TICK)

    def accepted(self, rows: NDArray[np.void], names: NDArray[np.uint8]) -> None:
        """Look at actions that were just journaled: one that may leave an order must not leave it uncovered."""
        if not self._holds:
            return
        columns = (rows["agent_id"].tolist(), rows["kind"].tolist(), names[:, 0].tolist(), rows["quantity"].tolist())
        for agent, kind, first, ticks in zip(*columns, strict=True):
            if kind == Kind.CANCEL_AFTER and first != _OWN:
                self._set_by_owner(agent, ticks)
            elif kind in _RESTS and self._is_held(agent) and self._set.get(agent, 0) < self._tick + RENEW_TICKS:
                # in the same step of the loop, so that both records are in one batch on their way to the disk
                self._do(agent, Kind.CANCEL_AFTER)

    def _set_by_owner(self, agent: int, ticks: int) -> None:
        """Leave an agent alone whose owner sets the switch; cover it again when the owner takes it back."""
        if self._registry.owner_of_agent(agent) not in self._holds:
            return
        self._set.pop(agent, None)
        if ticks:
            self._own.add(agent)
        else:
            self._own.discard(agent)
            self._look_soon(agent)

    def publish(self, tick: int) -> None:
        """Do what a tick makes due; the world must stand still."""
        self._tick = tick
        left = A_TICK - self._work(A_TICK)
        while left > 0 and self._due and self._due[0][0] <= tick:
            due, agent = self._due.popleft()
            if self._next.get(agent) != due:
                continue
            del self._next[agent]
            if self._is_held(agent) and self._has_orders(agent):
                if not self._do(agent, Kind.CANCEL_AFTER):
                    break
                left -= 1
        if tick % RENEW_TICKS == 0:
            self._set = {agent: until for agent, until in self._set.items() if until > tick}

    def _look_soon(self, agent: int) -> None:
        self._next[agent] = self._tick
        self._due.appendleft((self._tick, agent))

    def _is_held(self, agent: int) -> bool:
        return agent not in self._own and self._registry.owner_of_agent(agent) in self._holds

    def _has_orders(self, agent: int) -> bool:
        slot = find(self._state.agent_index, self._state.agent_id, agent)
        return slot >= 0 and int(self._state.agent_orders[slot]) > 0

    def _work(self, most: int) -> int:
        """Journal what waits, at most so many actions; return how many."""
        for done in range(most):
            if not self._jobs:
                return done
            agent, kind = self._jobs.popleft()
            if not self._do(agent, kind, is_over=True):
                return most
        return most

    def _do(self, agent: int, kind: Kind, *, is_over: bool = False) -> bool:
        """Journal one action; return whether there was room. is_over: the connection has ended, so is the covering."""
        row = np.zeros(1, ACTION)
        row["agent_id"], row["kind"], row["market"] = agent, kind, -1
        row["quantity"] = 0 if is_over else SET_TICKS
        row["valid_until"] = self._tick + VALIDITY_TICKS
        try:
            self._recorder.submit(row, f"{OWN_ID}switch:{self._recorder.journal.next_seq}", _fingerprint(row))
        except (Full, ReceiptsFull):
            # tried again in the next tick, ahead of all others
            self._counts["put_off"].inc()
            if is_over:
                self._jobs.appendleft((agent, kind))
            else:
                self._look_soon(agent)
            return False
        except LiveError:
            # the world takes no input any more; the switch that is set will do its work when it goes on
            return False
        if is_over:
            self._counts["cancelled"].inc(kind == Kind.CANCEL_ALL)
            if kind == Kind.CANCEL_AFTER:
                self._set.pop(agent, None)
            return True
        self._counts["set"].inc()
        self._set[agent] = self._tick + SET_TICKS
        self._next[agent] = self._tick + RENEW_TICKS
        self._due.append((self._tick + RENEW_TICKS, agent))
        return True


def _fingerprint(row: NDArray[np.void]) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=FINGERPRINT_SIZE).digest()
