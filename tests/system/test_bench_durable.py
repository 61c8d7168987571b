"""The benchmark of durability measures what it says: acknowledgements, snapshots found in time, ticks beside a fork."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.micro import bench_durable

SMALL = ("--residents", "2000", "--max-agents", "64", "--order-book-max", "4096")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure small worlds for a moment."""
    monkeypatch.setattr(bench_durable, "UNLIMITED", (*bench_durable.UNLIMITED, *SMALL))
    monkeypatch.setattr(bench_durable, "QUICK", bench_durable.Lengths(2, 0.5, 6.0, 1, 3.0, 60))


@pytest.mark.timeout(400)
def test_acknowledgements_are_counted_at_a_server_that_syncs_and_at_one_that_does_not(tmp_path: Path) -> None:
    """Three rows: the ratio and two latencies."""
    rows = {row["id"]: row for row in bench_durable.action_durable(tmp_path, True)}

    assert rows.keys() == {"action_durable", "action_durable_p50", "action_durable_p99"}
    assert 0.0 < rows["action_durable"]["value"] < 5.0
    assert 0.0 < rows["action_durable_p50"]["value"] <= rows["action_durable_p99"]["value"] < 10_000


@pytest.mark.timeout(400)
def test_snapshots_are_found_among_the_acknowledgements(tmp_path: Path) -> None:
    """Each by its tick and its line in the log."""
    [row] = bench_durable.ack_under_snapshot(tmp_path, True)

    assert row["value"] > 0.0
    assert " during 0 snapshots" not in row["spread"]


@pytest.mark.timeout(400)
def test_ticks_are_told_apart_by_whether_a_fork_ran(tmp_path: Path) -> None:
    """Both kinds are there, and a tick takes time."""
    [row] = bench_durable.tick_under_fork(tmp_path, True)

    assert row["value"] > 0.0
    assert " 0 ticks" not in row["spread"]


@pytest.mark.timeout(400)
def test_the_start_of_a_fork_is_what_the_fork_says(tmp_path: Path) -> None:
    """Over a record of a few hours, the worst tick of one."""
    [row] = bench_durable.fork_start(tmp_path, True)

    assert 0.0 < row["value"] < 300.0
    assert "ticks computed from the state before them" in row["includes"]
