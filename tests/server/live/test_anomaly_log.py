"""Anomalies of the live world: numbered, logged once, counted, paged, bounded."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from engine.analysis.anomalies import CALM_TICKS, INDICATORS, WARM_UP
from engine.economy import Economy
from engine.events import TickReport
from engine.markets import ID, MARKETS
from server.live.anomaly_log import AnomalyLog
from server.live.frames import quantise
from server.live.history import History
from server.live.view import View
from server.metrics import Metrics
from tests.support.published import EPOCH, NO_OUTCOMES, NO_UPDATES, World
from tests.support.worlds import small_config


class Quiet:
    """A world whose returns are small until a test says otherwise."""

    def __init__(self) -> None:
        self.world = World(tick=0)
        self.random = np.random.default_rng(1)
        self.base = self.world.public()
        self.tick = 0

    def view(self, **returns: int) -> View:
        """Return the next tick; returns: by market."""
        self.tick += 1
        moves = np.rint(10.0 * self.random.standard_normal(MARKETS)).astype(np.int64)
        for market, move in returns.items():
            moves[ID[market]] = move
        public = replace(self.base, tick=self.tick, market={**self.base.market, "return_bp": moves})
        return View(TickReport(self.tick, NO_OUTCOMES, NO_UPDATES, (), public), EPOCH, 0)


@pytest.fixture(scope="module")
def calm() -> list[View]:
    """As many calm ticks as the detector wants to see first."""
    quiet = Quiet()
    return [quiet.view() for _ in range(6 * WARM_UP)]


def told(calm: list[View], kept_max: int = 100) -> tuple[AnomalyLog, Quiet, Metrics]:
    """Return a log that has seen the calm ticks, and the world that goes on from there."""
    metrics = Metrics()
    log, quiet = AnomalyLog(metrics, kept_max), Quiet()
    for view in calm:
        log.replay(view.report.public)
        quiet.tick = view.tick
    return log, quiet, metrics


async def test_an_anomaly_is_logged_counted_and_kept_when_its_tick_is_done(calm: list[View]) -> None:
    """The tick hands its view over and goes on; the next step of the loop finds what is in it."""
    log, quiet, metrics = told(calm)

    with capture_logs() as lines:
        log.follow(quiet.view(oil=900))
        assert log.newest == 0
        await asyncio.sleep(0)
        log.follow(quiet.view(oil=1_200))
        for _ in range(CALM_TICKS):
            log.follow(quiet.view())
        await asyncio.sleep(0)

    [item], following = log.page(None, 10, descending=False, is_open=None, kind=None)
    assert (item.kind, item.subject, item.value, following) == ("return", "oil", 1_200.0, None)
    assert item.number == log.newest == log.oldest == item.begin * 256 + ID["oil"]
    assert item.end == item.begin + 1
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("anomaly_began", "warning"),
        ("anomaly_ended", "info"),
    ]
    assert lines[0]["subject"] == "oil"
    read = metrics.registry.get_sample_value
    assert read("arena_anomalies_total", {"kind": "return"}) == 1
    assert read("arena_anomalies_open") == 0


def test_replayed_ticks_give_the_same_anomalies_in_silence(calm: list[View]) -> None:
    """They were told when they were live."""
    log, quiet, metrics = told(calm)

    with capture_logs() as lines:
        log.replay(quiet.view(oil=900).report.public)

    assert (log.newest > 0, log.open_count, lines) == (True, 1, [])
    assert metrics.registry.get_sample_value("arena_anomalies_total", {"kind": "return"}) == 0


def test_pages_go_both_ways_and_by_kind_and_state(calm: list[View]) -> None:
    """Cursors are numbers; a filter does not change them."""
    log, quiet, _ = told(calm)
    for market in ("oil", "lithium", "food", "energy", "housing"):
        log.replay(quiet.view(**{market: 900}).report.public)

    first, cursor = log.page(None, 2, descending=False, is_open=None, kind=None)
    second, _ = log.page(cursor, 2, descending=False, is_open=None, kind=None)
    newest, back = log.page(None, 2, descending=True, is_open=True, kind="return")
    older, end = log.page(back, 3, descending=True, is_open=True, kind="return")

    assert [item.subject for item in first + second] == ["oil", "lithium", "food", "energy"]
    assert [item.subject for item in newest + older] == ["housing", "energy", "food", "lithium", "oil"]
    assert end is None
    assert log.page(None, 9, descending=False, is_open=False, kind=None) == ([], None)
    assert log.page(None, 9, descending=False, is_open=None, kind="volume") == ([], None)


def test_the_oldest_leave_first_and_are_counted(calm: list[View]) -> None:
    """One that has left does not come back when it ends."""
    log, quiet, metrics = told(calm, kept_max=2)
    for market in ("oil", "lithium", "food"):
        log.replay(quiet.view(**{market: 900}).report.public)
    for _ in range(2 * CALM_TICKS):
        log.replay(quiet.view().report.public)

    found, _ = log.page(None, 9, descending=False, is_open=None, kind=None)

    assert [item.subject for item in found] == ["lithium", "food"]
    assert (log.oldest, log.newest) == (found[0].number, found[1].number)
    assert all(item.end is not None for item in found)
    assert metrics.registry.get_sample_value("arena_anomalies_forgotten_total") == 1


def test_what_the_history_has_is_taken_in_as_if_it_were_replayed() -> None:
    """To the bit for markets, as finely as it is shown for indicators: the next tick is no surprise."""
    economy, history = Economy(small_config(), 7), History(100)
    replayed, recalled = AnomalyLog(Metrics()), AnomalyLog(Metrics())
    for _ in range(60):
        public = economy.advance().public
        history.record(public.tick, quantise(public), 0)
        if public.tick >= 10:
            replayed.replay(public)

    recalled.recall(history, 10)

    one, other = replayed._detector, recalled._detector
    markets = len(one._seen) - len(INDICATORS)
    assert np.array_equal(one._location[:markets], other._location[:markets])
    assert np.array_equal(one._seen[:markets], other._seen[:markets])
    assert one._levels is not None
    assert other._levels is not None
    assert np.allclose(one._levels, other._levels, rtol=1e-5, atol=1e-6)
    assert one._tick == other._tick == 59
