"""Owners and agents: who counts, who may still come, whose keys open what."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config
from engine.events import OTHER, Event, PublicState, TickReport
from engine.journal import KeyRecord
from engine.messages import ORDER_UPDATE, OUTCOME, Kind, Status
from engine.state import SLOTS_USED, State, new_state
from server.live import registry as registry_module
from server.live.errors import OwnerFull, WorldFull
from server.live.receipts import RETENTION_TICKS, VALIDITY_TICKS_MAX
from server.live.registry import KEYS_KEPT, AgentRegistry, idempotency_hash

NO_KEY = bytes(32)


def config(**changes: Any) -> Config:
    """Return a world of few agents."""
    return Config(
        **{"residents": 2_000, "max_agents": 5, "order_book_max": 1_024, "agents_per_owner_max": 2, **changes}
    )


def report(tick: int, *decided: tuple[int, Kind, Status], gone: tuple[tuple[str, int], ...] = ()) -> TickReport:
    """Return the report of a tick that decided registrations and lost agents by events."""
    outcomes = np.zeros(len(decided), OUTCOME)
    for row, (agent, kind, status) in zip(outcomes, decided, strict=True):
        row["agent_id"], row["kind"], row["status"] = agent, kind, status
    events = tuple(Event(OTHER, i, tick, name, {"agent": agent}) for i, (name, agent) in enumerate(gone, 1))
    return TickReport(tick, outcomes, np.zeros(0, ORDER_UPDATE), events, PublicState(tick, {}, {}, {}, {}, {}))


def register(registry: AgentRegistry, *numbers: int, owner: int | None = None) -> None:
    """Begin registrations, each of an owner of its own unless one is given."""
    for number in numbers:
        registry.begin(number, owner or number, "")


@pytest.fixture
def state() -> State:
    """Return an empty world's state."""
    return new_state(config())


def test_a_pending_registration_counts_already(state: State) -> None:
    """Room is taken when a registration is accepted, not when its tick comes: a thousand at once do not overbook."""
    registry = AgentRegistry(config())

    register(registry, 1, 2, 3, 4, 5)

    assert (len(registry), registry.active) == (5, 0)
    with pytest.raises(WorldFull, match="5 agents"):
        registry.check_room(None)
    registry.apply(report(0, (1, Kind.REGISTER, Status.DONE), (2, Kind.REGISTER, Status.REJECTED)), state)
    assert (len(registry), registry.active) == (4, 1)
    registry.check_room(None)


def test_an_owner_may_have_so_many_agents(state: State) -> None:
    """The limit is per owner; one that leaves makes room when its tick has said so."""
    registry = AgentRegistry(config())
    register(registry, 1)
    register(registry, 2, owner=1)
    registry.apply(report(0, (1, Kind.REGISTER, Status.DONE), (2, Kind.REGISTER, Status.DONE)), state)

    with pytest.raises(OwnerFull, match="2 of 2"):
        registry.check_room(1)
    registry.check_room(None)
    gone = registry.apply(report(1, (2, Kind.UNREGISTER, Status.DONE)), state)

    assert gone == {2: "requested"}
    assert registry.agents_of(1) == [1]
    registry.check_room(1)


@pytest.mark.parametrize(("event", "reason"), [("agent_expired", "expired"), ("agent_defaulted", "defaulted")])
def test_agents_that_expire_or_default_are_gone(state: State, event: str, reason: str) -> None:
    """The world's own decision frees the place as well; a refused leave does not."""
    registry = AgentRegistry(config())
    register(registry, 1, 2)
    registry.apply(report(0, (1, Kind.REGISTER, Status.DONE), (2, Kind.REGISTER, Status.DONE)), state)

    gone = registry.apply(report(1, (2, Kind.UNREGISTER, Status.REJECTED), gone=((event, 1),)), state)

    assert gone == {1: reason}
    assert registry.owner_of_agent(1) is None
    assert registry.owner_of_agent(2) == 2


def test_a_slot_freed_with_a_write_off_counts_for_its_owner_until_it_is_over(state: State) -> None:
    """Leaving with a loss and coming back does not help: the old place counts for a while, for owner and world."""
    registry = AgentRegistry(config(max_agents=2))
    register(registry, 1)
    register(registry, 2, owner=1)
    registry.apply(report(0, (1, Kind.REGISTER, Status.DONE), (2, Kind.REGISTER, Status.DONE)), state)
    state.counters[SLOTS_USED], state.tick = 2, 1
    state.blocked_owner[1], state.blocked_until[1] = 1, 5

    registry.apply(report(1, (2, Kind.UNREGISTER, Status.DONE)), state)
    with pytest.raises(OwnerFull):
        registry.check_room(1)
    with pytest.raises(WorldFull):
        registry.check_room(None)
    for tick in (2, 3, 4):
        registry.apply(report(tick), state)

    assert registry.count_of(1) == 1, "tick 5, the next one, takes registrations again"
    registry.check_room(1)
    registry.check_room(None)


def test_keys_open_what_their_owner_has_and_revoked_ones_nothing() -> None:
    """A key stands for its owner; a replaced one is forgotten; the owner's other keys stay."""
    registry = AgentRegistry(config())
    register(registry, 1)
    registry.issue(KeyRecord(1, 1, b"a" * 32, NO_KEY))
    registry.issue(KeyRecord(1, 1, b"b" * 32, b"a" * 32))
    registry.issue(KeyRecord(1, 7, b"c" * 32, NO_KEY))

    assert registry.owner_of_key(b"a" * 32) is None
    assert registry.owner_of_key(b"b" * 32) == registry.owner_of_key(b"c" * 32) == 1
    assert registry.owner_of_key(NO_KEY) is None
    agent = registry.get(1)
    assert agent is not None
    assert agent.key_hash == b"b" * 32


def test_keys_outlive_the_last_agent(state: State) -> None:
    """An owner without agents may register again with the key it has."""
    registry = AgentRegistry(config())
    register(registry, 1)
    registry.issue(KeyRecord(1, 1, b"a" * 32, NO_KEY))
    registry.apply(report(0, (1, Kind.REGISTER, Status.DONE)), state)

    registry.apply(report(1, (1, Kind.UNREGISTER, Status.DONE)), state)

    assert registry.owner_of_key(b"a" * 32) == 1
    assert registry.agents_of(1) == []
    registry.check_room(1)


def test_an_idempotency_key_finds_its_registration_for_its_caller_only(state: State) -> None:
    """The same word from another caller is another word, and it is forgotten with the agent."""
    registry = AgentRegistry(config())
    registry.begin(1, 1, idempotency_hash(None, "word"))
    registry.begin(2, 1, idempotency_hash(1, "word"))
    registry.apply(report(0, (1, Kind.REGISTER, Status.DONE), (2, Kind.REGISTER, Status.DONE)), state)

    found = [registry.find_registration(owner, "word") for owner in (None, 1, 2)]
    registry.apply(report(1, (1, Kind.UNREGISTER, Status.DONE)), state)

    assert [agent and agent.number for agent in found] == [1, 2, None]
    assert registry.find_registration(None, "word") is None
    assert "word" not in idempotency_hash(None, "word")


def test_whose_an_agent_was_is_known_as_long_as_its_receipts_are_kept(state: State) -> None:
    """Who left may still ask what became of its actions; after the last receipt nobody knows it any more."""
    registry = AgentRegistry(config())
    register(registry, 1)
    registry.apply(report(0, (1, Kind.REGISTER, Status.DONE)), state)

    registry.apply(report(1, (1, Kind.UNREGISTER, Status.DONE)), state)
    kept = VALIDITY_TICKS_MAX + RETENTION_TICKS
    registry.apply(report(1 + kept), state)
    last = registry.owner_of_left_agent(1)
    registry.apply(report(2 + kept), state)

    assert registry.owner_of_agent(1) is None
    assert (last, registry.owner_of_left_agent(1)) == (1, None)


class Bots:
    """Agents that come and go, the registry that is told of it, and the rule of their owners' keys in plain words."""

    def __init__(self, **changes: Any) -> None:
        self.config = config(**{"max_agents": 1_000, "agents_per_owner_max": 2, **changes})
        self.state = new_state(self.config)
        self.registry = AgentRegistry(self.config)
        self.told: list[Callable[[AgentRegistry], object]] = []
        self.first: dict[int, bytes] = {}
        self.held: dict[int, tuple[int, bytes]] = {}
        """Agents that are there: owner and key."""
        self.left: dict[int, list[bytes]] = {}
        """Keys of an owner's other agents, in the order in which they left."""
        self.ended: list[bytes] = []
        self._numbers = count(1)

    def tell(self, news: Callable[[AgentRegistry], object]) -> None:
        """Tell the registry, and remember it as a journal does."""
        self.told.append(news)
        news(self.registry)

    def comes(self, owner: int | None = None, presented: bytes = NO_KEY) -> int:
        """Register an agent. owner: None for a new one."""
        number = next(self._numbers)
        left = self.left.setdefault(owner or number, [])
        ended = self.registry.surplus_key(owner, presented) if owner else NO_KEY
        surplus = next(one for one in left if one != presented) if len(left) > self.kept else NO_KEY
        assert ended == surplus
        self.tell(lambda registry: registry.begin(number, owner or number, ""))
        self._issue(owner or number, number, ended)
        if ended != NO_KEY:
            left.remove(ended)
        return number

    def asks_again(self, number: int) -> None:
        """Repeat the registration of an agent that is there."""
        self._issue(*self._owner_and(number), self.held[number][1])

    def goes(self, number: int) -> None:
        """Let an agent leave."""
        news = report(0, (number, Kind.UNREGISTER, Status.DONE))
        self.tell(lambda registry: registry.apply(news, self.state))
        owner, key_hash = self.held.pop(number)
        if number != owner:
            self.left[owner].append(key_hash)

    def starts_anew(self) -> None:
        """Save the registry and restore it."""
        arrays = self.registry.copy().arrays()
        self.registry = AgentRegistry(self.config)
        self.registry.restore(arrays, self.state)
        self.told = [lambda registry: registry.restore(arrays, self.state)]

    def is_replayed(self) -> None:
        """Tell another registry the same, from the last start on."""
        self.registry = AgentRegistry(self.config)
        for news in self.told:
            news(self.registry)

    @property
    def kept(self) -> int:
        """How many keys of agents that have left stay."""
        return max(registry_module.KEYS_KEPT, self.config.agents_per_owner_max)

    @property
    def valid(self) -> dict[bytes, int]:
        """What every key must open by the rule."""
        found = {key_hash: owner for owner, key_hash in self.first.items()}
        found |= {key_hash: owner for owner, key_hash in self.held.values()}
        return found | {key_hash: owner for owner, keys in self.left.items() for key_hash in keys}

    def _owner_and(self, number: int) -> tuple[int, int]:
        return self.held[number][0], number

    def _issue(self, owner: int, number: int, ended: bytes) -> None:
        key_hash = next(self._numbers).to_bytes(32, "big")
        self.tell(lambda registry: registry.issue(KeyRecord(owner, number, key_hash, ended)))
        self.held[number] = (owner, key_hash)
        if number == owner:
            self.first[owner] = key_hash
        if ended != NO_KEY:
            self.ended.append(ended)


def test_an_owner_that_registers_for_ever_has_so_many_keys() -> None:
    """The first, those of its agents, and the newest others; every further registration ends the oldest one."""
    bots = Bots()
    owner = bots.comes()
    keys = [bots.held[owner][1]]
    bots.goes(owner)
    for _ in range(100):
        number = bots.comes(owner, keys[0])
        keys.append(bots.held[number][1])
        bots.goes(number)

    valid = [key_hash for key_hash in keys if bots.registry.owner_of_key(key_hash) == owner]

    assert valid == [keys[0], *keys[-KEYS_KEPT - 1 :]]
    assert bots.ended == keys[1 : -KEYS_KEPT - 1]


def test_bots_that_all_left_at_once_come_back_each_with_its_key() -> None:
    """As many as an owner may have agents, however many that are."""
    bots = Bots(agents_per_owner_max=2 * KEYS_KEPT)
    owner = bots.comes()
    numbers = [owner, *(bots.comes(owner) for _ in range(2 * KEYS_KEPT - 1))]
    keys = [bots.held[number][1] for number in numbers]
    for number in numbers:
        bots.goes(number)

    for key_hash in keys:
        assert bots.registry.owner_of_key(key_hash) == owner
        bots.comes(owner, key_hash)


def test_a_key_does_not_end_with_the_registration_it_is_used_for() -> None:
    """Whoever misses the answer asks again with the same key."""
    bots = Bots()
    owner = bots.comes()
    oldest = bots.comes(owner)
    key_hash = bots.held[oldest][1]
    bots.goes(oldest)

    for _ in range(3 * KEYS_KEPT):
        bots.goes(bots.comes(owner, key_hash))

    assert bots.registry.owner_of_key(key_hash) == owner
    bots.comes(owner)
    assert bots.registry.owner_of_key(key_hash) is None


def test_keys_of_a_world_that_kept_all_stay_but_become_no_more(state: State) -> None:
    """A snapshot of before the bound is taken as it is: the oldest key is the first, the others go one for one."""
    old = AgentRegistry(config())
    numbers = np.arange(1, 101, dtype=np.int64)
    keys = [number.tobytes().ljust(32, b".") for number in numbers]
    arrays = old.copy().arrays()
    arrays["registry.owners"] = np.ones(100, np.int64)
    arrays["registry.keys"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
    arrays["registry.idle"] = np.ones(1, np.int64)
    registry = AgentRegistry(config())

    registry.restore(arrays, state)

    assert [registry.owner_of_key(key_hash) for key_hash in keys] == [1] * 100
    assert registry.surplus_key(1, keys[0]) == keys[1]
    registry.begin(101, 1, "")
    registry.issue(KeyRecord(1, 101, b"n" * 32, keys[1]))
    assert registry.surplus_key(1, keys[2]) == keys[3]
    assert len(registry.copy().keys) == 100


def test_the_keys_of_an_owner_that_is_forgotten_open_nothing(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, the first and those of later agents; whoever listens is told of each."""
    monkeypatch.setattr(registry_module, "OWNERS_IDLE_MAX", 1)
    bots = Bots()
    told: list[bytes] = []
    bots.registry.on_revoked = told.append
    owner, other = bots.comes(), bots.comes()
    second = bots.comes(owner)
    keys = [bots.held[owner][1], bots.held[second][1]]

    for number in (owner, second, other):
        bots.goes(number)

    assert told == keys
    assert [bots.registry.owner_of_key(key_hash) for key_hash in keys] == [None, None]
    assert bots.registry.owner_of_key(bots.first[other]) == other
    assert bots.registry.owners_forgotten == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(("comes", "comes", "goes", "goes", "asks again", "starts anew", "is replayed")),
              st.integers(0, 99), st.integers(0, 99)),
    min_size=10, max_size=60,
)  # fmt: skip


@given(STEPS)
def test_keys_are_those_of_the_rule_whatever_happens_and_over_every_start(steps: list[tuple[str, int, int]]) -> None:
    """Also in which order they end: what a snapshot holds and what a replay is told lead to the same keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry_module, "KEYS_KEPT", 2)
        bots = Bots()
        for what, one, other in steps:
            there = sorted(bots.held)
            if what == "comes" or not there:
                owners = sorted(bots.first)
                owner = owners[one % len(owners)] if owners and one % 8 else None
                own = [key_hash for key_hash, whose in bots.valid.items() if whose == owner]
                if owner is None or bots.registry.count_of(owner) < 2:
                    bots.comes(owner, own[other % len(own)] if own else NO_KEY)
            elif what == "goes":
                bots.goes(there[one % len(there)])
            elif what == "asks again":
                bots.asks_again(there[one % len(there)])
            elif what == "starts anew":
                bots.starts_anew()
            else:
                bots.is_replayed()

            assert dict(bots.registry.copy().keys) == bots.valid
            assert all(bots.registry.owner_of_key(key_hash) is None for key_hash in bots.ended)
            assert all(sum(whose == owner for whose in bots.valid.values()) <= 1 + 2 + 2 for owner in bots.first)
