"""The eight facts: each can hold and can fail, short histories say so, and the report proves itself."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from engine.analysis.facts import (
    FACTS,
    MARKET_FACTS,
    asset_facts,
    day_sums,
    fact_figures,
    garch,
    gaussian,
    market_facts,
    return_sizes,
    self_test,
)
from engine.analysis.figures import BAND_TICKS, Verdict, fails
from engine.analysis.recording import ASSETS
from engine.markets import MARKETS
from tests.support.lively import lively
from tests.support.recordings import made

NAMES = [fact.id for fact in FACTS]


def passed(returns: np.ndarray, volume: np.ndarray) -> dict[str, bool]:
    """Return the eight truth values by fact."""
    return dict(zip(NAMES, market_facts(returns, volume).passed, strict=True))


def test_a_market_with_every_fact_shows_all_eight() -> None:
    """Clusters on many time scales, heavy tails, larger losses, volume that goes along."""
    assert passed(*lively(BAND_TICKS, 1)) == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize(
    ("fact", "change"),
    [
        ("heavy_tails", lambda r, v: (np.sign(r), v)),
        ("tail_index", lambda r, v: (np.random.default_rng(1).standard_cauchy(len(r)), v)),
        ("no_autocorrelation", lambda r, v: (r + 0.5 * np.roll(r, 2), v)),
        ("clustering", lambda r, v: (np.random.default_rng(1).permutation(r), v)),
        ("slow_decay", lambda r, v: (np.random.default_rng(1).permutation(r), v)),
        ("aggregation", lambda r, v: (np.repeat(r[::480], 480)[: len(r)] + np.sign(r), v)),
        ("volume_volatility", lambda r, v: (r, v[::-1])),
        ("losses", lambda r, v: (-r, v)),
    ],
)
def test_each_fact_can_fail(fact: str, change: object) -> None:
    """Taking away what a fact is about makes exactly its line fail."""
    assert callable(change)
    assert not passed(*change(*lively(BAND_TICKS, 1)))[fact]


def test_the_self_test_holds() -> None:
    """iid normal returns pass at most 4 of the 8, GARCH(1,1) with t(6) at most 6."""
    figures = self_test(paths=6)

    assert [figure.verdict for figure in figures] == [Verdict.HOLDS, Verdict.HOLDS]
    assert [figure.numbers["most"] for figure in figures] <= [4, 6]


def test_synthetic_markets_fail_where_they_must() -> None:
    """Normal returns have no clusters; GARCH has them and heavy tails, but no slow decay and no volume."""
    normal, clustered = passed(*gaussian(BAND_TICKS, 3)), passed(*garch(BAND_TICKS, 3))

    assert not any(normal[name] for name in ("heavy_tails", "clustering", "slow_decay", "volume_volatility"))
    assert clustered["heavy_tails"]
    assert not any(clustered[name] for name in ("slow_decay", "volume_volatility"))


def test_sizes_have_no_daily_pattern() -> None:
    """An hour in which prices always move more is no clustering: every hour has mean 1."""
    pattern = np.resize(np.arange(1.0, 25.0), 24_000)
    returns = np.random.default_rng(2).normal(size=24_000) * pattern

    sizes = return_sizes(returns, first_tick=7)

    assert [sizes[h::24].mean() for h in range(24)] == pytest.approx([1.0] * 24, abs=0.01)
    assert abs(market_facts(returns, pattern, 7).numbers["size_100"]) < 0.03


def test_day_sums_are_those_of_whole_simulated_days() -> None:
    """Parts of days at both ends are left out, wherever the history begins."""
    ticks = np.arange(22, 22 + 60)

    assert day_sums(ticks // 24, first_tick=22).tolist() == [24, 48]


def test_figures_count_markets() -> None:
    """The first figure counts markets with at least seven facts; each fact's own shows median, range and markets."""
    ticks = BAND_TICKS
    returns, volume = np.zeros((ticks, MARKETS), np.int64), np.full((ticks, MARKETS), 100, np.int64)
    for m in ASSETS[:13]:
        returns[:, m], volume[:, m] = lively(ticks, m)
    recording = made(ticks, returns=returns, volume=volume)
    markets = asset_facts(recording)

    figures = fact_figures(markets, ticks)

    assert figures[0].value.startswith(f"{sum(m.count >= MARKET_FACTS for m in markets)} of 15")
    assert figures[0].numbers["markets"] >= 12
    assert figures[1].numbers["markets"] == 13
    assert figures[1].value.endswith("13 of 15 markets")
    assert [figure.id for figure in figures[1:]] == NAMES


def test_a_world_of_dead_prices_fails() -> None:
    """Prices that never move show nothing, and every line says so without a number that looks like one."""
    figures = fact_figures(asset_facts(made(BAND_TICKS)), BAND_TICKS)

    assert fails(figures) == ["asset_facts", *NAMES]
    assert figures[1].value == "undefined: nothing varies"


@pytest.mark.parametrize("ticks", [0, 1, 30, 500, 5_000])
def test_a_short_history_says_what_it_needs(ticks: int) -> None:
    """No verdict, no NaN: figures that can be computed are shown, the others name the ticks they need."""
    returns, volume = np.zeros((ticks, MARKETS), np.int64), np.full((ticks, MARKETS), 100, np.int64)
    for m in ASSETS:
        returns[:, m], volume[:, m] = np.rint(gaussian(ticks, m)[0]), gaussian(ticks, m)[1]

    figures = fact_figures(asset_facts(made(ticks, returns=returns, volume=volume)), ticks)

    assert {figure.verdict for figure in figures} == {Verdict.SHORT}
    assert not any("nan" in figure.value for figure in figures)
    assert not any(isnan(number) for figure in figures for number in figure.numbers.values())
    if ticks == 30:
        assert figures[5].value == "needs 502 ticks, has 30"
