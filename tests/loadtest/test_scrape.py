"""/metrics read twice: what happened in between."""

from __future__ import annotations

import pytest

from loadtest import scrape

PAGE = """\
# HELP arena_ticks_total ticks executed
arena_ticks_total 100.0
arena_ticks_late_total 1.0
arena_scheduler_stalls_total 2.0
arena_tick_lateness_seconds_bucket{le="0.02"} 90.0
arena_tick_lateness_seconds_bucket{le="+Inf"} 100.0
arena_tick_lateness_seconds_count 100.0
arena_tick_total_seconds_bucket{le="0.01"} 50.0
arena_tick_total_seconds_bucket{le="0.03"} 100.0
arena_tick_total_seconds_bucket{le="+Inf"} 100.0
arena_tick_total_seconds_sum 1.5
arena_journal_sync_seconds_sum 0.5
arena_journal_sync_seconds_count 200.0
arena_http_requests_total{method="GET",route="/api/time",status="200"} 7.0
arena_http_requests_total{method="POST",route="/api/actions",status="200"} 3.0
arena_http_requests_total{method="POST",route="/api/actions",status="429"} 5.0
"""


def test_what_grew_is_told() -> None:
    """A counter that was not there before began at 0."""
    assert scrape.since({"a": 3.0}, {"a": 5.0, "b": 2.0}) == {"a": 2.0, "b": 2.0}


def test_ticks_are_told_as_they_went() -> None:
    """How many, how many on time, how long."""
    assert scrape.ticks(scrape.parse(PAGE)) == {
        "executed": 100,
        "late": 1,
        "share_on_time": 0.9,
        "ms_mean": 15.0,
        "ms_p99": 29.6,
        "sync_ms_mean": 2.5,
        "scheduler_stalls": 2,
    }


def test_statuses_are_added_up_over_routes() -> None:
    """Each status with how often it was answered."""
    assert scrape.statuses(scrape.parse(PAGE)) == {"200": 10, "429": 5}


@pytest.mark.parametrize(("share", "value"), [(0.25, 0.005), (0.5, 0.01), (0.75, 0.02), (1.0, 0.03)])
def test_a_quantile_lies_evenly_within_its_bucket(share: float, value: float) -> None:
    """As Prometheus estimates it."""
    assert scrape.quantile(scrape.parse(PAGE), "arena_tick_total_seconds", share) == pytest.approx(value)


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    """Nothing is known of it but that it is more."""
    assert scrape.quantile({'x_bucket{le="1"}': 1.0, 'x_bucket{le="+Inf"}': 4.0}, "x", 0.9) == 1.0
    assert scrape.quantile({}, "x", 0.9) == 0.0
