"""The benchmark of the streams measures what it says: deliveries beside peers, lateness, memory, reads, pauses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest.micro import bench_fanout
from loadtest.micro.bench_fanout import Lengths, Task, left_of

SMALL = ("--residents", "2000", "--max-agents", "64", "--order-book-max", "4096")
MOMENT = Lengths(rounds=2, block_ticks=3, ticks=10, seconds=1.0, steps=1, idle_s=0.1, settle_s=0.1)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Task]:
    """Measure small worlds and few subscribers for a moment."""
    monkeypatch.setattr(bench_fanout, "WORLD", SMALL)
    monkeypatch.setattr(bench_fanout, "SUBSCRIBERS", 40)
    monkeypatch.setattr(bench_fanout, "COUNTS", dict.fromkeys(bench_fanout.COUNTS, 40))
    return lambda *ids: Task(list(ids), MOMENT, tmp_path, sys.executable)


def test_deliveries_are_counted_beside_those_of_others(task: Callable[..., Task]) -> None:
    """A row for each peer asked for, a ratio each, with the blocks it is made of."""
    rows = bench_fanout.versus(task("fanout_c", "fanout_starlette", "fanout_broadcast"))

    assert [row["id"] for row in rows] == ["fanout_c", "fanout_starlette", "fanout_broadcast"]
    assert all(0.0 < row["value"] < 100.0 for row in rows)
    assert all("2 pairs of blocks" in row["spread"] for row in rows)


def test_a_peer_without_its_libraries_is_refused(task: Callable[..., Task], tmp_path: Path) -> None:
    """What is missing is said, with where it is named."""
    with pytest.raises(SystemExit, match=r"fanout_picows needs --peers PYTHON"):
        bench_fanout.versus(Task(["fanout_picows"], MOMENT, tmp_path, None))


def test_lateness_counts_every_frame_of_every_tick(task: Callable[..., Task]) -> None:
    """Ten ticks to forty subscribers are 400 frames, of which none is missing."""
    late, missing = bench_fanout.ten_thousand(task("fanout_10k"))

    assert (late["id"], missing["id"]) == ("fanout_10k", "fanout_10k_late")
    assert "400 frames of 400" in late["includes"]
    assert late["value"] > 0.0


def test_a_real_server_is_measured_from_outside_and_inside(task: Callable[..., Task]) -> None:
    """Latency, memory, reads and pauses, each of a server of its own over the same world."""
    rows = {
        row["id"]: row
        for measure in (bench_fanout.latency, bench_fanout.memory, bench_fanout.under_fanout, bench_fanout.pause)
        for row in measure(task())
    }

    assert list(rows) == [
        "stream_latency_1k",
        "stream_latency_1k_p99",
        "bytes_per_subscriber",
        "http_under_fanout",
        "loop_pause",
    ]
    assert 0.0 < rows["stream_latency_1k"]["value"] <= rows["stream_latency_1k_p99"]["value"]
    assert rows["http_under_fanout"]["value"] > 0.0
    assert "(0 frames" not in rows["http_under_fanout"]["includes"]
    assert rows["loop_pause"]["value"] >= 0.0
    assert " 0 frames" not in rows["loop_pause"]["includes"]


@pytest.mark.parametrize(
    ("stalls", "left_ms"),
    [
        ([], 6.0),
        ([(1.5, 2.0)], 6.0),
        ([(0.9, 1.003)], 6.0),
        ([(1.001, 1.009), (1.002, 1.004)], 2.0),
        ([(0.9, 1.1)], 0.0),
    ],
    ids=["none", "at another time", "known already", "longer than what was known", "all of it"],
)
def test_what_explains_a_pause_counts_once(stalls: list[tuple[float, float]], left_ms: float) -> None:
    """Of 10 ms the probe has taken 4: a stall in the same pause may be the same 4."""
    assert left_of(6.0, 1.0, 1.01, stalls) == pytest.approx(left_ms)
