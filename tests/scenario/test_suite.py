"""Every scenario of the product, at its own size and seed: direction, size and recovery are what its file promises.

The worlds are checked for every invariant after every tick while they run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from engine.studies.scenario.run import Result, run_all
from engine.studies.scenario.script import Scenario
from server.scenarios.suite import load, suite_names
from server.scenarios.tables import failures
from tests.support.measure_scenarios import RESULTS, rounded

#: What the card asks for: each is shown by at least one file.
ASKED = {
    "market crash and panic": ("market_crash",),
    "resource discovery": ("resource_discovery",),
    "catastrophe": ("catastrophe",),
    "inflation spiral, policy on and off": ("inflation_spiral", "inflation_spiral_without_policy"),
    "printed money, once": ("helicopter_money",),
    "deflation and quantitative easing": ("deflation_and_easing", "deflation_without_policy"),
    "10,000 agents, once and for two days": ("crowd_at_once", "crowd_for_two_days"),
    "a bot cornering a resource": ("cornered_resource",),
    "all bots leaving at once": ("all_bots_leave",),
    "every resident at an extreme of psychology": ("everybody_afraid", "everybody_greedy"),
}
PROMISES = "test_a_scenario_keeps_its_promises"
SUITE = [load(name) for name in suite_names()]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Result]:
    """Return the results of the scenarios this session tests, in its order: they share their start and their twins."""
    tests = [item for item in request.session.items if getattr(item, "originalname", "") == PROMISES]
    return run_all([item.callspec.params["scenario"] for item in tests])  # type: ignore[attr-defined]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SUITE, ids=lambda scenario: scenario.name)
def test_a_scenario_keeps_its_promises(scenario: Scenario, results: Iterator[Result]) -> None:
    """Every figure is inside its band."""
    result = next(results)

    assert result.scenario is scenario
    assert failures([result]) == ""


def test_everything_that_is_asked_for_is_in_the_suite() -> None:
    """Each file stands for something, and nothing is missing."""
    assert sorted(name for names in ASKED.values() for name in names) == suite_names()


@pytest.mark.parametrize("scenario", SUITE, ids=lambda scenario: scenario.name)
def test_a_scenario_promises_size_direction_and_what_becomes_of_it(scenario: Scenario) -> None:
    """Every band has two ends and the range that was measured, and one of them is about the last third of the days."""
    ends = [expected.days(scenario.days)[1] for expected in scenario.expectations]

    assert all(expected.measured is not None for expected in scenario.expectations)
    assert all(expected.low is not None and expected.high is not None for expected in scenario.expectations)
    assert any(expected.side() for expected in scenario.expectations)
    assert max(ends) > scenario.days * 2 / 3


def test_what_the_files_note_is_what_was_measured() -> None:
    """The ranges in the suite are those of the committed results, at the suite's own size, with five seeds."""
    for kept in json.loads(RESULTS.read_text(encoding="utf-8"))["scenarios"]:
        [scenario] = [scenario for scenario in SUITE if scenario.name == kept["name"]]
        noted = [expected.measured for expected in scenario.expectations]
        assert noted == [rounded(expected["measured"]) for expected in kept["expectations"]], scenario.name
        assert (kept["residents"], kept["seeds"]) == (scenario.config.residents, [1, 2, 3, 4, 5])
        assert kept["holds"]
