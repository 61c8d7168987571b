"""Owners, their keys and their agents: who may act for whom, and who may still register.

Rebuilt from the journal on start. Keys are here as SHA-256 hashes only. Source: DESIGN D22; ECONOMY A13.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.events import TickReport
from engine.journal import KeyRecord
from engine.messages import Kind, Status
from engine.state import SLOTS_USED, State
from server import keys
from server.live.errors import OwnerFull, WorldFull
from server.live.owner_index import LeftAgents, OwnerIndex
from server.live.receipts import RETENTION_TICKS, VALIDITY_TICKS_MAX

NO_KEY = bytes(32)
OPERATOR = 0
"""Owner of the operator's key: nobody, so that it opens nothing that belongs to agents."""
OWNERS_IDLE_MAX = 100_000
"""About 30 MB, and 250 B for each key beside the first."""
KEYS_KEPT = 16
"""Of an owner's agents that have left, beside its first one. More than agents_per_owner_max is by default, so that bots
which all left at once may all come back with the key each has."""
AT_ONCE = 500
"""Agents or keys that are gone through between two pauses: about a tenth of a millisecond."""
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


class AgentRegistry:
    """All agents that are registered or about to be, and every key that opens something.

    An owner is known by the number of its first registration. Its first key stays valid, so do the keys of its agents,
    and those of the KEYS_KEPT agents that left last (agents_per_owner_max, when that is more). A registration that
    finds more ends one of them: surplus_key says which, and its record has it, so that a replay ends the same one. Keys
    stay valid when the owner's last agent is gone; of such owners OWNERS_IDLE_MAX are remembered, and the first of them
    is forgotten when there are more.
    """

    def __init__(self, config: Config) -> None:
        self.operator_hash = NO_KEY
        """Hash of the operator's key, NO_KEY while there is none."""
        self.follow(config)
        self._tick = -1
        self._agents: dict[int, Agent] = {}
        self._owners = OwnerIndex()
        self._active = 0
        self._of_owner: dict[int, set[int]] = {}
        self._keys: dict[bytes, tuple[bytes, int]] = {}
        """Key hash -> the hash again, for a comparison in constant time, and the owner.

        Of one owner's keys that belong to no agent, the first one comes first, the others as their agents left: so
        restore tells them apart.
        """
        self._by_idempotency: dict[str, int] = {}
        self._left = LeftAgents()
        """Agents that have left, for as long as a receipt of theirs may be kept."""
        self._first_key: dict[int, bytes] = {}
        """Of each owner: the newest key of its first registration."""
        self._spare: dict[int, dict[bytes, None]] = {}
        """An owner's other keys whose agents have left, the one that left first in front; no entry for none."""
        # not a dict: to find its first entry takes the longer the more have gone from its front
        self._idle_owners: OrderedDict[int, None] = OrderedDict()
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
        return self._left.owner_of(number)

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

    def surplus_key(self, owner: int, presented: bytes) -> bytes:
        """Return the key that ends when an owner registers another agent, NO_KEY when it has none too many.

        presented: the key this is asked for with; it stays, for whoever misses the answer asks again with it.
        """
        spare = self._spare.get(owner, {})
        if len(spare) <= max(KEYS_KEPT, self._agents_per_owner_max):
            return NO_KEY
        return next(key_hash for key_hash in spare if key_hash != presented)

    def issue(self, record: KeyRecord) -> None:
        """Take in a new key, and end the one it says. There is one operator's key: the newest."""
        if record.owner == OPERATOR:
            self.operator_hash = record.key_hash
            return
        if self._keys.pop(record.revoked, None) is not None:
            self._drop_spare(record.owner, record.revoked)
            self.on_revoked(record.revoked)
        self._keys[record.key_hash] = (record.key_hash, record.owner)
        agent = self._agents.get(record.registration)
        if agent is not None:
            agent.key_hash = record.key_hash
        if record.registration == record.owner:
            self._first_key[record.owner] = record.key_hash
            for key_hash in self._spare.get(record.owner, ()):
                self._move_last(key_hash)
        elif agent is None:
            self._spare.setdefault(record.owner, {})[record.key_hash] = None

    def _drop_spare(self, owner: int, key_hash: bytes) -> None:
        if key_hash in (spare := self._spare.get(owner, {})):
            del spare[key_hash]
            if not spare:
                del self._spare[owner]

    def _move_last(self, key_hash: bytes) -> None:
        self._keys[key_hash] = self._keys.pop(key_hash)

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
        self._left.forget_before(report.tick - VALIDITY_TICKS_MAX - RETENTION_TICKS)
        return gone

    def _remove(self, number: int) -> None:
        agent = self._agents.pop(number)
        self._owners.remove(number)
        self._left.add(self._tick, number, agent.owner)
        self._active -= agent.is_active
        if number != agent.owner and agent.key_hash in self._keys:
            self._move_last(agent.key_hash)
            self._spare.setdefault(agent.owner, {})[agent.key_hash] = None
        mates = self._of_owner[agent.owner]
        mates.discard(number)
        if not mates:
            del self._of_owner[agent.owner]
            self._idle_owners[agent.owner] = None
            if len(self._idle_owners) > OWNERS_IDLE_MAX:
                self._forget_owner(self._idle_owners.popitem(last=False)[0])
        if agent.idempotency:
            del self._by_idempotency[agent.idempotency]

    def _forget_owner(self, owner: int) -> None:
        first = self._first_key.pop(owner, None)
        for key_hash in filter(None, (first, *self._spare.pop(owner, ()))):
            del self._keys[key_hash]
            self.on_revoked(key_hash)
        self.owners_forgotten += 1

    def copy(self) -> RegistryCopy:
        """Return what is in it now, for a snapshot: what later records change of it, their replay changes again."""
        return RegistryCopy(
            list(self._agents.values()), list(self._keys.values()), self._left.rows(), list(self._idle_owners),
            self.operator_hash,
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
        held = {agent.key_hash for agent in self._agents.values()}
        for owner, key_hash in zip(arrays["registry.owners"].tolist(), arrays["registry.keys"].tolist(), strict=True):
            self._keys[bytes(key_hash)] = (bytes(key_hash), owner)
            self._place(owner, bytes(key_hash), held)
        for tick, number, owner in arrays["registry.left"].tolist():
            self._left.add(tick, number, owner)
        self._idle_owners = OrderedDict.fromkeys(arrays["registry.idle"].tolist())
        self.operator_hash = bytes(arrays["registry.operator"][0].tolist())
        self._tick = state.tick
        self._block(state)

    def _place(self, owner: int, key_hash: bytes, held: set[bytes]) -> None:
        """Take back what an owner's key was. held: the keys of agents."""
        first = self._agents.get(owner)
        is_gone = first is None and owner not in self._first_key and key_hash not in held
        if is_gone or (first is not None and first.key_hash == key_hash):
            self._first_key[owner] = key_hash
        elif key_hash not in held:
            self._spare.setdefault(owner, {})[key_hash] = None

    def _block(self, state: State) -> None:
        used = int(state.counters[SLOTS_USED])
        is_blocked = state.blocked_until[:used] > state.tick
        self._blocked_owner = state.blocked_owner[:used][is_blocked]
        self._blocked_until = state.blocked_until[:used][is_blocked]


class RegistryCopy(NamedTuple):
    """What a registry held after a tick. keys: hash and owner; left: LeftAgents.rows; idle: owners without agents."""

    agents: list[Agent]
    keys: list[tuple[bytes, int]]
    left: NDArray[np.int64]
    idle: list[int]
    operator_hash: bytes

    def arrays(self, pause: Callable[[], None] = lambda: None) -> dict[str, NDArray[Any]]:
        """Return it as arrays; AgentRegistry.restore takes them back.

        pause: called after every few hundred agents or keys. A thread that goes through 100,000 without one has the
        interpreter for a millisecond each time the event loop gives it up: that went on for 200 ms (loadtest.crowd).
        """
        agents, keys = self.agents, self.keys

        def hashes(values: list[Any], of: Callable[[Any], bytes]) -> NDArray[np.uint8]:
            """Return a hash of 32 bytes for each value, as rows."""
            joined = b"".join(_in_parts(values, pause, lambda part: b"".join(map(of, part))))
            return np.frombuffer(joined, np.uint8).reshape(-1, len(NO_KEY))

        def numbers(values: list[Any], of: Callable[[Any], tuple[int, ...]]) -> NDArray[np.int64]:
            parts = list(_in_parts(values, pause, lambda part: np.array(list(map(of, part)), np.int64)))
            return np.concatenate(parts) if parts else np.zeros(0, np.int64)

        return {
            "registry.agents": numbers(agents, lambda one: (one.number, one.owner)).reshape(-1, 2),
            "registry.agent_keys": hashes(agents, lambda one: one.key_hash),
            "registry.idempotency": hashes(
                agents, lambda one: bytes.fromhex(one.idempotency) if one.idempotency else NO_KEY
            ),
            "registry.owners": numbers(keys, lambda key: (key[1],)).reshape(-1),
            "registry.keys": hashes(keys, lambda key: key[0]),
            "registry.left": self.left,
            "registry.idle": np.array(self.idle, np.int64),
            "registry.operator": hashes([self.operator_hash], lambda key_hash: key_hash),
        }


def _in_parts(values: list[Any], pause: Callable[[], None], of: Callable[[list[Any]], Any]) -> Iterator[Any]:
    """Yield what becomes of AT_ONCE values after another, with a pause between them."""
    for first in range(0, len(values), AT_ONCE):
        if first:
            pause()
        yield of(values[first : first + AT_ONCE])


def idempotency_hash(owner: int | None, idempotency_key: str) -> str:
    """Return what is kept of an Idempotency-Key: whoever knows it gets a key, so it is a secret like one.

    It counts for one caller only: owner, or None for those who come without a key.
    """
    return hashlib.sha256(f"{owner or 0}\0{idempotency_key}".encode("utf-8", "surrogatepass")).hexdigest()
