"""Whose turn it is: batches are looked at one by one, with air between them, and nobody is let in to wait long."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from server.clock import Clock

WAIT_MAX_S: Final = 0.06
"""Longest wait for a turn that anybody is let in for when many come at once, as they do behind a pause: waiting so long
costs a bot less than asking again. With half of it 3 of 1,000 batches of a crowd were refused (loadtest.crowd)."""
FLOODED_WAIT_MAX_S: Final = 0.005
"""The same when there are always some: who is let in then only makes all others wait as well."""
STANDING_S: Final = 0.25
"""So long after the last moment without anybody waiting they are no crowd that will soon be gone."""
AIR: Final = 3
"""Turns of the event loop from one batch to the next: so many lie between a record on disk and its acknowledgement, one
more between a tick and its publication, and with a batch in each of them they took the time of three batches."""
_NEWEST_SHARE: Final = 0.25
"""Of the mean distance of batches, that of the newest two."""
_JUMP_MAX: Final = 3.0
"""Of the mean, as which a larger distance counts: one pause of the loop says little of the next distance, and as it
was it had batches refused that would have waited a few milliseconds. Distances that stay larger are there soon."""
_FIRST_S: Final = 0.001
"""How far apart batches are thought to be before it was measured."""


class Turns:
    """Says when a batch may be looked at: one at a time, in the order in which they ask.

    Requests that arrive together are all read in one turn of the event loop, and their handlers run in the next: a
    flood of batches held up every acknowledgement and the tick for as long as all of them took. Used on the event loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_free = True
        """Whether whoever comes may begin at once."""
        self._began = 0.0
        """When the newest batch began."""
        self._alone = clock.monotonic()
        """When nobody was waiting, the last time that was so."""
        self._mean_s = _FIRST_S
        """How far batches that follow each other are apart: one of them, and all else the loop does meanwhile."""

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def excess_s(self, *, is_flooded: bool) -> float:
        """Return how much longer than it may whoever asks now would about wait, 0 when they may ask.

        is_flooded: more come than are taken, whether or not they wait here.
        """
        if not self._waiting:
            return 0.0
        is_flooded = is_flooded or self._clock.monotonic() - self._alone > STANDING_S
        most = FLOODED_WAIT_MAX_S if is_flooded else WAIT_MAX_S
        return max(0.0, len(self._waiting) * self._mean_s - most)

    async def take(self) -> None:
        """Return when it is the caller's turn, which lasts until it awaits something."""
        loop = asyncio.get_running_loop()
        if self._is_free:
            self._is_free = False
            self._began = self._alone = self._clock.monotonic()
            # whose turn it is next hears of it a turn of the loop later
            loop.call_soon(self._pass, loop, AIR - 1)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _pass(self, loop: asyncio.AbstractEventLoop, air: int) -> None:
        """Let a turn of the loop go by; then it is the turn of whoever has waited longest."""
        if air > 1:
            loop.call_soon(self._pass, loop, air - 1)
            return
        while self._waiting:
            turn = self._waiting.popleft()
            # whoever waited may have been cancelled
            if not turn.done():
                now = self._clock.monotonic()
                newest_s = min(now - self._began, _JUMP_MAX * self._mean_s)
                self._mean_s += _NEWEST_SHARE * (newest_s - self._mean_s)
                self._began = now
                if not self._waiting:
                    self._alone = now
                turn.set_result(None)
                loop.call_soon(self._pass, loop, AIR)
                return
        self._is_free = True
