"""What a result of gateways comes to: it holds with enough trials of every kind and no promise broken, never before."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest.gateways.verdict import concluded, held, told, trials
from loadtest.parts import total


def found(**changes: dict[str, Any]) -> dict[str, Any]:
    """Return a result with exactly as many trials as promised, by part; changes: of a part."""
    whole: dict[str, dict[str, Any]] = {
        "exchanges": {"holds": True, "kills": 1_000, "steps_nobody_came_to": 0},
        "outages": {"holds": True, "outages": 200},
        "acks": {"holds": True, "requests": 2_000},
        "frames": {"holds": True, "ticks": 400},
    }
    return {part: result | changes.get(part, {}) for part, result in whole.items()}


def test_enough_of_everything_holds() -> None:
    """As many as promised are enough, and the verdict says of each count that it was reached."""
    result = concluded(found())

    assert result["holds"]
    assert list(result["held"].values()) == [True] * 8
    assert result["outages"]["outages"] == 200


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"exchanges": {"kills": 999}}, "exchanges: at least 1,000 kills"),
        ({"exchanges": {"steps_nobody_came_to": 1}}, "exchanges: at least 1,000 kills"),
        ({"exchanges": {"holds": False}}, "exchanges: no promise broken"),
        ({"outages": {"outages": 12}}, "outages: at least 200 outages"),
        ({"outages": {"holds": False}}, "outages: no promise broken"),
        ({"acks": {"requests": 200}}, "acks: at least 2,000 requests"),
        ({"acks": {"holds": False}}, "acks: no promise broken"),
        ({"frames": {"ticks": 399}}, "frames: at least 400 ticks"),
        ({"frames": {"holds": False}}, "frames: no promise broken"),
    ],
)
def test_too_few_or_a_broken_promise_does_not_hold(changes: dict[str, dict[str, Any]], fails: str) -> None:
    """Each for itself; a kill that was to be at a step and was not is none."""
    result = concluded(found(**changes))

    assert not result["holds"]
    assert [name for name, holds in result["held"].items() if not holds] == [fails]


def test_what_was_not_run_does_not_hold() -> None:
    """Neither its promise nor its count."""
    assert [name for name, holds in held({}).items() if holds] == []


def test_runs_add_up_until_there_are_enough() -> None:
    """A hundred outages do not hold, and a hundred more do."""
    run = {"holds": True, "outages": 100, "sockets_kept": 1.0, "under": "100 sockets"}

    first, both = found() | {"outages": total([run])}, found() | {"outages": total([run, run])}

    assert (trials(first, "outages"), concluded(first)["holds"]) == (100, False)
    assert (trials(both, "outages"), concluded(both)["holds"]) == (200, True)
    assert told(first).splitlines()[1] == "outages: 100 of 200 outages"
