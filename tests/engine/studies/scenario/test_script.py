"""Scenario documents: what may stand in one is read, everything else is refused with the place and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ScenarioInvalid
from engine.markets import HOURS
from engine.studies.scenario.script import parse
from engine.studies.scenario.steps import WORDS, Money
from engine.studies.scenario.vocabulary import rules_of

JOIN = {"do": "join", "agents": "crowd", "count": 3}
ORDER = {"do": "order", "agents": "crowd", "market": "oil", "side": "buy", "quantity": 1, "day": 1}
LEAVE = {"do": "leave", "agents": "crowd", "day": 2}
CPI = {"series": "cpi", "day": 5, "high": 0.1}


def document(**changes: Any) -> dict[str, Any]:
    """Return a document that can be read, with changes."""
    return {"title": "t", "shows": "s", "days": 5, "script": [{"do": "money", "share": 0.1}], **changes}


def refusal(**changes: Any) -> str:
    """Return what is said of a document with changes."""
    with pytest.raises(ScenarioInvalid) as caught:
        parse("mine", document(**changes))
    return str(caught.value)


def test_a_document_becomes_a_scenario_with_the_defaults_of_the_product() -> None:
    """What is not said is 20,000 residents, seed 1 and 125 days of run-in; agents get exactly the places they need."""
    scenario = parse("mine", document(script=[{"do": "money", "share": 0.5, "day": 1, "every": 24, "times": 3}, JOIN]))

    assert (scenario.name, scenario.seed, scenario.run_in_days) == ("mine", 1, 125)
    assert (scenario.config.residents, scenario.config.max_agents) == (20_000, 3)
    [money, _] = scenario.steps
    assert isinstance(money, Money)
    assert [tick for tick in range(5 * HOURS) if money.is_due(tick)] == [24, 48, 72]


def test_residents_and_seed_of_the_command_win() -> None:
    """A smaller world or another seed needs no other file."""
    scenario = parse("mine", document(residents=9_000, seed=4), residents=2_000, seed=7)

    assert (scenario.config.residents, scenario.seed) == (2_000, 7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "mine: unknown key 'colour'; allowed: title, shows, residents, seed, run_in_days, days"),
        ({"title": ""}, "mine: title must be a text, got ''"),
        ({"days": 0}, "mine: days must be a whole number in [1, 1080], got 0"),
        ({"days": True}, "mine: days must be a whole number in [1, 1080], got True"),
        ({"residents": 100}, "mine: residents must be a whole number in [2000, 20000000], got 100"),
        ({"seed": -1}, "mine: seed must be a whole number in [0, 9223372036854775807], got -1"),
        ({"script": {}}, "mine: script must be a list of [[script]] tables, got {}"),
        ({"script": [7]}, "mine: script 1 must be a table, got 7"),
        ({"watch": ["cpi", 3]}, "mine: watch must be a list of series, got 3 in it"),
        ({"watch": ["gdp"]}, "mine: series 'gdp' means nothing; without a dot there are cpi, ppi"),
        ({"watch": ["price.gold"]}, "mine: series 'price.gold' means nothing; after the dot stands a market"),
        ({"watch": ["reserves.food"]}, "mine: series 'reserves.food' means nothing"),
        ({"watch": ["events.flood"]}, "mine: series 'events.flood' means nothing; events are resource_discovered"),
        ({"settings": {"colour": 1}}, "mine: settings: unknown setting 'colour'; allowed: max_agents,"),
        ({"settings": {"residents": 5_000}}, "mine: settings: unknown setting 'residents'"),
        ({"settings": {"fear_weight": 3}}, "mine: settings: fear_weight must be a number in [0.0, 2.0], got 3"),
    ],
)
def test_a_wrong_document_is_refused(changes: dict[str, Any], said: str) -> None:
    """The place, what was wrong, what is allowed."""
    assert refusal(**changes).startswith(said)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"do": "meteor"}, "mine: script 1: do must be one of shock, news, discovery, catastrophe, money"),
        ({}, "mine: script 1: do must be one of shock"),
        ({"do": "shock"}, "mine: script 1 (shock): size is missing; it must be a number in [0, 1]"),
        ({"do": "shock", "size": 3}, "mine: script 1 (shock): size must be a number in [0, 1], got 3"),
        ({"do": "shock", "size": float("nan")}, "mine: script 1 (shock): size must be a number in [0, 1], got nan"),
        ({"do": "shock", "size": 0.1, "sise": 1}, "mine: script 1 (shock): unknown key 'sise'; allowed: day, hour,"),
        ({"do": "shock", "size": 0.1, "hour": 24}, "mine: script 1 (shock): hour must be a whole number in [0, 23]"),
        ({"do": "news", "markets": [], "bp": 1}, "mine: script 1 (news): markets must be a market, a list of markets"),
        ({"do": "news", "markets": ["oil", 4], "bp": 1}, "mine: script 1 (news): markets must be a market, a list"),
        (
            {"do": "discovery", "resource": "food", "size": 0.1},
            "mine: script 1 (discovery): resource must be one of oil",
        ),
        ({"do": "money", "share": -1}, "mine: script 1 (money): share must be a number in [-0.9, 10], got -1"),
        ({"do": "policy", "active": 0}, "mine: script 1 (policy): active must be true or false, got 0"),
        ({"do": "minds", "fear": 1.5}, "mine: script 1 (minds): fear must be a number in [0, 1], got 1.5"),
        ({**JOIN, "agents": "the crowd"}, "mine: script 1 (join): agents must be a name of letters, digits and _"),
        ({"do": "shock", "size": 0.1, "day": 5}, "mine: script 1: its last time is tick 120 after the start, the sce"),
        ({"do": "shock", "size": 0.1, "times": 121}, "mine: script 1: its last time is tick 120 after the start"),
    ],
)
def test_a_wrong_step_is_refused(step: dict[str, Any], said: str) -> None:
    """The place, what was wrong, what is allowed."""
    assert refusal(script=[step]).startswith(said)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([ORDER], "mine: script 1: crowd does not take part at tick 24: join comes first"),
        ([{**JOIN, "day": 2}, ORDER], "mine: script 2: crowd does not take part at tick 24"),
        ([JOIN, LEAVE, {**ORDER, "day": 3}], "mine: script 3: crowd does not take part at tick 72"),
        ([JOIN, {**ORDER, "times": 40}, LEAVE], "mine: script 2: crowd does not take part at tick 63"),
        ([JOIN, JOIN], "mine: script 2: crowd joins a second time at tick 0: use another name"),
        (
            [JOIN, {**ORDER, "twin": True}],
            "mine: script 2: crowd does not take part in the twin: join with twin = true",
        ),
        (
            [JOIN, {**JOIN, "agents": "rich", "endowment_credits": 5}],
            "mine: script 2: endowments differ in tick 0: let one group join an hour later",
        ),
        ([JOIN, {**ORDER, "part": 0.5}], "mine: script 2 (order): give one of quantity and part"),
        ([JOIN, {**ORDER, "offset_bp": 1, "price_credits": 1}], "mine: script 2 (order): give one of offset_bp and"),
        ([JOIN, {**ORDER, "time_in_force": "gtc"}], "mine: script 2 (order): time_in_force is for a limit"),
        (
            [JOIN, {**ORDER, "offset_bp": 1, "time_in_force": "gtt"}],
            "mine: script 2 (order): time_in_force gtt and ord",
        ),
        (
            [JOIN, {**ORDER, "quantity": 0}],
            "mine: script 2 (order): quantity must be a whole number in [1, 1000000000]",
        ),
        ([JOIN, {**ORDER, "side": "hold"}], "mine: script 2 (order): side must be one of buy, sell, got 'hold'"),
    ],
)
def test_agents_that_cannot_act_are_refused(script: list[dict[str, Any]], said: str) -> None:
    """Nobody acts before joining or after leaving, and an order says one thing."""
    assert refusal(script=script).startswith(said)


def test_agents_that_left_one_world_may_go_on_in_the_twin() -> None:
    """What both worlds do goes on in the twin when the agents leave the treated one only."""
    both = {"twin": True}

    scenario = parse("mine", document(script=[{**JOIN, **both}, {**ORDER, **both, "times": 60}, LEAVE]))

    assert [step.twin for step in scenario.steps] == [True, True, False]


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"series": "cpi", "day": 5}, "mine: expect 1: low, high or direction must say what is expected"),
        ({**CPI, "low": 0.2}, "mine: expect 1: the band is empty: low 0.2, high 0.1"),
        (
            {**CPI, "low": 0.05, "direction": "falls"},
            "mine: expect 1: the band is empty: low 0.05, high 0.1, direction",
        ),
        ({"series": "cpi", "high": 1}, "mine: expect 1: value is taken on one day: give day, neither from_day nor"),
        ({**CPI, "to_day": 3}, "mine: expect 1: value is taken on one day"),
        ({**CPI, "take": "mean"}, "mine: expect 1: mean is taken over days: give from_day and to_day, not day"),
        ({**CPI, "day": 6}, "mine: expect 1: days 6 to 6 must be in order and within the scenario's 5"),
        ({**CPI, "day": 0}, "mine: expect 1: day must be a whole number in [1, 1080], got 0"),
        (
            {"series": "cpi", "take": "mean", "from_day": 4, "to_day": 2, "low": 0},
            "mine: expect 1: days 4 to 2 must be in order",
        ),
        (
            {**CPI, "compare": "absolute", "direction": "rises"},
            "mine: expect 1: a direction is for a figure around zero",
        ),
        ({**CPI, "take": "best"}, "mine: expect 1: take must be one of value, mean, sum, lowest"),
        ({**CPI, "measured": [0.2, 0.3]}, "mine: expect 1: measured [0.2, 0.3] must be inside the band"),
        ({**CPI, "measured": [0.3, 0.2]}, "mine: expect 1: measured must be two numbers, the lower first"),
        ({**CPI, "series": "gdp"}, "mine: series 'gdp' means nothing"),
    ],
)
def test_a_wrong_expectation_is_refused(expect: dict[str, Any], said: str) -> None:
    """The place, what was wrong, what is allowed."""
    assert refusal(expect=[expect]).startswith(said)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2_000) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    sorted({"do", "title", "days", "script", "expect", "watch"}.union(*(rules_of(shape) for shape in WORDS.values())))
)


@given(st.dictionaries(keys, anything), st.sampled_from(sorted(WORDS)), st.dictionaries(keys, anything))
def test_nothing_but_a_refusal_comes_of_nonsense(top: dict[str, Any], word: str, step: dict[str, Any]) -> None:
    """Whatever stands in a document, it is read or refused; no other error gets out."""
    for nonsense in (top, document(**top), document(script=[{**step, "do": word}]), document(expect=[step])):
        assert outcome(nonsense).startswith("mine")


def outcome(nonsense: Any) -> str:
    """Return the name of what was read or the refusal."""
    try:
        return parse("mine", nonsense).name
    except ScenarioInvalid as refused:
        return str(refused)
