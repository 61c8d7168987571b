"""What a leak run holds the server to: memory that grows, somebody left over, something that failed."""

from __future__ import annotations

from collections import Counter

import pytest

from loadtest.leak import AGENTS, SUBSCRIBERS, Churn, checks, growth


def memory(slope: float) -> list[tuple[float, float]]:
    """Return ten minutes of samples that rise by 100 MB in the first third and then by so much a minute."""
    return [(i / 60, 300 + min(100.0, i / 2) + slope * max(0, i - 200) / 60) for i in range(600)]


def churn(slope: float = 0.0, **counts: int) -> Churn:
    """Return a run that has seen that."""
    found = Churn("http://127.0.0.1:1", 10.0)
    found.filled = 1
    found.memory = memory(slope)
    found.counts = Counter({"agents": AGENTS, "subscribers": SUBSCRIBERS, "losses": 0, **counts})
    return found


def failing(run: Churn, left: int = 0) -> list[str]:
    """Return the names of the checks that fail."""
    return [check.name for check in checks(run, Counter(agents=left), 10.0) if not check.passes]


@pytest.mark.parametrize("slope", [0.0, 0.5, 12.0])
def test_growth_is_what_comes_after_it_has_settled(slope: float) -> None:
    """What is filled once at the start is no leak."""
    assert growth(memory(slope)) == pytest.approx(slope, abs=1e-9)


def test_a_peak_is_no_growth() -> None:
    """Not even at the end: what takes memory for some seconds and gives it back is not a leak."""
    samples = memory(0.5)
    for at in (300, 595):
        samples[at : at + 5] = [(minute, mb + 40) for minute, mb in samples[at : at + 5]]

    assert growth(samples) == pytest.approx(0.5, abs=0.05)


def test_each_condition_can_fail() -> None:
    """Memory, those left over, failures, and a run in which too few came, or which looked too seldom."""
    assert failing(churn()) == []
    assert failing(churn(2.0)) == ["memory_mb_per_minute"]
    assert failing(churn(), left=1) == ["left_over"]
    assert failing(churn(losses=1)) == ["failed"]
    assert failing(churn(**{"agents: ServerError": 1})) == ["failed"]
    assert failing(churn(agents=AGENTS - 1)) == ["came_and_went"]
    assert failing(churn(subscribers=SUBSCRIBERS - 1)) == ["subscribers_came_and_went"]
    empty = churn()
    empty.filled = 0
    assert failing(empty) == ["filled"]
    seldom = churn()
    seldom.memory = seldom.memory[:1]
    assert failing(seldom) == ["samples_per_minute"]
