"""`arena bench`: rows are measured, compared with their bars, and written as they are promised."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.economy import Economy
from engine.errors import SettingError
from engine.markets import MARKETS
from engine.state import ORDER_COUNT
from server import bench, bench_frames, bench_peers, bench_ticks
from server.bench_row import Row
from server.live.frames import STATE_CHANNELS
from tests.support.worlds import small_config

KEYS = {"id", "value", "unit", "bar", "at_least", "pass", "spread", "revision", "machine", "includes", "excludes"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure a small world that is hardly warm, beside a small buffer."""
    monkeypatch.setattr(bench_ticks, "RESIDENTS", 2_000)
    monkeypatch.setattr(bench_ticks, "RESIDENTS_LARGE", 4_000)
    monkeypatch.setattr(bench_ticks, "LARGE", {"tick_1m": 4_000, "tick_10m": 40_000})
    monkeypatch.setattr(bench_ticks, "WARM_UP_TICKS", 2)
    monkeypatch.setattr(bench_ticks, "COPY_BYTES", 800_000)
    monkeypatch.setattr(bench_ticks, "CROWD", 40)
    monkeypatch.setattr(bench_peers, "RESIDENTS", 2_000)
    monkeypatch.setattr(bench_peers, "WARM_UP_TICKS", 2)


def row(value: float, bar: float = 3.0, at_least: bool = False) -> Row:
    """Return a row of that value."""
    return Row(
        id="start_warm", value=value, unit="s", bar=bar, spread="", includes="a", excludes="b", at_least=at_least
    )


def test_a_row_passes_up_to_its_bar() -> None:
    """The bar itself is reached."""
    assert [row(value).passes for value in (2.9, 3.0, 3.1)] == [True, True, False]
    assert [row(value, at_least=True).passes for value in (2.9, 3.0, 3.1)] == [False, True, True]


@pytest.mark.usefixtures("small")
def test_the_rows_of_a_tick_are_measured() -> None:
    """A tick's rows come with ratio, tail and pricing, all above zero, and say what is in them."""
    rows = bench_ticks.tick_rows(["tick_100k", "pricing_100k"], quick=True)

    assert [row.id for row in rows] == ["tick_100k", "tick_100k_p99", "pricing_100k"]
    assert all(row.value > 0 for row in rows)
    assert [json.loads(json.dumps(row.document()))["pass"] for row in rows] == [row.passes for row in rows]
    assert rows[1].value >= 1
    assert rows[2].value < rows[0].value * 1_000
    assert all(row.includes and row.excludes for row in rows)


@pytest.mark.usefixtures("small")
def test_only_what_was_asked_for_is_reported() -> None:
    """Rows that share a measurement are reported one by one."""
    assert [row.id for row in bench_ticks.tick_rows(["pricing_100k"], quick=True)] == ["pricing_100k"]


@pytest.mark.usefixtures("small")
def test_the_rows_of_large_worlds_are_measured() -> None:
    """Both sizes in two threads; ten million with the time of a tick and the memory of the process."""
    rows = bench_ticks.large_rows(["tick_1m", "tick_10m"], quick=True)

    assert [row.id for row in rows] == ["tick_1m", "tick_10m", "tick_10m_ms", "memory_10m"]
    assert all(row.value > 0 for row in rows)
    assert rows[1].value != rows[2].value
    assert "2 threads" in rows[0].includes


@pytest.mark.usefixtures("small")
def test_the_row_of_outside_orders_is_measured() -> None:
    """Its orders are taken and filled, or it would measure refusals."""
    [row] = bench_ticks.outside_rows(["outside_orders"], quick=True)

    accepted, filled = (float(share) for share in re.findall(r"([0-9.]+)% (?:accepted|filled)", row.includes))
    assert accepted > 90
    assert 10 < filled < 90


def test_a_crowd_orders_all_over_the_markets_and_comes_back() -> None:
    """Every agent orders once in a tick, some buy and some sell, no order is left when the tick is over."""
    economy = Economy(small_config(endowment_credits=100_000), 1)
    crowd = bench_ticks.Crowd(economy, 64)
    sides = set()
    for _ in range(20):
        rows = crowd.orders()
        economy.advance(rows)
        sides |= set(rows["side"].tolist())
        assert sorted(rows["agent_id"].tolist()) == sorted(crowd.numbers.tolist())
        assert set(rows["market"].tolist()) == set(range(MARKETS))
        assert economy.state.counters[ORDER_COUNT] == 0
    assert sides == {-1, 1}


class TestPeers:
    """Other libraries, in an environment of their own."""

    def test_the_environment_is_made_from_hashed_requirements(self) -> None:
        """Every version is pinned with its hashes; the direct requirements are the libraries that are compared."""
        lines = [line for line in bench_peers.LOCK.read_text().splitlines() if line and not line.startswith((" ", "#"))]
        wanted = (bench_peers.PEERS / "requirements.in").read_text().splitlines()[1:]
        assert all("==" in line for line in lines)
        assert bench_peers.LOCK.read_text().count("--hash=sha256:") >= len(lines)
        assert {name.split("==")[0] for name in wanted} == {library for _, library, _, _ in bench_peers.ROWS.values()}
        assert all(any(line.startswith(name) for line in lines) for name in wanted)

    def test_the_streams_peers_are_hashed_as_well(self) -> None:
        """Each direct requirement is locked to the version it names."""
        lock = bench_peers.STREAMS_LOCK.read_text()
        wanted = [line for line in (bench_peers.PEERS / "streams.in").read_text().splitlines() if line[:1] != "#"]
        lines = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
        assert {name.split("==")[0] for name in wanted} >= {"picows", "starlette", "websockets", "uvloop"}
        assert all(any(line.startswith(name) for line in lines) for name in wanted)
        assert lock.count("--hash=sha256:") >= len(lines)

    def test_missing_requirements_are_said(self, tmp_path: Path) -> None:
        """An installed package has no peers: the message names the way."""
        with pytest.raises(OSError, match="in a clone"):
            bench_peers.environment(print, tmp_path / "requirements.lock")

    @pytest.mark.usefixtures("small")
    def test_a_peer_is_measured_beside_us(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Blocks take turns; the row names the fastest idiom and passes from its bar upwards."""
        monkeypatch.setattr(bench_peers, "environment", lambda say, lock: Path(sys.executable))
        monkeypatch.setattr(bench_peers, "PACKAGE", "tests.support.peers")
        monkeypatch.setitem(bench_peers.ROWS, "vs_mesa", ("small_market", "numpy", 0.001, 2))

        [row] = bench_peers.peer_rows(["vs_mesa"], True, print)

        assert row.passes
        assert row.at_least
        assert "idiom 'quick'" in row.includes

    def test_a_peer_that_ends_is_an_error(self) -> None:
        """A library that does not run is never a number."""
        with bench_peers.Peer(Path(sys.executable), "nowhere", 10) as peer, pytest.raises(OSError, match="nowhere"):
            peer.read()


@pytest.mark.parametrize(("value", "status"), [(1.0, 0), (9.0, 1)])
def test_a_missed_bar_is_the_exit_status(
    value: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 1 when a row misses its bar, and prints which."""
    monkeypatch.setattr(bench, "PROGRAMS", ((lambda ids, quick: [row(value)], ("start_warm",)),))

    assert bench.main(["start_warm"]) == status
    assert ("FAIL" in capsys.readouterr().out) == bool(status)


def test_rows_are_written_with_everything_they_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json and --out give the same rows: value, bar, verdict, revision, machine, what is in it and what is not."""
    path = tmp_path / "rows.json"

    bench.main(["bytes_per_resident", "--json", "--out", str(path)])

    [measured] = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out) == [measured]
    assert set(measured) == KEYS
    assert measured["pass"] == (measured["value"] <= measured["bar"])
    assert measured["machine"]
    assert measured["revision"]


def test_rows_measured_now_take_the_place_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--out keeps the rows that were not measured this time, each with its own revision."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": "start_warm", "value": 9.0}, {"id": "tick_100k", "value": 3.0}]))
    monkeypatch.setattr(bench, "PROGRAMS", ((lambda ids, quick: [row(1.0)], ("start_warm",)),))

    bench.main(["start_warm", "--out", str(path)])

    assert [(kept["id"], kept["value"]) for kept in json.loads(path.read_text())] == [
        ("start_warm", 1.0),
        ("tick_100k", 3.0),
    ]


def test_the_rows_of_delta_frames_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over JSON and over msgpack, of every state channel; a delta is the smallest of the three."""
    monkeypatch.setattr(bench_frames, "RESIDENTS", 2_000)
    monkeypatch.setattr(bench_frames, "WARM_UP_TICKS", 2)

    json_row, msgpack_row = bench_frames.delta_rows(["delta_bytes"], quick=True)

    assert (json_row.id, msgpack_row.id) == ("delta_bytes", "delta_bytes_msgpack")
    assert 0.0 < json_row.value < msgpack_row.value < 1.0
    assert all(f"{channel} " in json_row.includes for channel in STATE_CHANNELS)


def test_the_table_of_the_document_stands_for_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its metrics have its names, targets and claims beside what was measured; a missed one fails the command."""
    rows = [replace(row(value, 50.0), id=name) for name, value in (("start_warm", 2.0), ("spec_api", 51.0))]
    monkeypatch.setattr(bench, "PROGRAMS", ((lambda ids, quick: rows, ("start_warm", "spec_api")),))

    status = bench.main(["start_warm", "spec_api"])

    ours, theirs = capsys.readouterr().out.split("\n\n")
    assert status == 1
    assert "start_warm" in ours
    assert "spec_api" not in ours
    assert re.search(r"^API Response Time +< 50ms +~25ms average +51.0  FAIL  s", theirs, re.MULTILINE)


def test_the_document_s_targets_are_the_bars() -> None:
    """Every line of document 004's table has a row."""
    assert [metric for metric, _, _ in bench.SPECIFIED.values()] == [
        "Concurrent Agents",
        "Market Updates",
        "API Response Time",
        "WebSocket Latency",
        "Memory Usage",
        "CPU Usage",
    ]
    assert set(bench.SPECIFIED) < set(bench.IDS)


def test_what_cannot_be_measured_here_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where only what a server needs is installed, the rest is measured all the same."""
    monkeypatch.setattr(bench, "find_spec", lambda name: None)

    names = bench._those_that_can_be_measured()

    assert names == [name for name in bench.IDS if not name.startswith("spec_")]
    assert "left out: spec_agents" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["no JSON", '{"a": 1}', "[1]"])
def test_a_file_of_something_else_is_not_written_over(text: str, tmp_path: Path) -> None:
    """It is refused before anything is measured, and stays as it was."""
    (tmp_path / "notes.json").write_text(text)

    with pytest.raises(SettingError, match="--out must be a new file, or one with rows"):
        bench.main(["tick_10m", "--out", str(tmp_path / "notes.json")])

    assert (tmp_path / "notes.json").read_text() == text


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A row nobody knows ends with usage and the rows there are."""
    with pytest.raises(SystemExit) as ended:
        bench.main(["tick_200k"])

    assert ended.value.code == 2
    assert "no row 'tick_200k'; there are tick_100k, pricing_100k, " in capsys.readouterr().err
