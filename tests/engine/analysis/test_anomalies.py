"""The anomaly detector: false alarms at the rate it says, what is planted found at once, whole episodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.analysis.anomalies import CALM_TICKS, FACTOR, SERIES, WARM_UP, Anomaly, Detector
from engine.economy import Economy
from engine.events import PublicState
from engine.markets import ID, MARKETS
from tests.support.published import World
from tests.support.worlds import small_config

TICKS, LEARNING = 12_000, 4_000


@pytest.mark.parametrize(
    ("degrees", "low", "high"),
    # of t(3) one in 34,000, of t(4) one in 160,000; normal ones never
    [(np.inf, 0, 0), (4, 1, 20), (3, 15, 60)],
)
def test_false_alarms_come_at_the_rate_it_says(degrees: float, low: int, high: int) -> None:
    """A million independent values, normal and heavy-tailed."""
    random, detector = np.random.default_rng(1), Detector()
    alarms = 0
    for tick in range(TICKS):
        normal = np.isinf(degrees)
        values = random.standard_normal(len(SERIES)) if normal else random.standard_t(degrees, len(SERIES))
        scores, _ = detector.score(values)
        alarms += int((scores > FACTOR).sum()) if tick >= LEARNING else 0

    assert (TICKS - LEARNING) * len(SERIES) > 1_000_000
    assert low <= alarms <= high


def test_a_score_does_not_depend_on_unit_or_level() -> None:
    """A series times a thousand plus a million has the same scores."""
    random = np.random.default_rng(2)
    one, other = Detector(), Detector()
    for _ in range(1_500):
        values = random.standard_normal(len(SERIES))
        scores, _ = one.score(values)
        scaled, _ = other.score(1_000.0 * values + 1e6)

    assert scaled == pytest.approx(scores, rel=1e-6)


def test_an_outlier_does_not_hide_the_next_one() -> None:
    """It moves its own yardstick by a bounded step only."""
    random, detector = np.random.default_rng(3), Detector()
    for _ in range(2_000):
        detector.score(random.standard_normal(len(SERIES)))

    first, _ = detector.score(np.full(len(SERIES), 1e6))
    second, _ = detector.score(np.full(len(SERIES), 1e6))

    assert (second > 0.7 * first).all()


def test_what_has_no_value_scores_nothing_and_teaches_nothing() -> None:
    """A market without quotes has no spread."""
    random = np.random.default_rng(4)
    one, other = Detector(), Detector()
    for tick in range(1_000):
        values = random.standard_normal(len(SERIES))
        one.score(values)
        if tick % 2:
            other.score(np.full(len(SERIES), np.nan))
        scores, usual = other.score(values)

    expected, location = one.score(values)
    again, same_location = other.score(values)
    assert again == pytest.approx(expected)
    assert same_location == pytest.approx(location)
    assert np.isfinite(scores).all()
    assert np.isfinite(usual).all()


def quiet(world: World, tick: int, random: np.random.Generator) -> PublicState:
    """Return a public state with normal returns, spreads and indicators."""
    public = world.public()
    market = dict(public.market)
    market["return_bp"] = np.rint(10.0 * random.standard_normal(MARKETS)).astype(np.int64)
    market["spread_bp"] = np.rint(20.0 + 3.0 * random.standard_normal(MARKETS)).astype(np.int64)
    market["volume"] = np.rint(1_000.0 * np.exp(0.2 * random.standard_normal(MARKETS))).astype(np.int64)
    market["demand"] = np.rint(1_000.0 + 30.0 * random.standard_normal(MARKETS)).astype(np.int64)
    market["supply"] = np.rint(1_000.0 + 30.0 * random.standard_normal(MARKETS)).astype(np.int64)
    indicators = {name: 1.0 + 0.001 * float(random.standard_normal()) for name in public.indicators}
    return replace(public, tick=tick, market=market, indicators=indicators)


def test_a_planted_episode_has_a_begin_a_peak_and_an_end() -> None:
    """One flag from the first unusual tick to the last, told again as it grows and when it ends."""
    world, random, detector = World(), np.random.default_rng(5), Detector()
    begin = 6 * WARM_UP
    told: list[Anomaly] = []
    for tick in range(begin + 40):
        public = quiet(world, tick, random)
        for after, size in ((0, 500), (1, 900), (4, 400)):
            if tick == begin + after:
                public.market["return_bp"][ID["oil"]] = size
        told += detector.take(public)

    assert {(item.kind, item.subject, item.begin) for item in told} == {("return", "oil", begin)}
    assert {item.number for item in told} == {begin * 256 + ID["oil"]}
    assert [item.end for item in told] == [None, None, begin + 4]
    assert (told[-1].peak, told[-1].value) == (begin + 1, 900.0)
    assert told[-1].score > told[0].score > FACTOR
    assert detector.open == {}


def test_an_episode_lasts_until_a_calm_day_has_passed() -> None:
    """Two bursts less than a day apart are one."""
    world, random, detector = World(), np.random.default_rng(6), Detector()
    begin = 6 * WARM_UP
    told: list[Anomaly] = []
    for tick in range(begin + 3 * CALM_TICKS):
        public = quiet(world, tick, random)
        if tick in (begin, begin + CALM_TICKS - 1):
            public.market["spread_bp"][ID["food"]] = 2_000
        told += detector.take(public)

    assert len({item.number for item in told}) == 1
    assert told[-1].end == begin + CALM_TICKS - 1


def test_it_is_a_function_of_what_it_was_shown() -> None:
    """The same world twice gives the same flags, number by number; a live one has next to none while calm."""
    runs = []
    for _ in range(2):
        economy, detector = Economy(small_config(), 3), Detector()
        runs.append([item for _ in range(800) for item in detector.take(economy.advance().public)])

    assert runs[0] == runs[1]
