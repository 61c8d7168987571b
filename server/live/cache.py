"""Finished answers about the past, kept for cache_expiry: asking twice costs once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

from server.clock import Clock

ANSWERS_MAX = 256
"""Answers kept at a time; the one asked for longest ago leaves first."""


class _Kept(NamedTuple):
    until: float
    answer: bytes


class AnswerCache:
    """Answers by key. expiry_ms: how long one may be reused, 0 = never. The key must name all the answer depends on."""

    def __init__(self, expiry_ms: int, clock: Clock, answers_max: int = ANSWERS_MAX) -> None:
        self.expiry_s = expiry_ms / 1_000
        self._clock = clock
        self._answers_max = answers_max
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def get(self, key: Hashable, build: Callable[[], bytes]) -> bytes:
        """Return the answer under key, built at most once within the expiry."""
        if not self.expiry_s:
            return build()
        now = self._clock.monotonic()
        kept = self._kept.get(key)
        if kept is None or kept.until <= now:
            kept = self._kept[key] = _Kept(now + self.expiry_s, build())
            while len(self._kept) > self._answers_max:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept.answer
