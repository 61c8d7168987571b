"""Finds and disasters strike as often and as hard as told, and every flag that turns is reported once."""

from __future__ import annotations

import numpy as np
import pytest

from engine import state as at
from engine.config import Config
from engine.phases import emission
from engine.phases.emission import (
    CATASTROPHE_STRUCK,
    NATURAL,
    POLITICAL,
    RESOURCE_DISCOVERED,
    catastrophe,
    catastrophe_happens,
    discovery,
    discovery_happens,
    find_size,
    inject_event,
)
from engine.rng import STREAM_EVENTS, key, mix32, seed_bytes
from engine.state import State
from tests.support.macro_states import CONFIG, begin_tick, changed_arrays, disturbed_state, fresh_state

SCARCITY = np.array([0.15, 0.15, 0.15, 0.3, 0.3, 0.3, 0.3])
NEVER = Config(
    residents=2_000, max_agents=8, order_book_max=1_024, discovery_probability=0.0, catastrophe_probability=0.0
)
ALWAYS = Config(
    residents=2_000, max_agents=8, order_book_max=1_024, discovery_probability=1.0, catastrophe_probability=1.0
)


@pytest.fixture(scope="module")
def seeds() -> list[int]:
    return [key(seed_bytes(9), tick, STREAM_EVENTS)[0] for tick in range(60_000)]


def test_discoveries_come_as_often_as_told(seeds: list[int]) -> None:
    """.005 a tick, within four standard deviations: 300 +- 70 in 60 000 ticks."""
    found = sum(discovery_happens(seed, 0.005) for seed in seeds)

    assert found == pytest.approx(300, abs=70)
    assert sum(discovery_happens(seed, 0.0) for seed in seeds) == 0
    assert all(discovery_happens(seed, 1.0) for seed in seeds)


def test_catastrophes_come_as_often_as_told(seeds: list[int]) -> None:
    assert sum(catastrophe_happens(seed, 0.01) for seed in seeds) == pytest.approx(600, abs=98)
    assert sum(catastrophe_happens(seed, 0.0001) for seed in seeds) == pytest.approx(6, abs=6)


def test_finds_and_disasters_are_independent(seeds: list[int]) -> None:
    both = sum(discovery_happens(seed, 0.1) and catastrophe_happens(seed, 0.1) for seed in seeds)

    assert both == pytest.approx(600, abs=98)


def test_finds_are_of_four_resources_equally(seeds: list[int]) -> None:
    resources = [discovery(seed, SCARCITY)[0] for seed in seeds[:8_000]]

    counts = {m: resources.count(m) for m in set(resources)}
    assert set(counts) == {1, 2, 3, 7}
    assert min(counts.values()) > 1_850


def test_disasters_hit_all_seven_resources_and_both_kinds(seeds: list[int]) -> None:
    struck = [catastrophe(seed) for seed in seeds[:7_000]]

    counts = [sum(resource == m for resource, _, _ in struck) for m in range(1, 8)]
    assert min(counts) > 880
    assert sum(kind == POLITICAL for _, _, kind in struck) == pytest.approx(3_500, abs=170)


def test_sizes_have_a_pareto_tail_of_two(seeds: list[int]) -> None:
    """P(size > 2 s0) = 1/4 of an uncut Pareto of alpha 2; cuts at .15 and .4."""
    finds = np.array([discovery(seed, np.zeros(7))[1] for seed in seeds[:8_000]])
    losses = np.array([catastrophe(seed)[1] for seed in seeds[:8_000]])

    assert (finds > 2 * 0.004).mean() == pytest.approx(0.25, abs=0.02)
    assert (losses > 2 * 0.05).mean() == pytest.approx(0.25, abs=0.02)
    assert finds.max() <= 0.15
    assert losses.max() <= 0.4
    assert losses.min() >= 0.05


def test_find_size_answers_to_scarcity() -> None:
    assert find_size(1.0, 0.0) == pytest.approx(0.004)
    assert find_size(0.25, 0.5) == pytest.approx(0.032)
    assert find_size(1e-9, 0.5) == 0.15


def test_draws_are_those_of_the_specification() -> None:
    e = 0x12345678
    h = int(mix32(e + 1))
    u = (int(mix32(h)) + 1) / (2**32 + 1)
    e2 = int(mix32(e + 777))
    u2 = (int(mix32(e2 + 5)) + 1) / (2**32 + 1)

    resource, size = discovery(e, SCARCITY)
    assert resource == (1, 2, 3, 7)[h % 4]
    assert size == min(0.15, 0.008 / u**0.5 * (0.5 + 3 * SCARCITY[resource - 1]))
    assert catastrophe(e) == (
        1 + int(mix32(e2 + 3)) % 7,
        min(0.4, 0.05 / u2**0.5),
        POLITICAL if int(mix32(e2 + 6)) >= 2**31 else NATURAL,
    )


def test_a_discovery_adds_reserves_and_lowers_the_value() -> None:
    state = fresh_state()
    before, base = int(state.reserves[0]), int(state.reserves_base[0])

    event = inject_event(state, CONFIG, RESOURCE_DISCOVERED, 1, 0.15)

    found = int(0.15 * base)
    assert state.reserves[0] == before + found
    assert state.reserves_added[0] == found
    assert state.news[1] == pytest.approx(-90.0)
    assert np.count_nonzero(state.news) == 1
    assert state.scarcity[0] == pytest.approx(0.0, abs=1e-5)
    assert state.multiplier[0] == pytest.approx(1.0, abs=1e-4)
    assert event is not None
    assert state.events == [event]
    assert (event.channel, event.number, event.name) == ("discovery_event", 1, "resource_discovered")
    assert event.data["lots"] == found
    assert event.data["resource"] == "oil"


def test_a_discovery_beyond_six_fifths_of_base_is_dropped_whole() -> None:
    state = fresh_state()
    state.reserves[2] = state.reserves_base[2] * 11 // 10

    assert inject_event(state, CONFIG, RESOURCE_DISCOVERED, 3, 0.11) is None
    assert state.reserves[2] == state.reserves_base[2] * 11 // 10
    assert not state.news.any()
    assert state.events == []
    assert state.counters[at.DISCOVERIES] == 0
    assert inject_event(state, CONFIG, RESOURCE_DISCOVERED, 3, 0.09) is not None


def test_a_catastrophe_destroys_frightens_and_marks_down() -> None:
    """40 % of the oil: oil + 1 200 bp, financial assets - 320 bp, shock + .3 (cut)."""
    state = fresh_state()
    before = int(state.reserves[0])

    event = inject_event(state, CONFIG, CATASTROPHE_STRUCK, 1, 0.4, POLITICAL)

    lost = int(0.4 * before)
    assert state.reserves[0] == before - lost
    assert state.reserves_lost[0] == lost
    assert state.news[1] == pytest.approx(1_200.0)
    assert state.news[24:].tolist() == pytest.approx([-320.0] * 8)
    assert not state.news[2:24].any()
    assert state.macro[at.SHOCK] == 0.3
    assert event is not None
    assert event.data["kind"] == "political_instability"
    assert (event.channel, event.number) == ("catastrophic_event", 1)

    inject_event(state, CONFIG, CATASTROPHE_STRUCK, 2, 0.05)
    assert state.macro[at.SHOCK] == pytest.approx(0.45)
    assert state.counters[at.CATASTROPHES] == 2


@pytest.mark.parametrize(
    ("name", "resource", "size", "kind"),
    [
        ("meteor_struck", 1, 0.1, NATURAL),
        (CATASTROPHE_STRUCK, 1, 0.1, "boredom"),
        (RESOURCE_DISCOVERED, 0, 0.1, NATURAL),
        (RESOURCE_DISCOVERED, 8, 0.1, NATURAL),
        (CATASTROPHE_STRUCK, 1, 0.0, NATURAL),
        (CATASTROPHE_STRUCK, 1, 1.5, NATURAL),
        (CATASTROPHE_STRUCK, 1, float("nan"), NATURAL),
    ],
)
def test_an_impossible_event_is_refused_and_changes_nothing(name: str, resource: int, size: float, kind: str) -> None:
    state = fresh_state()
    before = at.state_hash(state)

    with pytest.raises(ValueError, match=r"got|unknown"):
        inject_event(state, CONFIG, name, resource, size, kind)

    assert at.state_hash(state) == before


def test_step_draws_both_and_numbers_them_on() -> None:
    state = fresh_state()
    for tick in range(3):
        begin_tick(state, tick)
        emission.step(state, ALWAYS)
        assert [event.channel for event in state.events][-1] == "catastrophic_event"
        assert state.events[-1].number == tick + 1
        assert state.events[-1].tick == tick

    assert state.counters[at.DISCOVERIES] >= 1


def test_step_alone_changes_nothing_without_events() -> None:
    state = fresh_state()
    before = at.state_hash(state)

    emission.step(state, NEVER)

    assert state.events == []
    assert at.state_hash(state) == before


def test_volatility_events_begin_above_a_hundred_percent_and_end_below_eighty() -> None:
    state = fresh_state()
    names = []
    for volatility in (0.99, 1.01, 0.9, 0.81, 0.79, 0.9):
        state.events = []
        state.realised_day[24] = volatility
        state.realised_day[0] = 9.0
        emission.step(state, NEVER)
        names.append([(event.name, event.data["market"]) for event in state.events])

    began, ended = ("volatility_began", "eq_energy"), ("volatility_ended", "eq_energy")
    assert names == [[], [began], [], [], [ended], []]


def test_volatility_threshold_is_an_option() -> None:
    state = fresh_state()
    state.realised_day[24] = 0.6

    emission.step(state, Config(residents=2_000, max_agents=8, order_book_max=1_024, volatility_threshold=0.05,
                                discovery_probability=0.0, catastrophe_probability=0.0))  # fmt: skip

    assert [event.name for event in state.events] == ["volatility_began"]


def test_flags_of_other_phases_are_reported_in_order_with_numbers() -> None:
    state = fresh_state()
    state.turns[at.TURN_EASING, 0] = 1
    state.turns[at.TURN_PANIC, 30] = -1
    state.turns[at.TURN_PANIC, 24] = 1
    state.turns[at.TURN_EUPHORIA, 2] = 1
    state.turns[at.TURN_TIGHTENING, 0] = -1

    emission.step(state, NEVER)

    assert [event.name for event in state.events] == [
        "panic_began", "panic_ended", "euphoria_began", "tightening_ended", "easing_began",
    ]  # fmt: skip
    assert [event.number for event in state.events] == [1, 2, 3, 4, 5]
    assert {event.channel for event in state.events} == {"world_event"}
    assert state.events[0].data["market"] == "eq_energy"
    assert state.events[4].data["policy_rate"] == 0.04


def test_event_data_is_plain(seeds: list[int]) -> None:
    state: State = fresh_state()
    state.turns[:, 0] = 1
    emission.step(state, ALWAYS)

    for event in state.events:
        assert {type(value) for value in event.data.values()} <= {int, float, str, bool}, event


def test_the_phase_writes_exactly_what_it_says() -> None:
    states = [disturbed_state(seed) for seed in range(6)]
    for state in states:
        state.realised_day[24] = 2.0

    assert changed_arrays(emission.step, states, ALWAYS) == set(emission.WRITES)
