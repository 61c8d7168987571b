"""Finished answers are kept for cache_expiry, and no longer."""

from __future__ import annotations

from server.clock import ManualClock
from server.live.cache import AnswerCache


class Counting:
    """Builds an answer and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bytes:
        self.count += 1
        return b"answer %d" % self.count


def test_an_answer_is_built_once_within_the_expiry() -> None:
    """Asked again it is the same one; afterwards it is built anew."""
    clock, build = ManualClock(), Counting()
    cache = AnswerCache(5_000, clock)

    first = cache.get("key", build)
    clock.advance(4.9)
    again = cache.get("key", build)
    clock.advance(0.2)
    later = cache.get("key", build)

    assert (first, again, later) == (b"answer 1", b"answer 1", b"answer 2")


def test_an_expiry_of_zero_keeps_nothing() -> None:
    """cacheExpiry 0 switches it off."""
    build = Counting()
    cache = AnswerCache(0, ManualClock())

    cache.get("key", build)
    cache.get("key", build)

    assert build.count == 2


def test_keys_do_not_share_answers_and_the_one_unasked_longest_leaves_first() -> None:
    """Bounded by number."""
    build = Counting()
    cache = AnswerCache(5_000, ManualClock(), answers_max=2)

    for key in ("a", "b", "a", "c", "a"):
        cache.get(key, build)
    assert build.count == 3
    cache.get("b", build)

    assert build.count == 4
