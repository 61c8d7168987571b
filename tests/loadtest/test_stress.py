"""What a stress run holds the server to: each condition can fail."""

from __future__ import annotations

from collections import Counter

from loadtest.scrape import LATENESS
from loadtest.stress import PHASES, RECOVER_S, Phase, checks, ticks_seen, together

IN_TIME = {"missing": 0, "behind": 2, "share_on_time": 0.95}


def phases(place: int = 0, answer: int | None = None, recovered_s: float = 0.1) -> list[Phase]:
    """Return a run in order; in the phase at a place one more answer, and its recovery."""
    seen = [Phase(run.__name__, Counter({status: 5 for status in allowed}), 0.1) for run, allowed, _ in PHASES]
    if answer is not None:
        seen[place].answers[answer] += 1
    seen[place] = seen[place]._replace(recovered_s=recovered_s)
    return seen


def failing(seen: list[Phase], status: int = 0, **ticks: float) -> list[str]:
    """Return the names of the checks that fail."""
    return [check.name for check in checks(seen, IN_TIME | ticks, status) if not check.passes]


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


def test_every_round_counts() -> None:
    """What is wrong in the last of three is as wrong as in the first, and what was seen is added up."""
    bad = phases(2, 500, 0.3)

    assert failing(phases() + phases()) == []
    assert failing(phases() + phases() + bad) == ["answers_out_of_order"]
    assert [one["phase"] for one in together(phases() + bad)] == [run.__name__ for run, _, _ in PHASES]
    assert together(phases() + bad)[2] == {
        "phase": "requests_at_once", "answers": {"202": 10, "429": 10, "500": 1}, "recovered_s": 0.3,
    }  # fmt: skip


def test_ticks_are_held_to_the_world_and_to_the_clock() -> None:
    """Between two readings: a number without its tick is missing, a tick the clock asked for in vain is behind."""
    sums = ("tick_total_seconds_sum", "journal_sync_seconds_sum", "journal_sync_seconds_count")
    others = {f"arena_{name}": 0.0 for name in ("ticks_late_total", "scheduler_stalls_total", *sums)}

    def reading(tick: int, executed: int, on_time: int) -> dict[str, float]:
        within = {"0.02": on_time, "+Inf": executed}
        lateness = {f'{LATENESS}_bucket{{le="{bound}"}}': float(count) for bound, count in within.items()}
        return {"arena_tick": float(tick), "arena_ticks_total": float(executed), **lateness, **others}

    ticks = ticks_seen(reading(1_000, 40, 9), reading(1_051, 90, 58), 5.34, 0.1)

    assert (ticks["executed"], ticks["missing"], ticks["behind"]) == (50, 1, 3)
    assert ticks["share_on_time"] == 0.98


def test_late_or_missing_ticks_no_recovery_or_a_bad_end_fail() -> None:
    """Each for itself."""
    assert failing(phases(recovered_s=RECOVER_S)) == ["recovered_s"]
    assert failing(phases(), missing=1) == ["ticks_missing"]
    assert failing(phases(), behind=3) == ["ticks_behind"]
    assert failing(phases(), share_on_time=0.94) == ["ticks_on_time_share"]
    assert failing(phases(), status=1) == ["exit_status"]
