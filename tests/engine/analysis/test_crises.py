"""Early warning: planted crises are seen coming, noise is no oracle, and nothing is known before it happens."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.analysis.crises import ALARM, DAYS_MIN, HORIZON_DAYS, early_warning
from engine.analysis.needs import TooFew

DAY = 24
DAYS = 400


def planted(signal: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return three signs that rise by `signal` in the five days before each crisis, and the crises."""
    random = np.random.default_rng(1)
    signs = random.standard_normal((DAYS * DAY, 3))
    in_crisis = np.zeros(DAYS * DAY, np.bool_)
    for begin in range(40 * DAY, DAYS * DAY - 10 * DAY, 45 * DAY):
        signs[begin - HORIZON_DAYS * DAY : begin] += signal
        in_crisis[begin : begin + 2 * DAY] = True
    return signs, in_crisis


def test_crises_that_announce_themselves_are_seen_coming() -> None:
    """The area under the curve, the hits and the false alarms say so."""
    backtest = early_warning(*planted(3.0)).backtest

    assert backtest is not None
    assert backtest.onsets == 8
    assert backtest.auc > 0.97
    assert backtest.hit_rate > 0.7
    assert backtest.false_alarm_rate < 0.1


def test_crises_that_do_not_are_not() -> None:
    """Signs that know nothing score by chance."""
    backtest = early_warning(*planted(0.0)).backtest

    assert backtest is not None
    assert backtest.auc == pytest.approx(0.5, abs=0.15)


def test_the_newest_day_is_ranked_among_those_before() -> None:
    """1 - half a rank when it was never worse, and that is an alarm; what follows changes nothing."""
    signs, in_crisis = planted(1.0)
    signs[-1] = 100.0

    found = early_warning(signs, in_crisis)
    earlier = early_warning(signs[: 100 * DAY], in_crisis[: 100 * DAY])
    later = early_warning(np.concatenate((signs[: 100 * DAY], signs[:0])), in_crisis[: 100 * DAY])

    assert found.score == pytest.approx(1.0 - 0.5 / DAYS)
    assert found.is_alarm
    assert found.score >= ALARM
    assert not found.is_crisis
    assert found.days == DAYS
    assert earlier == later


def test_without_a_crisis_there_is_no_backtest() -> None:
    """A score, and nothing to judge it by; the same when there is nothing but crisis."""
    signs, in_crisis = planted(1.0)

    assert early_warning(signs, np.zeros_like(in_crisis)).backtest is None
    lasting = early_warning(signs, np.ones_like(in_crisis))
    assert lasting.backtest is None
    assert lasting.is_crisis


def test_too_little_is_said_in_numbers() -> None:
    """A rank takes some days to be one among."""
    with pytest.raises(TooFew, match="9 of the 10 days"):
        early_warning(np.zeros(((DAYS_MIN - 1) * DAY, 2)), np.zeros((DAYS_MIN - 1) * DAY, np.bool_))
