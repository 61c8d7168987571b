"""Owners and agents: who counts, who may still come, whose keys open what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.config import Config
from engine.events import OTHER, Event, PublicState, TickReport
from engine.journal import KeyRecord
from engine.messages import ORDER_UPDATE, OUTCOME, Kind, Status
from engine.state import SLOTS_USED, State, new_state
from server.live.errors import OwnerFull, WorldFull
from server.live.receipts import RETENTION_TICKS, VALIDITY_TICKS_MAX
from server.live.registry import AgentRegistry, idempotency_hash

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
