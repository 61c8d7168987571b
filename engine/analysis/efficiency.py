"""Is a market efficient: variance ratios, a Hurst exponent and a test for autocorrelation, and what they say together.

All three ask whether returns can be told from their past. Source: Lo & MacKinlay 1988, Review of Financial Studies
1(1); Peng et al. 1994, Physical Review E 49(2); Ljung & Box 1978, Biometrika 65(2); Diebold 1986.
"""

from __future__ import annotations

from enum import StrEnum
from math import erfc, exp, lgamma, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analysis.needs import check_enough
from engine.analysis.statistics import autocorrelations

Floats = NDArray[np.float64]

HORIZONS = (2, 4, 8, 16)
"""Ticks over which variances are compared, as in Lo & MacKinlay's Table 1."""
LAGS = 10
"""Autocorrelations that are tested together."""
BOX_MIN = 8
"""Shortest window of the detrended fluctuation analysis, ticks."""
BOXES_MIN = 4
"""Fewest windows a size may have: larger sizes say little."""
POINTS_MIN = 200
"""Fewest returns a verdict is given for."""
SIGNIFICANCE = 0.01
"""Chance that a test of one market calls an efficient one inefficient, all its tests together."""
HURST_ROOT = 1.3
"""Standard deviation of the Hurst estimate of unpredictable returns, times the root of their number. Measured on
series of 200 to 20,000: 1.0 for normal ones, 1.2 for t(3), 1.3 for GARCH(1,1) with t(6) up to 1,000. Their mean is
.490 at 200, .495 at 1,000, .497 at 5,000."""


class Verdict(StrEnum):
    """What the tests say together. unpredictable: none of them rejects."""

    UNPREDICTABLE = "unpredictable"
    TRENDING = "trending"
    REVERTING = "reverting"
    MIXED = "mixed"


class VarianceRatio(NamedTuple):
    """Variance of returns over `horizon` ticks / (horizon x variance of one): 1 for a random walk.

    z: standard normal under a random walk whose variance may change. p: two-sided.
    """

    horizon: int
    ratio: float
    z: float
    p: float


class Portmanteau(NamedTuple):
    """A test of the first `lags` autocorrelations together. statistic: chi-square of so many degrees; p: its tail."""

    lags: int
    statistic: float
    p: float


class Efficiency(NamedTuple):
    """Everything about one market. hurst: .5 for independent returns; hurst_error: its standard error then.

    ljung_box: supposes a constant variance and calls clustered volatility autocorrelation; robust: does not, and is
    what the verdict uses. autocorrelations: at lags 1..LAGS.
    """

    observations: int
    autocorrelations: Floats
    ratios: tuple[VarianceRatio, ...]
    hurst: float
    hurst_error: float
    ljung_box: Portmanteau
    robust: Portmanteau
    verdict: Verdict


def efficiency(returns: Floats) -> Efficiency:
    """Return what the returns of a market say about its efficiency.

    Raises TooFew below POINTS_MIN returns, ValueError when they are all the same.
    """
    check_enough(len(returns), POINTS_MIN, "returns")
    if np.ptp(returns) == 0.0:
        raise ValueError("the price never moves")
    correlations = autocorrelations(returns, range(1, LAGS + 1))
    ratios = tuple(variance_ratio(returns, horizon) for horizon in HORIZONS)
    hurst, error = hurst_exponent(returns), hurst_error(len(returns))
    plain, robust = ljung_box(returns, LAGS), ljung_box(returns, LAGS, robust=True)
    verdict = _verdict(ratios, hurst, error, robust, correlations)
    return Efficiency(len(returns), correlations, ratios, hurst, error, plain, robust, verdict)


def variance_ratio(returns: Floats, horizon: int) -> VarianceRatio:
    """Return the variance ratio of overlapping sums of `horizon` (at least 2) returns, with its robust z.

    Source: Lo & MacKinlay 1988, equations 12 to 14 and 17 to 20: M_r with unbiased variances, z* under
    heteroscedasticity.
    """
    n = len(returns)
    centred = returns - returns.mean()
    single = float(centred @ centred) / (n - 1)
    sums = np.concatenate((np.zeros(1), np.cumsum(centred)))
    overlapping = sums[horizon:] - sums[:-horizon]
    scale = horizon * (n - horizon + 1) * (1.0 - horizon / n)
    ratio = float(overlapping @ overlapping) / scale / single
    squares = centred * centred
    total = float(squares.sum()) ** 2
    variance = sum(
        (2.0 * (horizon - lag) / horizon) ** 2 * float(squares[lag:] @ squares[:-lag]) / total
        for lag in range(1, horizon)
    )
    z = (ratio - 1.0) / sqrt(variance) if variance > 0.0 else 0.0
    return VarianceRatio(horizon, ratio, z, erfc(abs(z) / sqrt(2.0)))


def hurst_exponent(returns: Floats) -> float:
    """Return the Hurst exponent by detrended fluctuation analysis of order 1: .5 independent, above: persistent.

    Window sizes rise by a fourth from BOX_MIN to a quarter of the series; windows are laid from its begin. The size of
    small windows' fluctuations is corrected by what independent normal returns have there, so that these give .5: the
    bare method gives .53 to .55 at these lengths. Source: Peng et al. 1994; the correction: Kantelhardt et al. 2001,
    Physica A 295, equation 10, in closed form.
    """
    profile = np.cumsum(returns - returns.mean())
    sizes = _sizes(len(returns))
    fluctuations = np.array([_fluctuation(profile, size) / _expected(size) for size in sizes])
    x, y = np.log(np.array(sizes, np.float64)), np.log(fluctuations)
    # every size counts by its number of windows: the large ones are few, and their fluctuations vary most
    weights = np.array([len(returns) // size for size in sizes], np.float64)
    x = x - np.average(x, weights=weights)
    return 0.5 + float((weights * x) @ y) / float((weights * x) @ x)


def hurst_error(count: int) -> float:
    """Return the standard error of hurst_exponent for so many independent returns, measured: see HURST_ROOT."""
    return HURST_ROOT / sqrt(count)


def ljung_box(returns: Floats, lags: int = LAGS, *, robust: bool = False) -> Portmanteau:
    """Return the Ljung-Box test of the first `lags` autocorrelations.

    robust: each squared autocorrelation is divided by what clustered volatility adds to its variance, so that a
    GARCH process passes. Source: Ljung & Box 1978; Diebold 1986, "Testing for serial correlation in the presence of
    ARCH", equation 4.
    """
    n = len(returns)
    centred = returns - returns.mean()
    variance = float(centred @ centred) / n
    correlations = autocorrelations(returns, range(1, lags + 1))
    statistic = 0.0
    squares = centred * centred - variance
    for lag in range(1, lags + 1):
        inflation = 1.0
        if robust:
            inflation = max(1.0, 1.0 + float(squares[lag:] @ squares[:-lag]) / n / variance**2)
        statistic += float(correlations[lag - 1]) ** 2 / inflation / (n - lag)
    statistic *= n * (n + 2.0)
    return Portmanteau(lags, statistic, chi_square_tail(statistic, lags))


def chi_square_tail(value: float, degrees: int) -> float:
    """Return the chance that a chi-square variable of so many degrees (at least 1) exceeds a value.

    The regularised upper incomplete gamma function Q(degrees / 2, value / 2): by its series below the mean, by its
    continued fraction above. Source: Press et al. 2007, Numerical Recipes, section 6.2.
    """
    a, x = degrees / 2.0, value / 2.0
    if x <= 0.0:
        return 1.0
    front = exp(a * log(x) - x - lgamma(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        k = a
        while term > total * 1e-16:
            k += 1.0
            term *= x / k
            total += term
        return 1.0 - front * total
    # modified Lentz
    b = x + 1.0 - a
    c, d = 1e300, 1.0 / b
    fraction = d
    for i in range(1, 500):
        an = -i * (i - a)
        b += 2.0
        d = 1.0 / (an * d + b)
        c = b + an / c
        change = c * d
        fraction *= change
        if abs(change - 1.0) < 1e-15:
            break
    return front * fraction


def _verdict(
    ratios: tuple[VarianceRatio, ...], hurst: float, error: float, robust: Portmanteau, correlations: Floats
) -> Verdict:
    """Return what the tests say together.

    Each of the three kinds may reject with a third of SIGNIFICANCE, the ratios with a share of theirs each, so that
    all of them together call an unpredictable market something else at most once in 1 / SIGNIFICANCE (Bonferroni).
    """
    share = SIGNIFICANCE / 3.0
    signs = [np.sign(item.z) for item in ratios if item.p < share / len(ratios)]
    deviation = (hurst - 0.5) / error
    if erfc(abs(deviation) / sqrt(2.0)) < share:
        signs.append(np.sign(deviation))
    if robust.p < share:
        # several lags of both signs may be what it found: the largest says which way
        signs.append(np.sign(correlations[np.argmax(np.abs(correlations))]))
    if not signs:
        return Verdict.UNPREDICTABLE
    if min(signs) != max(signs):
        return Verdict.MIXED
    return Verdict.TRENDING if signs[0] > 0 else Verdict.REVERTING


def _sizes(count: int) -> list[int]:
    sizes: list[int] = []
    size = float(BOX_MIN)
    while size <= count // BOXES_MIN:
        if not sizes or int(size) > sizes[-1]:
            sizes.append(int(size))
        size *= 1.25
    return sizes


def _fluctuation(profile: Floats, size: int) -> float:
    """Return the root mean square of the profile around its straight lines in windows of a size."""
    windows = profile[: len(profile) // size * size].reshape(-1, size)
    time = np.arange(size) - (size - 1) / 2.0
    centred = windows - windows.mean(axis=1, keepdims=True)
    slopes = centred @ time / float(time @ time)
    squares = float(np.einsum("ij,ij->", centred, centred)) - float(slopes @ slopes) * float(time @ time)
    return sqrt(squares / windows.size)


def _expected(size: int) -> float:
    """Return the fluctuation of the profile of independent unit returns in windows of a size.

    The mean square of a random walk of s steps around its line is (s^2 - 4) / (15 s).
    """
    return sqrt((size * size - 4.0) / (15.0 * size))
