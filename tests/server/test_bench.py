"""`arena bench`: rows are measured, compared with their bars, and written as they are promised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server import bench
from server.bench import Row

KEYS = {"id", "value", "unit", "bar", "pass", "spread", "revision", "machine", "includes", "excludes"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure a small world that is hardly warm, beside a small buffer."""
    monkeypatch.setattr(bench, "RESIDENTS", 2_000)
    monkeypatch.setattr(bench, "WARM_UP_TICKS", 2)
    monkeypatch.setattr(bench, "COPY_BYTES", 800_000)


def row(value: float, bar: float = 3.0) -> Row:
    """Return a row of that value."""
    return Row(id="start_warm", value=value, unit="s", bar=bar, spread="", includes="a", excludes="b")


def test_a_row_passes_up_to_its_bar() -> None:
    """The bar itself is reached."""
    assert [row(value).passes for value in (2.9, 3.0, 3.1)] == [True, True, False]


@pytest.mark.usefixtures("small")
def test_the_rows_of_a_tick_are_measured() -> None:
    """A tick's rows come with ratio, tail and pricing, all above zero, and say what is in them."""
    rows = bench.tick_rows(["tick_100k", "pricing_100k"], quick=True)

    assert [row.id for row in rows] == ["tick_100k", "tick_100k_p99", "pricing_100k"]
    assert all(row.value > 0 for row in rows)
    assert [json.loads(json.dumps(row.document()))["pass"] for row in rows] == [row.passes for row in rows]
    assert rows[1].value >= 1
    assert rows[2].value < rows[0].value * 1_000
    assert all(row.includes and row.excludes for row in rows)


@pytest.mark.usefixtures("small")
def test_only_what_was_asked_for_is_reported() -> None:
    """Rows that share a measurement are reported one by one."""
    assert [row.id for row in bench.tick_rows(["pricing_100k"], quick=True)] == ["pricing_100k"]


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


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A row nobody knows ends with usage and the rows there are."""
    with pytest.raises(SystemExit) as ended:
        bench.main(["tick_200k"])

    assert ended.value.code == 2
    assert "tick_100k" in capsys.readouterr().err
