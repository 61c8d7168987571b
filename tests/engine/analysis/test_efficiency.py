"""Market efficiency: each test keeps its level on unpredictable returns and finds what was put in."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.analysis.efficiency import (
    HORIZONS,
    LAGS,
    POINTS_MIN,
    Verdict,
    chi_square_tail,
    efficiency,
    hurst_error,
    hurst_exponent,
    ljung_box,
    variance_ratio,
)
from engine.analysis.needs import TooFew

Floats = NDArray[np.float64]


def garch(random: np.random.Generator, count: int) -> Floats:
    """Return returns whose size is predictable and whose sign is not: GARCH(1,1) with t(6)."""
    shocks = random.standard_t(6, count) * np.sqrt(4.0 / 6.0)
    returns, variance = np.empty(count), 1.0
    for i, shock in enumerate(shocks.tolist()):
        returns[i] = np.sqrt(variance) * shock
        variance = 0.05 + 0.1 * returns[i] ** 2 + 0.85 * variance
    return returns


def autoregressive(random: np.random.Generator, count: int, weight: float) -> Floats:
    """Return x = weight x before + noise."""
    values = random.standard_normal(count)
    for i in range(1, count):
        values[i] += weight * values[i - 1]
    return values


def fractional_noise(random: np.random.Generator, count: int, hurst: float) -> Floats:
    """Return fractional Gaussian noise, exact, by circulant embedding (Davies & Harte 1987)."""
    lags = np.arange(count + 1, dtype=np.float64)
    covariance = 0.5 * ((lags + 1) ** (2 * hurst) - 2 * lags ** (2 * hurst) + np.abs(lags - 1) ** (2 * hurst))
    spectrum = np.fft.fft(np.concatenate((covariance, covariance[-2:0:-1]))).real
    noise = random.standard_normal(2 * count) + 1j * random.standard_normal(2 * count)
    found: Floats = (np.fft.fft(np.sqrt(np.maximum(spectrum, 0.0) / (2 * count)) * noise)[:count]).real
    return found


def test_the_variance_ratio_of_a_moving_sum_is_known() -> None:
    """For returns with first autocorrelation r and no other, VR(2) = 1 + r."""
    random = np.random.default_rng(1)
    noise = random.standard_normal(200_001)
    returns = noise[1:] + 0.5 * noise[:-1]

    found = variance_ratio(returns, 2)

    assert found.ratio == pytest.approx(1.0 + 0.4, abs=0.01)
    assert found.p < 1e-9


def test_the_variance_ratio_equals_its_formula_written_plainly() -> None:
    """Lo & MacKinlay's estimators, sum by sum."""
    returns = np.random.default_rng(2).standard_t(4, 300)
    n, q = len(returns), 4
    mean = returns.mean()
    single = sum((r - mean) ** 2 for r in returns) / (n - 1)
    scale = q * (n - q + 1) * (1 - q / n)
    long = sum((returns[k - q + 1 : k + 1].sum() - q * mean) ** 2 for k in range(q - 1, n)) / scale
    theta = 0.0
    for j in range(1, q):
        above = sum((returns[k] - mean) ** 2 * (returns[k - j] - mean) ** 2 for k in range(j, n))
        theta += (2 * (q - j) / q) ** 2 * above / sum((r - mean) ** 2 for r in returns) ** 2

    found = variance_ratio(returns, q)

    assert found.ratio == pytest.approx(long / single)
    assert found.z == pytest.approx((long / single - 1) / np.sqrt(theta))


@pytest.mark.parametrize("kind", ["normal", "t4", "garch"])
def test_each_test_keeps_its_level(kind: str) -> None:
    """At 5 % an unpredictable market is rejected in about 5 % of samples, clustered volatility or not."""
    random = np.random.default_rng(3)
    draw = {
        "normal": lambda: random.standard_normal(1_000),
        "t4": lambda: random.standard_t(4, 1_000),
        "garch": lambda: garch(random, 1_000),
    }[kind]

    found = [efficiency(draw()) for _ in range(300)]

    for place in range(len(HORIZONS)):
        assert np.mean([item.ratios[place].p < 0.05 for item in found]) < 0.10
    assert np.mean([item.robust.p < 0.05 for item in found]) < 0.10
    assert np.mean([abs(item.hurst - 0.5) > 2.0 * item.hurst_error for item in found]) < 0.10
    assert np.mean([item.verdict is not Verdict.UNPREDICTABLE for item in found]) < 0.05
    if kind == "garch":
        # why the verdict does not use the plain test
        assert np.mean([item.ljung_box.p < 0.05 for item in found]) > 0.10


@pytest.mark.parametrize(
    ("weight", "verdict"), [(0.2, Verdict.TRENDING), (-0.2, Verdict.REVERTING), (0.0, Verdict.UNPREDICTABLE)]
)
def test_the_verdict_says_which_way(weight: float, verdict: Verdict) -> None:
    """Returns that follow, or turn against, the one before."""
    assert efficiency(autoregressive(np.random.default_rng(4), 3_000, weight)).verdict is verdict


@pytest.mark.parametrize("hurst", [0.3, 0.5, 0.7, 0.9])
def test_the_hurst_exponent_of_fractional_noise_is_recovered(hurst: float) -> None:
    """In the mean of forty series of 4,000, within .03."""
    random = np.random.default_rng(5)

    found = [hurst_exponent(fractional_noise(random, 4_000, hurst)) for _ in range(40)]

    assert np.mean(found) == pytest.approx(hurst, abs=0.03)


@pytest.mark.parametrize("count", [200, 1_000, 5_000])
def test_the_hurst_exponent_of_independent_returns_has_the_error_it_says(count: int) -> None:
    """Its bias is small against it, its scatter not above it."""
    random = np.random.default_rng(6)

    found = [hurst_exponent(random.standard_normal(count)) for _ in range(200)]

    assert np.mean(found) == pytest.approx(0.5, abs=0.015)
    assert np.std(found) < 1.05 * hurst_error(count)


@pytest.mark.parametrize(
    ("value", "degrees", "tail"),
    # the upper 5 % and 1 % points of the usual tables; exp(-x / 2) for two degrees
    [
        (3.841459, 1, 0.05), (18.307038, 10, 0.05), (23.209251, 10, 0.01), (124.342113, 100, 0.05),
        (5.0, 2, np.exp(-2.5)), (0.5, 2, np.exp(-0.25)), (80.0, 2, np.exp(-40.0)), (0.0, 10, 1.0),
    ],
)  # fmt: skip
def test_the_tail_of_chi_square(value: float, degrees: int, tail: float) -> None:
    """To the digits of the tables, on both sides of the mean."""
    assert chi_square_tail(value, degrees) == pytest.approx(tail, rel=1e-6)


def test_ljung_box_is_its_formula() -> None:
    """n (n + 2) sum of squared autocorrelations over n - k."""
    returns = np.random.default_rng(7).standard_normal(500)
    centred = returns - returns.mean()
    correlations = [(centred[k:] @ centred[:-k]) / (centred @ centred) for k in range(1, LAGS + 1)]

    found = ljung_box(returns)

    expected = 500 * 502 * sum(r**2 / (500 - k) for k, r in enumerate(correlations, 1))
    assert found.statistic == pytest.approx(expected)
    assert efficiency(returns).autocorrelations == pytest.approx(correlations)


def test_too_little_is_said_in_numbers() -> None:
    """How many returns there are and how many it takes; a price that stands still has no verdict either."""
    with pytest.raises(TooFew, match="199 of the 200 returns"):
        efficiency(np.ones(POINTS_MIN - 1))
    with pytest.raises(ValueError, match="never moves"):
        efficiency(np.zeros(POINTS_MIN))
