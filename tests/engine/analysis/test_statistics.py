"""Every estimator on data whose answer is known in closed form or by construction."""

from __future__ import annotations

from math import exp, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.statistics import (
    aggregate,
    autocorrelation,
    autocorrelations,
    binned_means,
    decay_exponent,
    excess_kurtosis,
    gini,
    hill_index,
    pareto_exponent,
    regress,
    skewness,
    slope_and_correlation,
    top_share,
    without_daily_pattern,
)

AMOUNTS = st.lists(st.floats(0.001, 1e6), min_size=2, max_size=60)


def pareto(alpha: float, n: int) -> np.ndarray:
    """Return n exact quantiles of a Pareto distribution: no sampling error."""
    return (1.0 - (np.arange(n) + 0.5) / n) ** (-1.0 / alpha)


def test_moments_of_two_points() -> None:
    """A fair coin has kurtosis 1 (excess -2) and no skewness; a loaded one has (1 - 2p) / sqrt(p (1 - p))."""
    assert excess_kurtosis([-1.0, 1.0]) == pytest.approx(-2.0)
    assert skewness([-1.0, 1.0]) == 0.0
    assert skewness([0.0] * 9 + [1.0]) == pytest.approx(0.8 / 0.3)


def test_moments_of_known_distributions() -> None:
    """Normal 0 and 0, exponential 2 and 6, Laplace 0 and 3."""
    rng = np.random.default_rng(1)
    normal, exponential, laplace = rng.normal(size=400_000), rng.exponential(size=800_000), rng.laplace(size=800_000)

    assert skewness(normal) == pytest.approx(0.0, abs=0.02)
    assert excess_kurtosis(normal) == pytest.approx(0.0, abs=0.04)
    assert skewness(exponential) == pytest.approx(2.0, abs=0.08)
    assert excess_kurtosis(exponential) == pytest.approx(6.0, abs=0.6)
    assert excess_kurtosis(laplace) == pytest.approx(3.0, abs=0.2)


def test_autocorrelation_of_an_alternating_series() -> None:
    """+1, -1, +1, ...: (-1)^k (1 - k / n)."""
    x = np.resize([1.0, -1.0], 100)

    assert autocorrelations(x, (0, 1, 2, 7)) == pytest.approx([1.0, -0.99, 0.98, -0.93])


def test_autocorrelation_of_ar1() -> None:
    """An AR(1) with factor .8 has .8^k at lag k."""
    rng = np.random.default_rng(2)
    x = np.zeros(200_000)
    for t, shock in enumerate(rng.normal(size=len(x) - 1), 1):
        x[t] = 0.8 * x[t - 1] + shock

    assert autocorrelations(x, (1, 2, 5)) == pytest.approx([0.8, 0.64, 0.8**5], abs=0.01)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50), st.data())
def test_autocorrelation_is_bounded(values: list[float], data: st.DataObject) -> None:
    """Inside [-1, 1] whatever the data, or NaN when nothing varies."""
    value = autocorrelation(values, data.draw(st.integers(0, len(values) - 1)))

    assert isnan(value) or -1.000001 <= value <= 1.000001


def test_hill_index_of_a_pareto_tail() -> None:
    """Recovers the exponent it was made with, for either sign of the values."""
    for alpha in (1.5, 3.0, 5.0):
        assert hill_index(-pareto(alpha, 100_000), 0.05) == pytest.approx(alpha, rel=0.01)
        assert pareto_exponent(pareto(alpha, 100_000), 0.05) == pytest.approx(alpha, rel=0.01)


def test_hill_index_does_not_depend_on_the_unit() -> None:
    """A tail index is a pure number."""
    x = np.random.default_rng(3).standard_t(4, size=5_000)

    assert hill_index(x * 1e4) == pytest.approx(hill_index(x))


def test_pareto_exponent_leaves_debtors_out() -> None:
    """Negative amounts count as 0 instead of as large ones."""
    assert pareto_exponent(np.concatenate([pareto(2.0, 10_000), [-1e9] * 10])) == pytest.approx(2.0, rel=0.02)


def test_gini_of_known_distributions() -> None:
    """Equal 0; one of n has all (n - 1) / n; uniform 1/3; exponential 1/2; Pareto 1 / (2 alpha - 1)."""
    n = 100_000
    middle = (np.arange(n) + 0.5) / n
    assert gini([3.0] * 7) == pytest.approx(0.0)
    assert gini([0.0] * 9 + [5.0]) == pytest.approx(0.9)
    assert gini(middle) == pytest.approx(1 / 3, abs=1e-4)
    assert gini(-np.log(middle)) == pytest.approx(1 / 2, abs=1e-3)
    assert gini(pareto(3.0, n)) == pytest.approx(1 / 5, abs=1e-3)


@given(AMOUNTS, st.floats(0.01, 100.0))
def test_gini_is_a_bounded_pure_number(amounts: list[float], factor: float) -> None:
    """In [0, 1), and the same in any currency."""
    assert -1e-9 <= gini(amounts) < 1.0
    assert gini(np.array(amounts) * factor) == pytest.approx(gini(amounts), abs=1e-9)


def test_gini_agrees_with_the_mean_difference() -> None:
    """Its other definition: half the mean absolute difference over the mean."""
    x = np.random.default_rng(4).lognormal(size=300)

    assert gini(x) == pytest.approx(np.abs(x[:, None] - x[None, :]).mean() / (2.0 * x.mean()))


def test_top_share() -> None:
    """The richest tenth of 1..10 holds 10 of 55."""
    assert top_share(np.arange(1.0, 11.0), 0.1) == pytest.approx(10 / 55)


def test_slope_and_correlation() -> None:
    """An exact line has correlation +-1; noise of the same variance leaves 1/sqrt 2."""
    x = np.arange(100_000.0) / 1e5
    noise = np.random.default_rng(5).normal(size=len(x)) * x.std()

    assert slope_and_correlation(x, 3.0 - 2.0 * x) == pytest.approx((-2.0, -1.0, 3.0))
    assert slope_and_correlation(x, x + noise).correlation == pytest.approx(0.5**0.5, abs=0.01)


def test_regress_recovers_coefficients() -> None:
    """Two columns and a constant; columns that say the same determine nothing."""
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=500), rng.normal(size=500)

    assert regress(1.0 + 2.0 * a - 3.0 * b, a, b) == pytest.approx([1.0, 2.0, -3.0])
    assert np.isnan(regress(a, b, 2.0 * b)).all()


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=60), st.integers(1, 10))
def test_aggregate_keeps_the_sum_of_whole_groups(returns: list[int], horizon: int) -> None:
    """The long return is the sum of the short ones; a rest is dropped, not padded."""
    sums = aggregate(returns, horizon)

    assert len(sums) == len(returns) // horizon
    assert sums.sum() == sum(returns[: len(sums) * horizon])


def test_without_daily_pattern() -> None:
    """A series that is nothing but its pattern becomes flat, also when it starts within a day."""
    pattern = np.resize(np.arange(1.0, 25.0), 240)

    assert without_daily_pattern(pattern) == pytest.approx(np.ones(240))
    assert without_daily_pattern(pattern[5:], first_tick=5) == pytest.approx(np.ones(235))
    assert without_daily_pattern(np.zeros(48)) == pytest.approx(np.zeros(48))


def test_decay_exponent() -> None:
    """A power law gives its exponent, an exponential one something steep, negative values are left out."""
    lags = np.array([5, 10, 20, 50, 100, 200, 500])

    assert decay_exponent(0.9 * lags**-0.3, lags) == pytest.approx(0.3)
    assert decay_exponent([exp(-k / 20) for k in lags], lags) > 2.0
    assert decay_exponent([0.5, -0.1, 0.25, 0.125], [1, 2, 2, 4]) == pytest.approx(1.0)
    assert isnan(decay_exponent([0.1, -0.1, -0.1], [1, 2, 3]))


def test_binned_means() -> None:
    """Bins of equal size by rising x, whatever the order of the points."""
    x, y = binned_means([4.0, 1.0, 3.0, 2.0], [40.0, 10.0, 30.0, 20.0], 2)

    assert x.tolist() == [1.5, 3.5]
    assert y.tolist() == [15.0, 35.0]


@pytest.mark.parametrize("statistic", [skewness, excess_kurtosis, lambda x: autocorrelation(x, 0), hill_index, gini])
def test_undefined_is_nan(statistic: object) -> None:
    """Nothing that varies gives NaN without a warning, not a number that looks like a result."""
    assert callable(statistic)
    assert isnan(statistic([0.0] * 50))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: autocorrelation([1.0, 2.0], 2), "lag must be in 0..1"),
        (lambda: hill_index([1.0], 1.0), r"share must be in \(0, 1\), got 1.0"),
        (lambda: gini([-1.0, 2.0]), "amounts must be >= 0, got -1.0"),
        (lambda: aggregate([1.0], 0), "horizon must be >= 1, got 0"),
        (lambda: slope_and_correlation([1.0], [1.0, 2.0]), "same length, got 1 and 2"),
        (lambda: binned_means([1.0], [1.0], 2), "bins must be in 1..1, got 2"),
    ],
)
def test_a_wrong_argument_is_refused(call: object, said: str) -> None:
    """The message names what was given and what is allowed."""
    assert callable(call)
    with pytest.raises(ValueError, match=said):
        call()
