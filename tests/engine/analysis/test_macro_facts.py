"""Macro facts: slopes, ranges and long-run figures on series whose relations are built in."""

from __future__ import annotations

import numpy as np
import pytest

from engine.analysis.figures import BAND_TICKS, LONG_TICKS, Figure, Verdict
from engine.analysis.macro_facts import longest_pause, macro_figures, phillips
from engine.analysis.recording import Recording
from engine.markets import ID
from tests.support.recordings import healthy, made

DAYS = BAND_TICKS // 24
RISING = np.linspace(0.0, 1.0, DAYS)


def by_id(recording: Recording) -> dict[str, Figure]:
    """Return the figures by id."""
    return {figure.id: figure for figure in macro_figures(recording)}


def test_a_healthy_economy_holds() -> None:
    """Every band holds, and the coefficients are those the series were made with."""
    figures = by_id(healthy())

    assert {figure.verdict for figure in figures.values()} == {Verdict.HOLDS, Verdict.SHOWN}
    assert figures["phillips_cpi"].numbers["slope"] == pytest.approx(-0.5, rel=0.15)
    assert figures["okun"].numbers["unemployment_on_real"] == pytest.approx(-2.5)
    assert figures["okun"].numbers["real_on_unemployment"] == pytest.approx(-0.4)
    assert figures["policy"].numbers["on_inflation"] == pytest.approx(1.2)
    assert figures["policy"].numbers["on_unemployment"] == pytest.approx(-0.3)


def test_the_phillips_lag_is_found() -> None:
    """Inflation that follows unemployment 20 days later, measured over 30 days, correlates best about 35 days back."""
    assert phillips(healthy())[0] in (30, 45)


@pytest.mark.parametrize(
    ("figure", "changes"),
    [
        ("phillips_cpi", {"cpi": np.exp(0.1 * RISING**2), "unemployment": 0.04 + 0.02 * RISING}),
        ("okun", {"consumption_real": np.exp(0.4 * 0.01 * np.sin(2 * np.pi * np.arange(DAYS) / 180))}),
        ("policy", {"policy_rate": 0.04}),
        ("policy", {"policy_rate": 0.04 + 0.005 * np.sin(2 * np.pi * (np.arange(DAYS) - 20) / 180)}),
        ("unemployment", {"unemployment": 0.09}),
        ("unemployment", {"unemployment": np.where(np.arange(DAYS) < 20, 0.3, 0.05)}),
        ("inflation", {"inflation_quarterly": 0.05}),
        ("inflation", {"inflation_quarterly": np.where(np.arange(DAYS) < 20, -0.04, 0.01)}),
    ],
)
def test_each_band_can_fail(figure: str, changes: dict[str, object]) -> None:
    """A relation of the wrong sign, a rate that does not move, a mean or a quantile outside."""
    assert by_id(healthy(**changes))[figure].verdict is Verdict.FAILS


def test_a_rate_that_does_not_move_is_named() -> None:
    """Policy off is not a coefficient of 0 but a rate that stands still."""
    assert by_id(healthy(policy_rate=0.04))["policy"].value == "the rate does not move"


def test_long_run_bands_count_in_long_runs_only() -> None:
    """A market without trade for a day, a move at the edge, lost output: shown in short runs, failing in long ones."""
    pause, edge = np.full((LONG_TICKS, 32), 100), np.zeros((LONG_TICKS, 32), np.int64)
    pause[500:524, ID["food"]] = 0
    edge[7, ID["oil"]] = -6_931
    real = np.linspace(1.0, 0.9, LONG_TICKS // 24)
    for name, changes in (
        ("untraded", {"volume": pause}),
        ("window", {"returns": edge}),
        ("real_output", {"consumption_real": real}),
    ):
        assert by_id(healthy(LONG_TICKS, **changes))[name].verdict is Verdict.FAILS, name
        assert by_id(healthy(LONG_TICKS))[name].verdict is Verdict.HOLDS, name
    assert by_id(healthy())["untraded"].verdict is Verdict.SHOWN
    assert "a day or more: food" in by_id(healthy(LONG_TICKS, volume=pause))["untraded"].value


def test_longest_pause() -> None:
    """Pauses at the beginning and the end count as well; a market that never trades pauses all the time."""
    volume = np.array([[0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]])

    assert longest_pause(volume).tolist() == [2, 2, 4, 0]


@pytest.mark.parametrize("ticks", [0, 24, 240, 2_000])
def test_a_short_history_says_what_it_needs(ticks: int) -> None:
    """No NaN in what people read, no verdict, and the ticks that are missing."""
    figures = by_id(healthy(ticks)) if ticks else by_id(made(0))

    assert not any("nan" in figure.value for figure in figures.values())
    assert {figure.verdict for figure in figures.values()} <= {Verdict.SHORT, Verdict.SHOWN}
    if ticks == 240:
        assert figures["phillips_cpi"].value == "needs 2,232 ticks, has 240"
