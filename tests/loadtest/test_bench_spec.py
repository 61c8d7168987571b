"""Document 004's table from one run: which figure is which row, and each can miss its bar."""

from __future__ import annotations

import pytest

from loadtest.locust.__main__ import Counted
from loadtest.micro.bench_spec import IDS, Seen, rows


def seen(**changes: float) -> Seen:
    """Return a run in which everything is well within its bar, but for the changes."""

    def entry(ms: float) -> dict[str, object]:
        return {"num_requests": 100, "num_failures": 0, "response_times": {str(ms): 100}}

    entries = {
        ("AGENT", "action"): entry(changes.get("action", 8)),
        ("READ", "/api/info"): entry(changes.get("read", 4)),
        ("STREAM", "market_tick"): entry(2),
    }
    ticks = {"executed": 750, "late": 0, "ms_mean": 3.0, "ms_p99": changes.get("tick", 9.0)}
    memory = [(0.0, 300.0), (1.0, changes.get("memory", 350.0))]
    load = Counted(75.0, entries, {}, ticks, memory, 0.5, changes.get("cores", 0.4))
    received = {"latency_ms": {"p50": 2.0, "p99": changes.get("frame", 4.0)}}
    return Seen(int(changes.get("agents", 100_220)), 30.0, load, received)


def values(**changes: float) -> dict[str, float]:
    """Return the value of each row."""
    return {row["id"]: row["value"] for row in rows(seen(**changes))}


def test_every_row_is_there_and_says_what_is_in_it() -> None:
    """In the document's order, with its targets as bars."""
    made = rows(seen())

    assert [row["id"] for row in made] == list(IDS)
    assert [row["bar"] for row in made] == [100_000, 100, 50, 10, 4_000, 80]
    assert [row["id"] for row in made if row["at_least"]] == ["spec_agents"]
    assert all("100,220 outside agents" in row["includes"] for row in made)


@pytest.mark.parametrize(
    ("row", "change", "value"),
    [
        ("spec_agents", {"agents": 220}, 100_220),
        ("spec_updates", {"tick": 120.0}, 120.0),
        ("spec_api", {"action": 60}, 60.0),
        ("spec_api", {"read": 70}, 70.0),
        ("spec_websocket", {"frame": 12}, 12.0),
        ("spec_memory", {"memory": 4_500.0}, 4_500.0),
    ],
)
def test_each_row_is_its_figure(row: str, change: dict[str, float], value: float) -> None:
    """What changes in the run changes this row and no other."""
    before, after = values(), values(**change)

    assert after[row] == value
    assert {name for name in IDS if before[name] != after[name]} == {row}


def test_the_processor_is_a_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One busy core of two is half of it."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    assert values(cores=1.0)["spec_cpu"] == 50.0
