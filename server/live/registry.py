"""Owners, their keys and their agents: who may act for whom, and who may still register.

Rebuilt from the journal on start. Keys are here as SHA-256 hashes only. Source: DESIGN D22; ECONOMY A13.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.agent_index import find, find_values, insert, remove, table_size
from engine.config import Config
from engine.events import TickReport
from engine.journal import KeyRecord
from engine.messages import Kind, Status
from engine.state import SLOTS_USED, State
from server import keys
from server.live.errors import OwnerFull, WorldFull
from server.live.receipts import RETENTION_TICKS, VALIDITY_TICKS_MAX

NO_KEY = bytes(32)
OPERATOR = 0
"""Owner of the operator's key: nobody, so that it opens nothing that belongs to agents."""
OWNERS_IDLE_MAX = 100_000
"""About 30 MB."""
_OWNERS_MIN = 1_024
_REASONS = {"agent_expired": "expired", "agent_defaulted": "defaulted"}


class Agent:
    """A registered agent, or one whose registration waits for its tick."""

    __slots__ = ("idempotency", "is_active", "key_hash", "number", "owner")

    def __init__(self, number: int, owner: int, idempotency: str) -> None:
        self.number = number
        self.owner = owner
        self.idempotency = idempotency
        self.key_hash = NO_KEY
        """Of the newest key issued with this registration."""
        self.is_active = False


class _Owners:
    """Owners of agents by number, for many questions at once. It grows as agents come."""

    def __init__(self) -> None:
        self._size(_OWNERS_MIN)

    def _size(self, capacity: int) -> None:
        self._numbers: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self._owners: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self._table: NDArray[np.int32] = np.zeros(table_size(capacity), np.int32)
        self._free = list(range(capacity - 1, -1, -1))

    def add(self, number: int, owner: int) -> None:
        """Take in an agent that is not there."""
        if not self._free:
            numbers, owners = self._numbers, self._owners
            self._size(2 * len(numbers))
            for pair in zip(numbers.tolist(), owners.tolist(), strict=True):
                self.add(*pair)
        slot = self._free.pop()
        self._numbers[slot], self._owners[slot] = number, owner
        insert(self._table, self._numbers, slot)

    def remove(self, number: int) -> None:
        """Let go of an agent that is there."""
        slot = find(self._table, self._numbers, number)
        remove(self._table, self._numbers, number)
        self._free.append(slot)

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return whose agents these are, 0 for those that are nobody's."""
        owners = np.empty(len(numbers), np.int64)
        find_values(self._table, self._numbers, self._owners, numbers, owners)
        return owners


def warm() -> None:
    """Load or compile the kernels of the look-up of owners."""
    owners = _Owners()
    owners.add(1, 1)
    owners.of(np.array([1]))
    owners.remove(1)


class AgentRegistry:
    """All agents that are registered or about to be, and every key that opens something.

    An owner is known by the number of its first registration. Keys stay valid when the owner's last agent is gone; of
    such owners OWNERS_IDLE_MAX are remembered, and the first of them is forgotten when there are more.
    """

    def __init__(self, config: Config) -> None:
        self.operator_hash = NO_KEY
        """Hash of the operator's key, NO_KEY while there is none."""
        self.follow(config)
        self._tick = -1
        self._agents: dict[int, Agent] = {}
        self._owners = _Owners()
        self._active = 0
        self._of_owner: dict[int, set[int]] = {}
        self._keys: dict[bytes, tuple[bytes, int]] = {}
        """Key hash -> the hash again, for a comparison in constant time, and the owner."""
        self._by_idempotency: dict[str, int] = {}
        self._owner_of_left: dict[int, int] = {}
        """Owners of agents that have left, for as long as a receipt of theirs may be kept."""
        self._left: deque[tuple[int, int]] = deque()
        """When each of them left, and its number, oldest first."""
        self._keys_of_owner: dict[int, list[bytes]] = {}
        self._idle_owners: dict[int, None] = {}
        """Owners whose last agent has left, the one that did so first in front."""
        self.on_revoked: Callable[[bytes], None] = lambda key_hash: None
        """Called with the hash of a key that opens nothing any more."""
        self.owners_forgotten = 0
        """Owners without agents whose keys had to go."""
        self._blocked_owner: NDArray[np.int64] = np.zeros(0, np.int64)
        self._blocked_until: NDArray[np.int64] = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Return how many agents are registered or wait for it."""
        return len(self._agents)

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    @property
    def active(self) -> int:
        """Agents the world knows."""
        return self._active

    def follow(self, config: Config) -> None:
        """Go by the limits of a config: an operator may set them."""
        self._agents_max = config.max_agents
        self._agents_per_owner_max = config.agents_per_owner_max

    @property
    def has_operator(self) -> bool:
        """Whether there is an operator's key."""
        return self.operator_hash != NO_KEY

    def is_operator(self, key_hash: bytes) -> bool:
        """Say whether a key is the operator's."""
        return self.has_operator and keys.same(self.operator_hash, key_hash)

    def owner_of_key(self, key_hash: bytes) -> int | None:
        """Return whom a key belongs to; None for one that was never issued or was revoked."""
        known = self._keys.get(key_hash)
        return known[1] if known is not None and keys.same(known[0], key_hash) else None

    def get(self, number: int) -> Agent | None:
        """Return an agent that is registered or waits for it."""
        return self._agents.get(number)

    def owner_of_agent(self, number: int) -> int | None:
        """Return whose agent it is; None for one that is not registered (any more)."""
        agent = self._agents.get(number)
        return None if agent is None else agent.owner

    def owners_of_agents(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return whose agents these are, 0 for those that are not registered (any more)."""
        return self._owners.of(numbers)

    def owner_of_left_agent(self, number: int) -> int | None:
        """Return whose agent it was; None for one that never was, that is still there, or that left long ago."""
        return self._owner_of_left.get(number)

    def agents_of(self, owner: int) -> list[int]:
        """Return an owner's agents by number, those included that wait for their registration."""
        return sorted(self._of_owner.get(owner, ()))

    def find_registration(self, owner: int | None, idempotency_key: str) -> Agent | None:
        """Return the agent this caller registered under that Idempotency-Key, while it exists."""
        number = self._by_idempotency.get(idempotency_hash(owner, idempotency_key))
        return None if number is None else self._agents[number]

    def check_room(self, owner: int | None) -> None:
        """See to it that one more agent may register. owner: None for a new one. Raises OwnerFull, WorldFull."""
        if owner is not None and (count := self.count_of(owner)) >= self._agents_per_owner_max:
            raise OwnerFull(count, self._agents_per_owner_max)
        # a slot that is still blocked for its old owner is taken by nobody
        if len(self._agents) + int(np.count_nonzero(self._blocked_until > self._tick + 1)) >= self._agents_max:
            raise WorldFull(self._agents_max)

    def count_of(self, owner: int) -> int:
        """Return how many agents count for an owner in the next tick: its own and slots blocked by a write-off."""
        blocked = np.count_nonzero((self._blocked_owner == owner) & (self._blocked_until > self._tick + 1))
        return len(self._of_owner.get(owner, ())) + int(blocked)

    def begin(self, number: int, owner: int, idempotency: str) -> Agent:
        """Take in an accepted registration. idempotency: what idempotency_hash gives, or empty."""
        agent = self._agents[number] = Agent(number, owner, idempotency)
        self._owners.add(number, owner)
        self._of_owner.setdefault(owner, set()).add(number)
        self._idle_owners.pop(owner, None)
        if idempotency:
            self._by_idempotency[idempotency] = number
        return agent

    def issue(self, record: KeyRecord) -> None:
        """Take in a new key, and revoke the one it replaces. There is one operator's key: the newest."""
        if record.owner == OPERATOR:
            self.operator_hash = record.key_hash
            return
        owned = self._keys_of_owner.setdefault(record.owner, [])
        if self._keys.pop(record.revoked, None) is not None:
            owned.remove(record.revoked)
            self.on_revoked(record.revoked)
        if record.key_hash not in self._keys:
            owned.append(record.key_hash)
        self._keys[record.key_hash] = (record.key_hash, record.owner)
        if (agent := self._agents.get(record.registration)) is not None:
            agent.key_hash = record.key_hash

    def apply(self, report: TickReport, state: State) -> dict[int, str]:
        """Take in who came and who went in a tick; return why for each agent that went. state: after that tick."""
        self._tick = report.tick
        gone: dict[int, str] = {}
        outcomes, kinds = report.outcomes, report.outcomes["kind"]
        # two comparisons: np.isin takes 12 us for two kinds, in every replayed tick of a start as well
        for row in outcomes[(kinds == Kind.REGISTER) | (kinds == Kind.UNREGISTER)]:
            number, is_done = int(row["agent_id"]), row["status"] == Status.DONE
            if row["kind"] == Kind.REGISTER and is_done:
                self._agents[number].is_active = True
                self._active += 1
            elif row["kind"] == Kind.REGISTER:
                gone[number] = "refused"
            elif is_done:
                gone[number] = "requested"
        gone |= {event.data["agent"]: _REASONS[event.name] for event in report.events if event.name in _REASONS}
        for number in gone:
            self._remove(number)
        if gone:
            self._block(state)
        while self._left and self._left[0][0] < report.tick - VALIDITY_TICKS_MAX - RETENTION_TICKS:
            del self._owner_of_left[self._left.popleft()[1]]
        return gone

    def _remove(self, number: int) -> None:
        agent = self._agents.pop(number)
        self._owners.remove(number)
        self._owner_of_left[number] = agent.owner
        self._left.append((self._tick, number))
        self._active -= agent.is_active
        mates = self._of_owner[agent.owner]
        mates.discard(number)
        if not mates:
            del self._of_owner[agent.owner]
            self._idle_owners[agent.owner] = None
            if len(self._idle_owners) > OWNERS_IDLE_MAX:
                self._forget_owner(next(iter(self._idle_owners)))
        if agent.idempotency:
            del self._by_idempotency[agent.idempotency]

    def _forget_owner(self, owner: int) -> None:
        del self._idle_owners[owner]
        for key_hash in self._keys_of_owner.pop(owner, ()):
            del self._keys[key_hash]
            self.on_revoked(key_hash)
        self.owners_forgotten += 1

    def copy(self) -> RegistryCopy:
        """Return what is in it now, for a snapshot: what later records change of it, their replay changes again."""
        return RegistryCopy(
            list(self._agents.values()), list(self._keys.values()), list(self._left), dict(self._owner_of_left),
            list(self._idle_owners), self.operator_hash,
        )  # fmt: skip

    def restore(self, arrays: Mapping[str, NDArray[Any]], state: State) -> None:
        """Take back what RegistryCopy.arrays made. state: of the snapshot."""
        known = set(state.agent_id[: int(state.counters[SLOTS_USED])].tolist())
        rows = (arrays["registry.agents"], arrays["registry.agent_keys"], arrays["registry.idempotency"])
        for (number, owner), key_hash, idempotency in zip(*(array.tolist() for array in rows), strict=True):
            agent = self.begin(number, owner, bytes(idempotency).hex() if any(idempotency) else "")
            agent.key_hash = bytes(key_hash)
            agent.is_active = number in known
            self._active += agent.is_active
        for owner, key_hash in zip(arrays["registry.owners"].tolist(), arrays["registry.keys"].tolist(), strict=True):
            self._keys[bytes(key_hash)] = (bytes(key_hash), owner)
            self._keys_of_owner.setdefault(owner, []).append(bytes(key_hash))
        for tick, number, owner in arrays["registry.left"].tolist():
            self._left.append((tick, number))
            self._owner_of_left[number] = owner
        self._idle_owners = dict.fromkeys(arrays["registry.idle"].tolist())
        self.operator_hash = bytes(arrays["registry.operator"][0].tolist())
        self._tick = state.tick
        self._block(state)

    def _block(self, state: State) -> None:
        used = int(state.counters[SLOTS_USED])
        is_blocked = state.blocked_until[:used] > state.tick
        self._blocked_owner = state.blocked_owner[:used][is_blocked]
        self._blocked_until = state.blocked_until[:used][is_blocked]


class RegistryCopy(NamedTuple):
    """What a registry held after a tick. keys: hash and owner; left: tick and number; idle: owners without agents."""

    agents: list[Agent]
    keys: list[tuple[bytes, int]]
    left: list[tuple[int, int]]
    owner_of_left: dict[int, int]
    idle: list[int]
    operator_hash: bytes

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return it as arrays; AgentRegistry.restore takes them back."""
        agents, keys = self.agents, self.keys
        left = [(tick, number, self.owner_of_left[number]) for tick, number in self.left]
        return {
            "registry.agents": _pairs(agents),
            "registry.agent_keys": _bytes_array([one.key_hash for one in agents]),
            "registry.idempotency": _bytes_array(
                [bytes.fromhex(one.idempotency) if one.idempotency else NO_KEY for one in agents]
            ),
            "registry.owners": np.array([owner for _, owner in keys], np.int64),
            "registry.keys": _bytes_array([key_hash for key_hash, _ in keys]),
            "registry.left": np.array(left, np.int64).reshape(-1, 3),
            "registry.idle": np.array(self.idle, np.int64),
            "registry.operator": _bytes_array([self.operator_hash]),
        }


def _pairs(agents: list[Agent]) -> NDArray[np.int64]:
    """Return number and owner of each agent; taken one by one, others run in between: np.array() holds them all up."""
    return np.fromiter((value for one in agents for value in (one.number, one.owner)), np.int64).reshape(-1, 2)


def _bytes_array(values: list[bytes]) -> NDArray[np.uint8]:
    """Return hashes of 32 bytes as rows."""
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, len(NO_KEY))


def idempotency_hash(owner: int | None, idempotency_key: str) -> str:
    """Return what is kept of an Idempotency-Key: whoever knows it gets a key, so it is a secret like one.

    It counts for one caller only: owner, or None for those who come without a key.
    """
    return hashlib.sha256(f"{owner or 0}\0{idempotency_key}".encode("utf-8", "surrogatepass")).hexdigest()
