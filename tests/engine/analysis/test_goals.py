"""Goals: impact, leverage, wealth and the wage's pattern, on data that were made with known ones."""

from __future__ import annotations

import numpy as np
import pytest

from engine.analysis.figures import BAND_TICKS, Figure, Verdict
from engine.analysis.goals import goal_figures, leverage, natural_impact, power_law, wage_by_hour
from engine.analysis.recording import ASSETS, Recording
from engine.markets import LABOUR, MARKETS
from tests.support.recordings import made


def by_id(recording: Recording) -> dict[str, Figure]:
    """Return the figures by id."""
    return {figure.id: figure for figure in goal_figures(recording)}


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_the_exponent_of_impact_is_recovered(exponent: float) -> None:
    """Returns made as a power of the imbalance, with noise, give that power."""
    random = np.random.default_rng(1)
    imbalance = np.rint(random.normal(0.0, 3_000.0, (BAND_TICKS, MARKETS))).astype(np.int64)
    moved = np.sign(imbalance) * np.abs(imbalance / 10.0) ** exponent * 2.0 + random.normal(0, 3, imbalance.shape)

    recording = made(BAND_TICKS, returns=np.rint(moved).astype(np.int64), imbalance=imbalance)

    assert natural_impact(recording, 24).exponent == pytest.approx(exponent, abs=0.05)
    assert len(natural_impact(recording, 24).size) == 12
    wanted = Verdict.REACHED if exponent == 0.5 else Verdict.MISSED
    assert by_id(recording)["impact_natural"].verdict is wanted


def test_power_law_leaves_out_what_has_no_logarithm() -> None:
    """Points at or below 0 do not count; fewer than three give nothing."""
    x = np.array([1.0, 2.0, 4.0, 8.0])

    assert power_law(x, 3.0 * x**0.5) == pytest.approx(0.5)
    assert power_law(x, np.array([-1.0, 1.0, 1.0, 1.0])) == pytest.approx(0.0)
    assert np.isnan(power_law(x, np.array([-1.0, 0.0, 1.0, 2.0])))


def test_leverage_has_the_sign_of_losses_that_excite() -> None:
    """Volatility that rises after losses gives a negative correlation, after gains a positive one."""
    random = np.random.default_rng(2)
    returns = np.zeros(50_000)
    trend = 0.0
    for t in range(len(returns)):
        returns[t] = random.normal() * np.exp(-0.6 * trend)
        trend += 0.1 * (returns[t] - trend)

    assert leverage(returns) < -0.03
    assert leverage(-returns) > 0.03
    assert abs(leverage(random.normal(size=50_000))) < 0.01


def test_wealth_is_that_of_households() -> None:
    """Households carry the goal, all residents are shown beside them."""
    n = 20_000
    pareto = np.sort((1.0 - (np.arange(n) + 0.5) / n) ** (-1.0 / 1.4))
    figures = by_id(made(BAND_TICKS, household_wealth=pareto))

    assert figures["gini"].numbers["gini"] == pytest.approx(1 / (2 * 1.4 - 1), abs=0.02)
    assert figures["pareto"].numbers["alpha"] == pytest.approx(1.4, abs=0.02)
    assert (figures["pareto"].verdict, figures["gini"].verdict) == (Verdict.REACHED, Verdict.MISSED)
    assert figures["gini_residents"].verdict is Verdict.SHOWN


def test_the_wages_pattern_is_found_under_a_trend() -> None:
    """A pattern of 100 bp is measured as such, a trend of 10 bp a tick alone as none."""
    ticks, first = BAND_TICKS, 3_005
    pattern = np.rint(50 * np.sin(2 * np.pi * np.arange(24) / 24)).astype(np.int64)
    level = made(ticks).level.copy()
    for hourly, spread in ((pattern, 100.0), (0 * pattern, 0.0)):
        level[:, LABOUR] = 60_000 + 10 * np.arange(ticks) + hourly[(first + np.arange(ticks)) % 24]
        recording = made(ticks, first_tick=first, level=level.copy())
        assert np.ptp(wage_by_hour(recording)) == pytest.approx(spread, abs=1e-6)
        assert wage_by_hour(recording) == pytest.approx(hourly, abs=1e-6)
        assert by_id(recording)["wage_pattern"].verdict is (Verdict.REACHED if spread == 0 else Verdict.MISSED)


@pytest.mark.parametrize("ticks", [0, 10, 100])
def test_a_short_history_says_what_it_needs(ticks: int) -> None:
    """Neither NaN nor a verdict."""
    returns = np.random.default_rng(3).integers(-9, 10, (ticks, MARKETS))
    figures = by_id(made(ticks, returns=returns, imbalance=returns))

    assert not any("nan" in figure.value for figure in figures.values())
    assert {figure.verdict for figure in figures.values()} <= {Verdict.SHORT, Verdict.SHOWN}
    assert len(ASSETS) == 15
