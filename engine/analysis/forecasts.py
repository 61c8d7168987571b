"""Forecasts of indicators some days ahead, with error bands, each scored on what it would have said in the past.

At every origin the forecast may use what was known there and nothing else: coefficients, the choice between forecast
and baseline, and the width of the band come from targets that had been reached. So the score is that of the method as
it is used, not of its best fit. Source: specification 004, predictive indicators; Marcellino, Stock & Watson 2006
(direct multi-step forecasts); Bates & Granger 1969 (combination); Vovk, Gammerman & Shafer 2005 (conformal bands).
"""

from __future__ import annotations

from bisect import insort
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analysis.needs import check_enough
from engine.markets import HOURS

Floats = NDArray[np.float64]

LAGS = (HOURS, 5 * HOURS)
"""Ticks over which past changes are looked at: a day, five days."""
COVERAGE = 0.8
"""Share of outcomes a band is made to contain."""
TRAIN_MIN = 5 * HOURS
"""Ticks of reached targets before the first coefficients."""
ERRORS_MIN = 10
"""Past errors, a day apart, before the first band."""
SCORED_MIN = 5
"""Forecasts, a day apart, a score is made from."""
RIDGE = 0.05
"""Shrinkage of the coefficients toward the random walk, as a share of each variable's variance."""
MARGIN = 0.95
"""Another method than the random walk is chosen where its mean absolute error so far is below this share of the walk's:
of four methods one is ahead by luck more often than not, and at long horizons luck does not last."""
METHODS = ("random_walk", "half", "regression", "mean")
"""What may be said at an origin: the last value; half the regression's change, all of it; the mean so far."""


class Forecast(NamedTuple):
    """What is expected `horizon` ticks after the last value. low, high: band that should hold COVERAGE of outcomes.

    method: of METHODS, the one with the least mean absolute error so far. mae: of the forecasts as they were chosen,
    over `scored` origins a day apart; mae_random_walk, mae_mean: of the baselines over the same. skill: 1 - mae over
    the random walk's, above 0 is better than saying that nothing changes. covered: share of outcomes inside a band.
    """

    horizon: int
    value: float
    low: float
    high: float
    method: str
    mae: float
    mae_random_walk: float
    mae_mean: float
    skill: float
    covered: float
    scored: int


def points_needed(horizon: int) -> int:
    """Return how many values a forecast over `horizon` ticks takes, its score included."""
    return max(LAGS) + TRAIN_MIN + 3 * horizon + (ERRORS_MIN + SCORED_MIN) * HOURS


def forecast(values: Floats, horizon: int) -> Forecast:
    """Return the forecast of the value `horizon` ticks (at least 1) after the last of `values`.

    values: one a tick, oldest first. Raises TooFew below points_needed(horizon) values.
    """
    count = len(values)
    check_enough(count, points_needed(horizon), "ticks")
    changes = _changes(values, horizon)
    first = max(LAGS) + TRAIN_MIN + horizon
    outcomes = values[first + horizon :] - values[first : count - horizon]
    errors = np.abs(changes[:, first : count - horizon] - outcomes)
    chosen = _chosen(errors, horizon)
    made = np.take_along_axis(changes[:, first:], chosen[None, :], axis=0)[0]
    missed = np.abs(made[: len(outcomes)] - outcomes)
    # from the last origin back, a day apart, so that the newest outcome counts
    origins = np.arange((len(made) - 1) % HOURS, len(made), HOURS)
    widths = _widths(missed, origins, horizon)
    scored = origins[(origins < len(outcomes)) & np.isfinite(widths[: len(origins)])]
    width = {int(origin): float(size) for origin, size in zip(origins, widths, strict=True)}
    mae = float(missed[scored].mean())
    walk, mean = float(errors[0, scored].mean()), float(errors[-1, scored].mean())
    covered = float(np.mean([missed[origin] <= width[int(origin)] for origin in scored]))
    value, half = float(values[-1] + made[-1]), width[len(made) - 1]
    return Forecast(
        horizon,
        value,
        value - half,
        value + half,
        METHODS[int(chosen[-1])],
        mae,
        walk,
        mean,
        1.0 - mae / walk if walk > 0.0 else 0.0,
        covered,
        len(scored),
    )


def _changes(values: Floats, horizon: int) -> Floats:
    """Return the change each method expects from every origin, shape (methods, values)."""
    regression = _regressed(values, horizon)
    mean = np.cumsum(values) / np.arange(1, len(values) + 1) - values
    return np.stack((np.zeros(len(values)), 0.5 * regression, regression, mean))


def _regressed(values: Floats, horizon: int) -> Floats:
    """Return the change over the horizon that a regression expects at every origin, from targets reached by then.

    On the distance from the mean so far and the changes over LAGS, without a constant: a trend that only the fit has
    seen is no forecast. Zero before there is anything to learn from.
    """
    start, count = max(LAGS), len(values)
    mean = np.cumsum(values) / np.arange(1, count + 1)
    columns = [values - mean] + [np.concatenate((np.zeros(lag), values[lag:] - values[:-lag])) for lag in LAGS]
    x = np.stack(columns, axis=1)
    x[:start] = 0.0
    target = np.zeros(count)
    target[start : count - horizon] = values[start + horizon :] - values[start : count - horizon]
    products = np.cumsum(x[:, :, None] * x[:, None, :], axis=0)
    moments = np.cumsum(x * target[:, None], axis=0)
    known = np.arange(count) - horizon
    origins = np.flatnonzero(known >= start + TRAIN_MIN)
    gram, moment = products[known[origins]], moments[known[origins]]
    scale = np.einsum("nii->ni", gram)
    # a column that never moved is left out by a weight of its own
    penalty = RIDGE * scale + np.where(scale > 0.0, 0.0, 1.0) + 1e-300
    gram = gram + penalty[:, :, None] * np.eye(x.shape[1])
    expected = np.zeros(count)
    expected[origins] = np.einsum("ni,ni->n", np.linalg.solve(gram, moment[:, :, None])[:, :, 0], x[origins])
    # never further than it has ever gone: columns that hardly moved before can promise anything
    farthest = np.maximum.accumulate(np.abs(target))[known[origins]]
    expected[origins] = np.clip(expected[origins], -farthest, farthest)
    return expected


def _chosen(errors: Floats, horizon: int) -> NDArray[np.int64]:
    """Return the method of every origin, those without an outcome yet included: the best by errors known there."""
    count = errors.shape[1]
    totals = np.cumsum(errors, axis=1)
    totals[0] *= MARGIN
    # nothing is chosen on the errors of a few days, which overlap
    totals[1:, : horizon + ERRORS_MIN * HOURS] = np.inf
    chosen = np.zeros(count + horizon, np.int64)
    # the error of the origin a horizon before is the newest one known
    chosen[horizon:] = np.argmin(totals, axis=0)
    return chosen


def _widths(missed: Floats, origins: NDArray[np.int64], horizon: int) -> Floats:
    """Return the half width of the band at every origin: a quantile of the errors known there; NaN before ERRORS_MIN.

    The errors of origins a day apart, the ceil((n + 1) COVERAGE)-th of n: exact for exchangeable errors.
    """
    widths = np.full(len(origins), np.nan)
    known: list[float] = []
    following = int(origins[0])
    for i, origin in enumerate(origins.tolist()):
        while following <= origin - horizon:
            insort(known, float(missed[following]))
            following += HOURS
        if len(known) >= ERRORS_MIN:
            widths[i] = known[min(len(known), ceil((len(known) + 1) * COVERAGE)) - 1]
    return widths
