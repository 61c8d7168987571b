"""Early warning of crises: how alarming signs stand against their own past, and what that was worth before.

The score of a day is the mean rank of its signs among all days up to it, so it needs no scale and no fit, and a score
in the backtest is the score that was to be had then. Source: Kaminsky, Lizondo & Reinhart 1998 (the signals approach);
Berge & Jorda 2011 (the area under the curve).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analysis.needs import check_enough
from engine.markets import HOURS

Floats = NDArray[np.float64]

HORIZON_DAYS = 5
"""A warning is right when a crisis begins within so many days."""
ALARM = 0.8
"""Score from which a day counts as warned of."""
DAYS_MIN = 10
"""Days before the first score."""


class Backtest(NamedTuple):
    """What scores of calm days were worth. days: calm days with a score and a known outcome; onsets: crises begun.

    auc: chance that a day before a crisis scored higher than another, .5 is chance. hit_rate: share of days before a
    crisis that were warned of; false_alarm_rate: of the other days.
    """

    days: int
    onsets: int
    auc: float
    hit_rate: float
    false_alarm_rate: float


class EarlyWarning(NamedTuple):
    """The newest day. score: 0 (never calmer) to 1 (never more alarming). is_alarm: at least ALARM.

    is_crisis: one is under way. backtest: None while the past holds no crisis, or nothing but one.
    """

    score: float
    is_alarm: bool
    is_crisis: bool
    days: int
    backtest: Backtest | None


def early_warning(signs: Floats, in_crisis: NDArray[np.bool_]) -> EarlyWarning:
    """Return how near a crisis looks at the last tick.

    signs: shape (ticks, signs), each higher when things are worse. in_crisis: shape (ticks,). Days end at the last
    tick. Raises TooFew below DAYS_MIN days.
    """
    last = len(signs) - 1
    days = np.arange(last % HOURS, last + 1, HOURS)
    check_enough(len(days), DAYS_MIN, "days")
    scores = np.mean([_ranks(signs[days, k].tolist()) for k in range(signs.shape[1])], axis=0)
    begins = np.flatnonzero(in_crisis[1:] & ~in_crisis[:-1]) + 1
    before = np.zeros(len(signs), np.bool_)
    for begin in begins.tolist():
        before[max(0, begin - HORIZON_DAYS * HOURS) : begin] = True
    known = np.arange(len(days)) >= DAYS_MIN - 1
    judged = known & ~in_crisis[days] & (days + HORIZON_DAYS * HOURS <= last)
    score = float(scores[-1])
    return EarlyWarning(
        score,
        score >= ALARM,
        bool(in_crisis[-1]),
        len(days),
        _backtest(scores[judged], before[days[judged]], int((begins > days[DAYS_MIN - 1]).sum())),
    )


def _backtest(scores: Floats, is_before: NDArray[np.bool_], onsets: int) -> Backtest | None:
    alarming, calm = scores[is_before], scores[~is_before]
    if not len(alarming) or not len(calm):
        return None
    ordered = np.sort(calm)
    # ties count half, as in the statistic of Mann & Whitney
    wins = np.searchsorted(ordered, alarming, "left") + np.searchsorted(ordered, alarming, "right")
    return Backtest(
        len(scores),
        onsets,
        float(wins.sum()) / (2.0 * len(alarming) * len(calm)),
        float(np.mean(alarming >= ALARM)),
        float(np.mean(calm >= ALARM)),
    )


def _ranks(values: list[float]) -> Floats:
    """Return the place of each value among those up to it, from 0 to 1; ties in the middle."""
    seen: list[float] = []
    places = np.empty(len(values))
    for i, value in enumerate(values):
        insort(seen, value)
        places[i] = (bisect_left(seen, value) + bisect_right(seen, value)) / (2.0 * len(seen))
    return places
