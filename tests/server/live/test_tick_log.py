"""What a tick leaves in the log: each kind of line at its level, and nothing of it below the level asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.events import OTHER, Event, PublicState, TickReport
from engine.messages import ORDER_UPDATE, OUTCOME, Kind, Reject, Status
from server.live.tick_log import UNUSUAL, log_tick
from server.live.view import View
from tests.support.logged import logged


def view(*events: Event, outcomes: tuple[dict[str, Any], ...] = (), fired: tuple[int, ...] = ()) -> View:
    """Return the view of tick 5 with these events, outcomes and fired switches."""
    rows = np.zeros(len(outcomes), OUTCOME)
    for row, outcome in zip(rows, outcomes, strict=True):
        for name, value in outcome.items():
            row[name] = value
    public = PublicState(5, {}, {}, {}, {}, {})
    report = TickReport(5, rows, np.zeros(0, ORDER_UPDATE), events, public, np.array(fired, np.int64))
    return View(report, "epoch", 0)


@pytest.mark.parametrize("name", sorted(UNUSUAL))
def test_unusual_patterns_are_warnings(name: str) -> None:
    """Whoever reads warnings only learns of panics, crashes and halts."""
    with logged("warning") as log:
        log_tick(view(Event(OTHER, 1, 5, name, {"market": "oil"}), Event(OTHER, 2, 5, "market_resumed")))

    lines = log.lines("warning")
    assert list(lines) == [name]
    assert (lines[name]["tick"], lines[name]["market"]) == (5, "oil")


def test_arrivals_and_departures_are_information() -> None:
    """Agents by their public name; a registration the world refused is none."""
    came = {"kind": Kind.REGISTER, "status": Status.DONE, "agent_id": 7}
    left = {"kind": Kind.UNREGISTER, "status": Status.DONE, "agent_id": 8}
    refused = {"kind": Kind.REGISTER, "status": Status.REJECTED, "agent_id": 9}

    with logged("info") as log:
        log_tick(view(Event(OTHER, 1, 5, "agent_expired", {"agent": 6}), outcomes=(refused, came, left)))

    agents = {event: line["agent"] for event, line in log.lines("info").items()}
    assert agents == {"agent_registered": "a7", "agent_unregistered": "a8", "agent_expired": "a6"}


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.REGISTER, Kind.UNREGISTER)])
def test_other_actions_are_no_information(kind: Kind) -> None:
    """Of every kind there is: a tick must not fail for the log."""
    with logged("info") as log:
        log_tick(view(outcomes=({"kind": kind, "status": Status.DONE, "agent_id": 7},)))

    assert log.out.getvalue() == ""


def test_a_fired_switch_is_information() -> None:
    """Somebody was not heard of in time."""
    with logged("info") as log:
        log_tick(view(fired=(7,)))

    assert log.lines("info")["switch_fired"]["agent"] == "a7"


def test_details_are_for_those_who_debug() -> None:
    """What became of an action, by its sequence number, and the tick with its counts."""
    decided = {"kind": Kind.LIMIT, "status": Status.REJECTED, "code": Reject.NO_FUNDS, "agent_id": 7, "seq": 40}

    with logged("debug") as log:
        log_tick(view(outcomes=(decided,)))
    with logged("info") as quiet:
        log_tick(view(outcomes=(decided,)))

    lines = log.lines("debug")
    assert lines["tick"]["actions"] == 1
    assert {name: lines["action_decided"][name] for name in ("seq", "agent", "kind", "status", "code")} == {
        "seq": 40, "agent": "a7", "kind": "limit", "status": "rejected", "code": 201,
    }  # fmt: skip
    assert quiet.out.getvalue() == ""
