"""What a stress run holds the server to: each condition can fail."""

from __future__ import annotations

from collections import Counter

from loadtest.stress import PHASES, RECOVER_S, Phase, checks


def phases(place: int = 0, answer: int | None = None, recovered_s: float = 0.1) -> list[Phase]:
    """Return a run in order; in the phase at a place one more answer, and its recovery."""
    seen = [Phase(run.__name__, Counter({status: 5 for status in allowed}), 0.1) for run, allowed, _ in PHASES]
    if answer is not None:
        seen[place].answers[answer] += 1
    seen[place] = seen[place]._replace(recovered_s=recovered_s)
    return seen


def failing(seen: list[Phase], missing: int = 0, status: int = 0) -> list[str]:
    """Return the names of the checks that fail."""
    return [check.name for check in checks(seen, missing, status) if not check.passes]


def test_a_run_in_order_holds() -> None:
    """Refusals of the kind that belongs to each phase are what is wanted."""
    assert failing(phases()) == []


def test_any_other_answer_fails() -> None:
    """An internal error, a connection cut under a request, a socket taken for what is a request."""
    assert failing(phases(2, 500)) == ["answers_out_of_order"]
    assert failing(phases(3, 0)) == ["answers_out_of_order"]
    assert failing(phases(0, 503)) == ["answers_out_of_order"]


def test_a_phase_that_was_not_too_much_fails() -> None:
    """Without a refusal nothing was tested."""
    seen = phases()
    del seen[1].answers[503]

    assert failing(seen) == ["phases_without_refusals"]


def test_no_recovery_a_missing_tick_or_a_bad_end_fail() -> None:
    """Each for itself."""
    assert failing(phases(recovered_s=RECOVER_S)) == ["recovered_s"]
    assert failing(phases(), missing=1) == ["ticks_missing"]
    assert failing(phases(), status=1) == ["exit_status"]
