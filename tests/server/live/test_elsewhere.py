"""Connections of other processes: the newest report of each counts, for a while."""

from __future__ import annotations

from server.clock import ManualClock
from server.live.elsewhere import GATEWAYS_MAX, KEPT_S, Elsewhere


def test_the_newest_report_of_each_process_counts() -> None:
    """Whoever asks does not want its own."""
    elsewhere = Elsewhere(ManualClock())
    elsewhere.report("a", 3)
    elsewhere.report("b", 5)
    elsewhere.report("a", 4)

    assert (elsewhere.count(), elsewhere.count(but="a")) == (9, 5)


def test_a_process_that_is_gone_counts_no_longer() -> None:
    """Its last report is believed for a while."""
    clock = ManualClock()
    elsewhere = Elsewhere(clock)
    elsewhere.report("a", 3)
    clock.advance(KEPT_S / 2)
    elsewhere.report("b", 5)
    clock.advance(KEPT_S / 2 + 0.1)

    assert elsewhere.count() == 5


def test_so_many_processes_are_remembered() -> None:
    """More are not counted; those that are go on being."""
    elsewhere = Elsewhere(ManualClock())
    for number in range(GATEWAYS_MAX + 5):
        elsewhere.report(str(number), 1)
    elsewhere.report("0", 7)

    assert elsewhere.count() == GATEWAYS_MAX + 6
