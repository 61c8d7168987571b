"""Estimators over plain arrays: the one home of every statistic that is computed from a history.

An argument outside what is allowed raises ValueError. Data that leave a statistic undefined (too few values, no
variation) give NaN, so that whoever reports can say what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]] | NDArray[np.integer[Any]] | Sequence[float]
F64 = NDArray[np.float64]

NAN = float("nan")


class Line(NamedTuple):
    """A straight line through points: y = intercept + slope x, and how close they are to it."""

    slope: float
    correlation: float
    intercept: float


def skewness(x: Values) -> float:
    """Return the third standardised moment of x (population moments); 0 for a symmetric distribution."""
    centred, variance = _moments(x)
    return float((centred**3).mean() / variance**1.5) if variance > 0.0 else NAN


def excess_kurtosis(x: Values) -> float:
    """Return the fourth standardised moment of x minus 3 (population moments); 0 for a normal distribution."""
    centred, variance = _moments(x)
    return float((centred**4).mean() / variance**2 - 3.0) if variance > 0.0 else NAN


def autocorrelation(x: Values, lag: int) -> float:
    """Return the autocorrelation of x at one lag, in [-1, 1].

    lag: 0 to len(x) - 1. The sum of products over the sum of squares of all of x: biased toward 0 by the factor
    1 - lag / len(x), and never outside [-1, 1].
    Source: Box, Jenkins, Reinsel, Time Series Analysis, estimate (2.1.12).
    """
    return float(autocorrelations(x, (lag,))[0])


def autocorrelations(x: Values, lags: Sequence[int]) -> F64:
    """Return the autocorrelations of x at several lags, each as autocorrelation gives it."""
    centred, variance = _moments(x)
    n = len(centred)
    for lag in lags:
        if not 0 <= lag < max(n, 1):
            raise ValueError(f"lag must be in 0..{n - 1} for {n} values, got {lag}")
    if not variance > 0.0:
        return np.full(len(lags), NAN)
    return np.array([centred[: n - lag] @ centred[lag:] for lag in lags]) / (variance * n)


def hill_index(x: Values, share: float = 0.05) -> float:
    """Return the tail index of |x| by its largest values: 1 / mean log of (largest share of them / the next one).

    share: of the values that count as tail, in (0, 1). NaN when the tail is empty or starts at 0.
    Source: Hill 1975, Annals of Statistics 3:1163.
    """
    _check_share(share)
    sizes = np.sort(np.abs(_floats(x)))
    count = int(len(sizes) * share)
    if count < 1 or sizes[-count - 1] <= 0.0:
        return NAN
    excess = float(np.log(sizes[-count:] / sizes[-count - 1]).mean())
    return 1.0 / excess if excess > 0.0 else NAN


def pareto_exponent(x: Values, share: float = 0.05) -> float:
    """Return the exponent alpha of the upper tail P(X > x) ~ x^-alpha of amounts, by its largest share.

    x: amounts; those below 0 count as 0. Source: Hill 1975; for wealth: Vermeulen 2014, ECB working paper 1692.
    """
    return hill_index(np.maximum(_floats(x), 0.0), share)


def gini(x: Values) -> float:
    """Return the Gini coefficient of amounts, from 0 (all equal) to (n - 1) / n (one has everything).

    Raises ValueError for an amount below 0. Source: area under the Lorenz curve by its sorted form.
    """
    sizes = np.sort(_floats(x))
    n, total = len(sizes), float(sizes.sum())
    if n and sizes[0] < 0.0:
        raise ValueError(f"amounts must be >= 0, got {sizes[0]}")
    if not total > 0.0:
        return NAN
    ranks = np.arange(1, n + 1)
    return float((2.0 * ranks - n - 1.0) @ sizes / (n * total))


def top_share(x: Values, share: float = 0.01) -> float:
    """Return the part of all amounts that the largest share of them holds, in [0, 1]; at least one counts."""
    _check_share(share)
    sizes = np.sort(_floats(x))
    total = float(sizes.sum())
    return float(sizes[-max(1, round(len(sizes) * share)) :].sum() / total) if total > 0.0 else NAN


def slope_and_correlation(x: Values, y: Values) -> Line:
    """Return the least-squares line of y on x and the correlation of both.

    Raises ValueError for different lengths. NaN when x does not vary or there are fewer than 3 points.
    """
    a, b = _floats(x), _floats(y)
    if len(a) != len(b):
        raise ValueError(f"x and y must have the same length, got {len(a)} and {len(b)}")
    if len(a) < 3:
        return Line(NAN, NAN, NAN)
    da, db = a - a.mean(), b - b.mean()
    xx, yy, xy = float(da @ da), float(db @ db), float(da @ db)
    if not xx > 0.0:
        return Line(NAN, NAN, NAN)
    slope = xy / xx
    return Line(slope, xy / float(np.sqrt(xx * yy)) if yy > 0.0 else NAN, float(b.mean() - slope * a.mean()))


def regress(y: Values, *columns: Values) -> F64:
    """Return the least-squares coefficients of y on a constant and columns, shape (1 + columns,), constant first.

    NaN when the columns do not determine them.
    """
    target = _floats(y)
    table = np.column_stack([np.ones(len(target)), *(_floats(column) for column in columns)])
    if np.linalg.matrix_rank(table) < table.shape[1]:
        return np.full(table.shape[1], NAN)
    return np.asarray(np.linalg.lstsq(table, target, rcond=None)[0], np.float64)


def aggregate(returns: Values, horizon: int) -> F64:
    """Return the sums of consecutive, non-overlapping groups of horizon returns; a rest at the end is dropped.

    horizon: >= 1. Log returns (bp) of a longer period are sums of those of the shorter one.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be >= 1, got {horizon}")
    x = _floats(returns)
    whole = len(x) // horizon
    return np.asarray(x[: whole * horizon].reshape(whole, horizon).sum(axis=1), np.float64)


def without_daily_pattern(sizes: Values, first_tick: int = 0, period: int = 24) -> F64:
    """Return sizes divided by the mean of their hour of the day: 1 on average in every hour.

    sizes: one per tick, >= 0. first_tick: tick of the first one. An hour whose mean is 0 stays 0.
    Source: ECONOMY B0, how it is measured.
    """
    x = _floats(sizes)
    hour = (np.arange(len(x)) + first_tick) % period
    count = np.bincount(hour, minlength=period)
    mean = np.bincount(hour, weights=x, minlength=period) / np.maximum(count, 1)
    return np.asarray(np.divide(x, mean[hour], out=np.zeros(len(x)), where=mean[hour] > 0.0), np.float64)


def decay_exponent(values: Values, lags: Values) -> float:
    """Return b of values ~ lag^-b by a line through the logarithms, over the positive values.

    NaN with fewer than 3 positive values. Source: ECONOMY B0; Cont 2001, Quantitative Finance 1:223.
    """
    v, k = _floats(values), _floats(lags)
    positive = v > 0.0
    return -slope_and_correlation(np.log(k[positive]), np.log(v[positive])).slope


def binned_means(x: Values, y: Values, bins: int) -> tuple[F64, F64]:
    """Return the means of x and y in bins of equally many points by rising x, shape (bins,) each.

    bins: 1 to the number of points; a larger one raises ValueError.
    """
    a, b = _floats(x), _floats(y)
    if not 1 <= bins <= len(a):
        raise ValueError(f"bins must be in 1..{len(a)}, got {bins}")
    order = np.argsort(a, kind="stable")
    groups = np.array_split(order, bins)
    return np.array([a[g].mean() for g in groups]), np.array([b[g].mean() for g in groups])


def _floats(x: Values) -> F64:
    return np.asarray(x, np.float64)


def _moments(x: Values) -> tuple[F64, float]:
    """Return x minus its mean, and its variance; NaN for fewer than 2 values, 0 for values that do not vary."""
    values = _floats(x)
    if len(values) < 2:
        return values, NAN
    centred = values - values.mean()
    # a constant leaves crumbs of rounding behind that are no variation
    flat = bool((values == values[0]).all())
    return centred, 0.0 if flat else float((centred * centred).mean())


def _check_share(share: float) -> None:
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must be in (0, 1), got {share}")
