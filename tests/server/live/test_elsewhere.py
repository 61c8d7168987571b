"""Connections of other processes: the newest report of each counts, for a while."""

from __future__ import annotations

from server.clock import ManualClock
from server.live.caps import Caps, of_key
from server.live.elsewhere import GATEWAYS_MAX, KEPT_S, Elsewhere
from server.metrics import Metrics

ONE, OTHER = of_key(b"one"), of_key(b"other")


def made() -> Caps:
    """Return caps of two streams a key."""
    return Caps(2, 50, Metrics())


def test_the_newest_report_of_each_process_counts() -> None:
    """Whoever asks does not want its own."""
    elsewhere = Elsewhere(ManualClock(), made())
    elsewhere.report("a", 3)
    elsewhere.report("b", 5)
    elsewhere.report("a", 4)

    assert (elsewhere.count(), elsewhere.count(but="a")) == (9, 5)


def test_a_process_that_is_gone_counts_no_longer() -> None:
    """Its last report is believed for a while."""
    clock = ManualClock()
    elsewhere = Elsewhere(clock, made())
    elsewhere.report("a", 3)
    clock.advance(KEPT_S / 2)
    elsewhere.report("b", 5)
    clock.advance(KEPT_S / 2 + 0.1)

    assert elsewhere.count() == 5


def test_so_many_processes_are_remembered() -> None:
    """More are not counted; those that are go on being."""
    elsewhere = Elsewhere(ManualClock(), made())
    for number in range(GATEWAYS_MAX + 5):
        elsewhere.report(str(number), 1)
    elsewhere.report("0", 7)

    assert elsewhere.count() == GATEWAYS_MAX + 6


def test_whose_connections_they_are_is_told_in_changes() -> None:
    """Each report bears the number that the answer to the last one gave; a process is not told of its own."""
    caps = made()
    elsewhere = Elsewhere(ManualClock(), caps)
    elsewhere.report("a", 3)
    assert elsewhere.take("a", None, {}) == 0
    assert elsewhere.take("a", 0, {ONE: 2, OTHER: 1}) == 1
    caps.take(OTHER)

    assert caps.full() == {ONE: 2, OTHER: 2}
    assert elsewhere.full(but="a") == {ONE: 0, OTHER: 1}
    assert elsewhere.full(but="b") == {ONE: 2, OTHER: 2}
    assert elsewhere.take("a", 1, {ONE: 0}) == 2
    assert caps.full() == {OTHER: 2}


def test_what_does_not_go_on_from_the_last_report_is_told_anew() -> None:
    """An answer that was lost, a report that came twice: nothing is taken in, and what was is forgotten."""
    caps = made()
    elsewhere = Elsewhere(ManualClock(), caps)
    assert elsewhere.take("a", None, {}) is None
    elsewhere.report("a", 2)
    elsewhere.take("a", None, {})
    elsewhere.take("a", 0, {ONE: 2})
    assert elsewhere.take("a", 0, {OTHER: 2}) is None
    assert caps.full() == {ONE: 2}

    assert elsewhere.take("a", None, {}) == 0
    assert caps.full() == {}


def test_whose_the_connections_of_a_lost_process_were_counts_no_longer() -> None:
    """With the process its connections are gone."""
    clock, caps = ManualClock(), made()
    elsewhere = Elsewhere(clock, caps)
    elsewhere.report("a", 2)
    elsewhere.take("a", None, {})
    elsewhere.take("a", 0, {ONE: 2})
    clock.advance(KEPT_S + 0.1)

    assert elsewhere.count() == 0
    assert caps.refusal(ONE) is None
