"""The long run in its short form: what it checks, and that each check can fail."""

from __future__ import annotations

import numpy as np
import pytest

from engine import invariants
from engine.economy import Economy
from engine.errors import InvariantBroken
from engine.messages import Kind
from engine.state import State
from loadtest.headless import endurance
from tests.support.worlds import small_config


@pytest.fixture(scope="module")
def result() -> dict[str, object]:
    """Return a run of a thousand ticks."""
    return endurance.run(residents=3_000, ticks=1_000, bots=20, seed=7)


def test_a_thousand_ticks_hold(result: dict[str, dict[str, dict[str, object]]]) -> None:
    """Every invariant after every tick, every market in the last day."""
    assert result["checks"]["invariants"]["pass"]
    assert result["checks"]["markets"]["pass"]
    assert result["ticks"] == 1_000


def test_the_bots_do_everything_in_spells(result: dict[str, dict[str, int]]) -> None:
    """Orders are filled, cancelled and refused; the same seed gives the same world."""
    assert {"FILLED", "RESTING", "REJECTED", "CANCELLED", "DONE"} <= set(result["actions"])
    assert 10 <= result["agents_at_the_end"] <= 20
    assert endurance.run(residents=3_000, ticks=1_000, bots=20, seed=7)["state_hash"] == result["state_hash"]


def test_bots_rest_and_leave() -> None:
    """Half of the time there is nothing to do; who has left is replaced."""
    economy = Economy(small_config(), 1)
    bots = endurance.Bots(economy, 5, 1)
    kinds: set[int] = set()
    counts = []
    for _ in range(2 * endurance.SPELL):
        rows = bots.actions()
        economy.advance(rows)
        kinds |= set(rows["kind"].tolist())
        counts.append(len(rows))
    assert kinds == {int(kind) for kind in Kind}
    assert min(counts[: endurance.SPELL]) > 0
    assert counts[endurance.SPELL :] == [0] * endurance.SPELL


def test_a_breach_ends_the_run_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tick and the sentence of the invariant stand in the result."""

    def breach(state: State, config: object) -> None:
        if state.tick == 9:
            raise InvariantBroken("money does not add up")

    monkeypatch.setattr(invariants, "check", breach)

    result = endurance.run(residents=2_000, ticks=20, bots=2, seed=1)

    assert not result["pass"]
    assert result["checks"]["invariants"] == {"value": "tick 9: money does not add up", "pass": False}


def test_a_market_that_rests_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A market without a trade in the last day fails the run."""
    advance = Economy.advance

    def without_oil(self: Economy, *args: object) -> object:
        report = advance(self, *args)
        self.state.cleared_volume[1] = 0
        return report

    monkeypatch.setattr(Economy, "advance", without_oil)

    result = endurance.run(residents=2_000, ticks=48, bots=2, seed=1)

    assert not result["checks"]["markets"]["pass"]
    assert "31 of 32" in result["checks"]["markets"]["value"]


def test_memory_that_grows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte in 10,000 ticks is too much."""
    seen = iter(np.arange(0.0, 1_000.0))
    monkeypatch.setattr(endurance, "resident_mb", lambda: float(next(seen)))

    result = endurance.run(residents=2_000, ticks=200, bots=2, seed=1)

    assert not result["checks"]["memory"]["pass"]


def test_a_slope_is_that_of_the_line() -> None:
    """Points on a line give its slope, one point none."""
    assert endurance.slope_of([(0, 1.0), (10, 3.0), (20, 5.0)]) == pytest.approx(0.2)
    assert endurance.slope_of([(5, 1.0)]) == 0.0
