"""Figures beyond the bands: what the model aims at and may miss. Impact, leverage, wealth, the wage's daily pattern.

A goal that is missed is reported with how near it came; it does not fail a report. Source: ECONOMY B2 to B4, D.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analysis.figures import Figure, Verdict, aim, finite, shown
from engine.analysis.recording import ASSETS, Recording
from engine.analysis.statistics import (
    NAN,
    binned_means,
    gini,
    pareto_exponent,
    slope_and_correlation,
    top_share,
)
from engine.markets import HOURS, LABOUR

IMPACT_BINS = 12
IMPACT_GOAL = (0.4, 0.7)
LEVERAGE_LAGS = tuple(range(1, 11))
LEVERAGE_GOAL = -0.03
GINI_GOAL = (0.6, 0.85)
PARETO_GOAL = (1.3, 2.0)
PARETO_SHARE = 0.05
WAGE_GOAL_BP = 25.0
"""Largest spread of the hours of the day that counts as no pattern: a quarter of a per cent of the wage."""

F64 = NDArray[np.float64]


class Impact(NamedTuple):
    """Impact of orders by size: points for a plot, and the exponent of a power law through them."""

    size: F64
    impact: F64
    exponent: float


def goal_figures(recording: Recording) -> list[Figure]:
    """Return the goals that a recording alone shows."""
    return [_natural_impact(recording), _leverage(recording), *_wealth(recording), _wage_pattern(recording)]


def natural_impact(recording: Recording, market: int) -> Impact:
    """Return the mean return against the signed imbalance of the same tick, in 12 bins of size.

    size: lots, impact: bp in the direction of the imbalance. Source: ECONOMY B3; Bouchaud, Farmer & Lillo 2009.
    """
    imbalance = recording.imbalance[:, market].astype(np.float64)
    side, size = np.sign(imbalance), np.abs(imbalance)
    moved = recording.returns[:, market] * side
    some = size > 0.0
    if some.sum() < 20 * IMPACT_BINS:
        return Impact(np.zeros(0), np.zeros(0), NAN)
    x, y = binned_means(size[some], moved[some], IMPACT_BINS)
    return Impact(x, y, power_law(x, y))


def power_law(x: F64, y: F64) -> float:
    """Return b of y ~ x^b by a line through the logarithms of the positive points; NaN with fewer than 3 of them."""
    positive = (x > 0.0) & (y > 0.0)
    return slope_and_correlation(np.log(x[positive]), np.log(y[positive])).slope


def leverage(returns: NDArray[np.int64]) -> float:
    """Return the mean correlation of a return with the squared returns 1 to 10 ticks later. returns: shape (T,).

    Source: Bouchaud, Matacz & Potters 2001, Physical Review Letters 87:228701.
    """
    r = np.asarray(returns, np.float64)
    squares = r * r
    if len(r) < 2 * LEVERAGE_LAGS[-1]:
        return NAN
    return float(np.mean([slope_and_correlation(r[:-lag], squares[lag:]).correlation for lag in LEVERAGE_LAGS]))


def wage_by_hour(recording: Recording) -> F64:
    """Return the spot wage of each hour of the day against the mean of its day, bp, shape (24,); NaN without days.

    The mean of a day is that of the 24 ticks around the hour, so that a trend of the wage is no pattern.
    """
    level = recording.level[:, LABOUR].astype(np.float64)
    if len(level) < 3 * HOURS:
        return np.full(HOURS, NAN)
    sums = np.concatenate([[0.0], np.cumsum(level)])
    middle = (sums[HOURS:] - sums[:-HOURS]) / HOURS
    # the mean of two days half an hour apart is centred on the tick
    centred = (middle[1:] + middle[:-1]) / 2.0
    half = HOURS // 2
    gap = level[half : half + len(centred)] - centred
    hour = (recording.first_tick + half + np.arange(len(gap))) % HOURS
    mean: F64 = np.bincount(hour, weights=gap, minlength=HOURS) / np.bincount(hour, minlength=HOURS)
    return mean


def _natural_impact(recording: Recording) -> Figure:
    exponents = np.array([natural_impact(recording, m).exponent for m in ASSETS])
    known = exponents[np.isfinite(exponents)]
    middle = float(np.median(known)) if len(known) else NAN
    text = shown(middle, needs=20 * IMPACT_BINS, ticks=recording.ticks)
    if len(known):
        text += f" [{known.min():.2f} .. {known.max():.2f}]"
    return Figure(
        id="impact_natural",
        title="impact of the natural order flow of a tick: exponent",
        value=text,
        band=f"{IMPACT_GOAL[0]} .. {IMPACT_GOAL[1]}",
        reference="concave, .2 to .5 for single trades (Bouchaud, Farmer & Lillo 2009, arXiv 0809.0822)",
        verdict=aim(IMPACT_GOAL[0] <= middle <= IMPACT_GOAL[1], recording.ticks),
        numbers=finite(median=middle),
    )


def _leverage(recording: Recording) -> Figure:
    returns = recording.returns
    values = np.array([leverage(returns[:, m]) for m in ASSETS])
    known = values[np.isfinite(values)]
    middle = float(np.median(known)) if len(known) else NAN
    text = shown(middle, ".3f", needs=2 * LEVERAGE_LAGS[-1], ticks=recording.ticks)
    if len(known):
        text += f" [{known.min():.3f} .. {known.max():.3f}]"
    return Figure(
        id="leverage",
        title="leverage: correlation of r with r^2 of the next 10 ticks",
        value=text,
        band=f"<= {LEVERAGE_GOAL}",
        reference="about -.1 for indices, weaker for single shares (Bouchaud, Matacz & Potters 2001, PRL 87:228701)",
        verdict=aim(middle <= LEVERAGE_GOAL, recording.ticks),
        numbers=finite(median=middle),
    )


def _wealth(recording: Recording) -> list[Figure]:
    figures = []
    for amounts, who, is_goal in (
        (recording.household_wealth, "households", True),
        (recording.resident_wealth, "all residents", False),
    ):
        unequal, alpha, top = gini(amounts), pareto_exponent(amounts, PARETO_SHARE), top_share(amounts)
        inside = GINI_GOAL[0] <= unequal <= GINI_GOAL[1]
        in_tail = PARETO_GOAL[0] <= alpha <= PARETO_GOAL[1]
        figures += [
            Figure(
                id="gini" if is_goal else "gini_residents",
                title=f"wealth of {who}: Gini coefficient",
                value=f"{shown(unequal)}; richest 1 % hold {shown(top, '.1%')}",
                band=f"{GINI_GOAL[0]} .. {GINI_GOAL[1]}" if is_goal else "",
                reference="US about .8, top 1 % about 30 % (Survey of Consumer Finances; Vermeulen 2014, ECB WP 1692)",
                verdict=aim(inside, recording.ticks) if is_goal else Verdict.SHOWN,
                numbers=finite(gini=unequal, top_percent=top),
            ),
            Figure(
                id="pareto" if is_goal else "pareto_residents",
                title=f"wealth of {who}: Pareto exponent of the richest 5 %",
                value=shown(alpha),
                band=f"{PARETO_GOAL[0]} .. {PARETO_GOAL[1]}" if is_goal else "",
                reference="about 1.5 (Vermeulen 2014, ECB WP 1692; Klass et al. 2006, Economics Letters 90:290)",
                verdict=aim(in_tail, recording.ticks) if is_goal else Verdict.SHOWN,
                numbers=finite(alpha=alpha),
            ),
        ]
    return figures


def _wage_pattern(recording: Recording) -> Figure:
    pattern = wage_by_hour(recording)
    spread = float(np.ptp(pattern))
    value = (
        f"{spread:.0f} bp from lowest to highest hour"
        if spread == spread
        else shown(NAN, needs=3 * HOURS, ticks=recording.ticks)
    )
    return Figure(
        id="wage_pattern",
        title="fixed daily pattern of the spot wage",
        value=value,
        band=f"<= {WAGE_GOAL_BP:.0f} bp",
        reference="wages do not change by the hour",
        verdict=aim(spread <= WAGE_GOAL_BP, recording.ticks),
        numbers=finite(spread_bp=spread),
    )
