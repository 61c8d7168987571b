"""Forecasts: skill where there is something to know, none where there is not, bands that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.analysis.forecasts import COVERAGE, METHODS, forecast, points_needed
from engine.analysis.needs import TooFew

Floats = NDArray[np.float64]
DAY = 24


def reverting(seed: int, count: int, weight: float = 0.99) -> Floats:
    """Return a series that goes back to 5: x = 5 + weight (x before - 5) + noise."""
    values = np.random.default_rng(seed).standard_normal(count)
    for i in range(1, count):
        values[i] += weight * values[i - 1]
    return 5.0 + 0.1 * values


def test_it_beats_the_random_walk_where_values_revert() -> None:
    """A day ahead of a process that forgets in a day there is a sixth to gain."""
    found = [forecast(reverting(seed, 4_000, 0.96), DAY) for seed in range(10)]

    assert np.mean([item.skill for item in found]) > 0.1
    assert np.mean([item.mae for item in found]) < np.mean([item.mae_random_walk for item in found])


def test_it_beats_the_random_walk_where_changes_go_on() -> None:
    """A smooth path is continued."""
    noise = np.random.default_rng(1).standard_normal(4_000)
    speed = np.zeros(4_000)
    for i in range(1, 4_000):
        speed[i] = 0.99 * speed[i - 1] + 0.01 * noise[i]

    found = forecast(np.cumsum(speed), DAY)

    assert found.skill > 0.4
    assert found.method == "regression"


def test_of_a_random_walk_it_knows_nothing_and_says_so() -> None:
    """On average it loses next to nothing against saying that nothing changes."""
    found = [forecast(np.cumsum(np.random.default_rng(seed).standard_normal(3_000)), DAY) for seed in range(20)]

    assert -0.05 < np.mean([item.skill for item in found]) < 0.05
    assert sum(item.method == "random_walk" for item in found) >= 14


@pytest.mark.parametrize("horizon", [DAY, 5 * DAY])
def test_bands_hold_what_they_say(horizon: int) -> None:
    """In the past by their own score, and the one outcome that follows each series as well."""
    inside, covered = [], []
    for seed in range(60):
        values = reverting(seed, 2_400 + horizon)
        found = forecast(values[:2_400], horizon)
        inside.append(found.low <= values[-1] <= found.high)
        covered.append(found.covered)

    assert np.mean(covered) == pytest.approx(COVERAGE, abs=0.06)
    assert COVERAGE - 0.17 <= np.mean(inside) <= COVERAGE + 0.15


def test_nothing_after_an_origin_is_used_at_it() -> None:
    """What is said now is the same whatever comes later: the last forecast of a part is that part's own."""
    values = reverting(3, 3_000)
    cut = 2_000

    early = forecast(values[:cut], DAY)
    changed = np.concatenate((values[:cut], values[cut:] + 100.0))
    again = forecast(changed[:cut], DAY)

    assert early == again
    # and the score of a longer past holds the forecast that was made at the cut
    longer = forecast(values[: cut + 5 * DAY], DAY)
    assert longer.scored == early.scored + 5


def test_a_series_that_stands_still_is_forecast_to_stand_still() -> None:
    """No division by nothing; a band without width, which holds everything."""
    found = forecast(np.full(2_000, 3.0), DAY)

    assert (found.value, found.low, found.high, found.method) == (3.0, 3.0, 3.0, "random_walk")
    assert (found.skill, found.covered, found.mae) == (0.0, 1.0, 0.0)


def test_a_series_that_wakes_up_is_not_forecast_into_the_sky() -> None:
    """A column that hardly moved while coefficients were learned promises anything; never further than ever gone."""
    values = np.full(3_000, 1e-9)
    values[1_500:] += np.abs(np.random.default_rng(4).standard_normal(1_500))

    found = forecast(values, DAY)

    assert found.mae < 3.0 * found.mae_random_walk
    assert found.method in METHODS


@pytest.mark.parametrize("horizon", [DAY, 5 * DAY, 20 * DAY])
def test_it_works_from_the_points_it_asks_for_on(horizon: int) -> None:
    """One fewer is too few, and says how many it takes."""
    needed = points_needed(horizon)
    values = reverting(5, needed)

    assert forecast(values, horizon).scored >= 5
    with pytest.raises(TooFew, match=f"{needed - 1} of the {needed} ticks"):
        forecast(values[1:], horizon)
