"""Numbers against their bars: on it or within passes, the rest is told and ends with 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest.checks import Check, finish, with_bars


def check(value: float, at_least: bool = False) -> Check:
    """Return a number with the bar 10."""
    return Check(name="ack_ms_p99", value=value, bar=10.0, unit="ms", at_least=at_least)


def test_the_bar_itself_is_reached() -> None:
    """At most and at least both include it."""
    assert [check(value).passes for value in (9.9, 10.0, 10.1)] == [True, True, False]
    assert [check(value, at_least=True).passes for value in (9.9, 10.0, 10.1)] == [False, True, True]


def test_a_result_is_kept_and_ends_with_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 when all hold, 1 when one does not; the file says which, with revision and machine."""
    out = tmp_path / "result.json"

    statuses = [finish("some_run", [check(9.0), check(value, at_least=True)], out, seen=3) for value in (11.0, 9.0)]

    kept = json.loads(out.read_text())
    assert statuses == [0, 1]
    assert (kept["holds"], kept["name"], kept["seen"]) == (False, "some_run", 3)
    assert kept["checks"]["ack_ms_p99"] == {"value": 9.0, "at_least": 10.0, "unit": "ms", "pass": False}
    assert kept["revision"]
    assert kept["machine"]
    assert "FAIL  ack_ms_p99" in capsys.readouterr().err


def test_a_bar_can_be_another_one() -> None:
    """--bar changes the bar of the check it names and nothing else; one that is not there is an error."""
    other = Check(name="failed_share", value=0.0, bar=0.0, unit="")

    changed = with_bars([check(11.0), other], ["ack_ms_p99=12"])

    assert [one.bar for one in changed] == [12.0, 0.0]
    assert [one.passes for one in changed] == [True, True]
    with pytest.raises(ValueError, match=r"ack_ms.*; there are ack_ms_p99, failed_share"):
        with_bars([check(11.0), other], ["ack_ms=12"])
