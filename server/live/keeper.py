"""The thread that keeps the past: writes what waits, rolls it up, archives it, cleans up. No tick waits for it."""

from __future__ import annotations

from server.live.archive import Archive
from server.live.history import History
from server.live.tiers import DAY
from server.live.workers import SYSTEM, Thread, Workers


class Keeper:
    """Looks after a history from start() to stop(). archive: None keeps none.

    A day of ticks is written at a time: what a crash takes with it is computed again from the journal.
    """

    def __init__(self, history: History, archive: Archive | None, workers: Workers = SYSTEM) -> None:
        self._history = history
        self._archive = archive
        self._workers = workers
        self._wanted = workers.event()
        self._stopping = False
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin to keep; from here on nobody else writes."""
        self._history.is_kept = True
        self._thread = self._workers.thread("history", self._run)

    def tick(self, tick: int) -> None:
        """Take notice of a recorded tick."""
        if tick % DAY == DAY - 1:
            self._wanted.set()

    def stop(self) -> None:
        """End after what waits now."""
        self._stopping = True
        self._wanted.set()

    def join(self) -> None:
        """Return when everything is written and synced; not to be called on the event loop's thread."""
        if self._thread is None:
            self._history.close()
        else:
            self._thread.join()

    def _run(self) -> None:
        if self._archive is not None:
            self._archive.open()
        stopping = False
        while not stopping:
            self._wanted.wait()
            self._wanted.clear()
            stopping = self._stopping
            self._history.flush(sync=True)
            if self._archive is not None:
                self._archive.step()
        self._history.close()
