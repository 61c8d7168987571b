"""Price impact: how far signed order flow moves the price, as a slope with its error and as a curve over sizes.

Source: specification 004, price impact models; Kyle 1985, Econometrica 53(6); Bouchaud, Farmer & Lillo 2009, "How
markets slowly digest changes in supply and demand".
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analysis.needs import check_enough

Floats = NDArray[np.float64]

BINS = 12
"""Size bins of an impact curve."""
POINTS_MIN = 100
"""Fewest ticks with flow an estimate is made from."""


class Regression(NamedTuple):
    """change = intercept + slope x flow. standard_error: of the slope, whatever the variance of the residuals does.

    r_squared: share of the changes' variance that the flow explains. observations: ticks.
    """

    slope: float
    standard_error: float
    intercept: float
    r_squared: float
    observations: int


class ImpactCurve(NamedTuple):
    """Mean impact by size. flow: mean |flow| of each bin, rising; impact: mean change in the direction of the flow.

    standard_error: of each mean. counts: ticks in each bin. exponent: b of impact = a x flow^b over the bins whose
    mean impact is above zero, None with fewer than three of them; exponent_error: its standard error.
    """

    flow: Floats
    impact: Floats
    standard_error: Floats
    counts: NDArray[np.int64]
    exponent: float | None
    exponent_error: float | None


def kyle_lambda(changes: Floats, flows: Floats) -> Regression:
    """Return the regression of price changes on signed flow: its slope is Kyle's lambda, change a unit of flow.

    changes, flows: one entry a tick. Standard errors after White 1980 with the small-sample factor n / (n - 2).
    Raises TooFew below POINTS_MIN entries, ValueError when the flow never changes.
    """
    count = len(flows)
    check_enough(count, POINTS_MIN, "ticks")
    mean_flow, mean_change = flows.mean(), changes.mean()
    x, y = flows - mean_flow, changes - mean_change
    spread = float(x @ x)
    if spread == 0.0:
        raise ValueError("the flow never changes")
    slope = float(x @ y) / spread
    residual = y - slope * x
    error = np.sqrt(count / (count - 2.0) * float((x * residual) @ (x * residual))) / spread
    total = float(y @ y)
    explained = 1.0 - float(residual @ residual) / total if total > 0.0 else 0.0
    return Regression(slope, float(error), float(mean_change - slope * mean_flow), explained, count)


def impact_curve(changes: Floats, flows: Floats, bins: int = BINS) -> ImpactCurve:
    """Return the mean signed change against the size of the flow, in bins of equally many ticks with flow.

    Raises TooFew below POINTS_MIN ticks with flow.
    """
    moving = flows != 0.0
    signed, sizes = (changes * np.sign(flows))[moving], np.abs(flows[moving])
    check_enough(len(sizes), POINTS_MIN, "ticks with flow")
    order = np.argsort(sizes, kind="stable")
    borders = np.linspace(0, len(order), bins + 1).astype(np.int64)
    parts = [order[first:end] for first, end in pairwise(borders)]
    flow, impact = np.array([sizes[part].mean() for part in parts]), np.array([signed[part].mean() for part in parts])
    errors = np.array([signed[part].std() / np.sqrt(len(part)) for part in parts])
    exponent, exponent_error = _exponent(flow, impact)
    return ImpactCurve(flow, impact, errors, np.diff(borders), exponent, exponent_error)


def _exponent(flow: Floats, impact: Floats) -> tuple[float | None, float | None]:
    """Return slope and standard error of log impact on log flow; None with fewer than three usable bins."""
    usable = impact > 0.0
    if usable.sum() < 3 or np.ptp(flow[usable]) == 0.0:
        return None, None
    x, y = np.log(flow[usable]), np.log(impact[usable])
    x = x - x.mean()
    slope = float(x @ y) / float(x @ x)
    residual = y - y.mean() - slope * x
    variance = float(residual @ residual) / (len(x) - 2.0)
    return slope, float(np.sqrt(variance / float(x @ x)))
