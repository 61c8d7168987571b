"""The profiles can be run and can fail: every threshold is about something that is counted."""

from __future__ import annotations

import pytest

from loadtest.locust.__main__ import FIGURES, Counted, checks
from loadtest.locust.profiles import PROFILES


def counted(**changes: float) -> Counted:
    """Return what a run has counted: a thousand actions and as many frames in ten seconds, two of them slow."""
    entry = {"num_requests": 1_000, "num_failures": int(changes.get("failures", 0))}
    entries = {
        ("AGENT", "action"): {**entry, "response_times": {"5": 940, "60": 50, "300": 10}},
        ("READ", "/api/info"): {**entry, "response_times": {"2": 1000}},
        ("READ", "/api/events"): {**entry, "response_times": {"3": 980, "70": 20}},
        ("AWAIT", "/api/curves"): {**entry, "response_times": {"90": 980, "150": 20}},
        ("STREAM", "market_tick"): {**entry, "response_times": {"2": 989, "40": 11}},
    }
    memory = [(minute / 60, 300 + minute * changes.get("leak", 0.0)) for minute in range(100)]
    return Counted(10.0, entries, {}, {"share_on_time": changes.get("on_time", 1.0)}, memory, 0.5, 0.5)


def test_the_named_profiles_are_there() -> None:
    """Each says what it is and has thresholds; the large ones are as large as their names say."""
    assert list(PROFILES) == ["smoke", "bots_1k", "subscribers_10k", "spike", "responses", "soak"]
    assert all(profile.says and profile.at_most and profile.at_least for profile in PROFILES.values())
    assert all(set(profile.at_most) | set(profile.at_least) <= set(FIGURES) for profile in PROFILES.values())
    assert (PROFILES["bots_1k"].agents, PROFILES["subscribers_10k"].subscribers) == (1_000, 10_000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action_ms_p95", 60.0),
        ("action_ms_p99", 60.0),
        ("read_ms_p95", 3.0),
        ("route_ms_p99_worst", 70.0),
        ("awaited_ms_p99", 150.0),
        ("reads_per_s", 180.0),
        ("frame_ms_p99", 40.0),
        ("failed_share", 0.1),
        ("actions_per_s", 90.0),
        ("frames_per_s", 90.0),
        ("ticks_on_time_share", 0.9),
        ("memory_mb_per_minute", 120.0),
    ],
)
def test_a_figure_is_found_in_what_was_counted(name: str, value: float) -> None:
    """Percentiles of what did not fail, shares of everything, growth once users are there."""
    assert FIGURES[name][1](counted(failures=100, on_time=0.9, leak=2.0)) == pytest.approx(value)


def test_percentiles_are_values_that_were_seen() -> None:
    """The smallest time that at least that share did not exceed."""
    assert [counted().percentile_ms("AGENT", share) for share in (0.5, 0.94, 0.941, 0.99, 1.0)] == [5, 5, 60, 60, 300]


def test_a_run_without_anything_fails() -> None:
    """Nobody came: nothing was slow, and it is no success."""
    nothing = Counted(10.0, {}, {}, {"share_on_time": 1.0}, [], 0.0, 0.0)

    failing = {check.name for check in checks(PROFILES["smoke"], nothing) if not check.passes}

    assert failing == {"failed_share", "actions_per_s", "reads_per_s", "frames_per_s"}
