"""The one door for threads of the live path: what runs beside the event loop, and how it waits.

Whoever needs a thread gets it from here through its constructor, so that a simulation can decide when each of them
runs. A lock that is held for a few lines and never while waiting needs no door.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol

import structlog

URGENT = frozenset({"journal", "send"})
"""Threads that everybody waits for: the journal's uses little of a processor, the one that helps to send works for less
than a millisecond at a time, and a reader that its write had woken took its processor away for 4 ms."""
PATIENT = frozenset({"snapshot", "chores", "hash", "history"})
"""Threads that nobody waits for: they write snapshots and receipts, merge, pack, hash and keep the past."""
NICER = 5
"""They come so much before the thread that starts them. An absolute value put the journal behind a server that was
itself started with a higher priority: it waited for a processor for a quarter of the time (loadtest.crowd)."""
PATIENCE = 10
"""They come so much behind the others. As equals they kept the event loop from a processor for 36 ms in one tick of a
hundred, now for 17 (loadtest.crowd, two cores). The idle class did as well (13 ms), but where others want the whole
machine nothing of it would ever end, and receipts would wait in memory until no more are accepted."""

log = structlog.get_logger("arena.workers")


class Thread(Protocol):
    """A thread that was started."""

    def join(self) -> None:
        """Return when it has ended; not to be called on the event loop's thread."""


class Event(Protocol):
    """What a thread waits for; as threading.Event."""

    def is_set(self) -> bool:
        """Return whether it is set."""

    def set(self) -> None:
        """Set it and wake whoever waits."""

    def clear(self) -> None:
        """Unset it."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return True when it is set, False after timeout seconds; not to be called on the event loop's thread."""


class Workers(Protocol):
    """Makes threads."""

    def thread(self, name: str, run: Callable[[], None]) -> Thread:
        """Start a thread that runs `run`; the process may end while it runs."""

    def executor(self, name: str) -> Executor:
        """Return an executor of one thread."""

    def event(self) -> Event:
        """Return an event that is not set."""


class SystemWorkers:
    """Threads of the operating system."""

    def thread(self, name: str, run: Callable[[], None]) -> Thread:
        """Start a daemon thread; it comes before or behind the others of this process when the system lets us."""

        def run_in_its_place() -> None:
            _take_its_place(name)
            run()

        thread = threading.Thread(target=run_in_its_place, name=name, daemon=True)
        thread.start()
        return thread

    def executor(self, name: str) -> Executor:
        """Return an executor of one thread, which comes before or behind the others as a thread does."""
        return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_take_its_place, initargs=(name,))

    def event(self) -> Event:
        """Return an event that is not set."""
        return threading.Event()


def _take_its_place(name: str) -> None:
    """Give the calling thread the priority its name stands for; without the right to have it it does without."""
    change = -NICER if name in URGENT else PATIENCE if name in PATIENT else 0
    try:
        # Linux knows priorities of threads under their own id; elsewhere this is refused or means the process
        if change and sys.platform == "linux":
            # the system takes what is beyond its lowest and highest values for these
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + change)
    except OSError as error:
        log.debug("thread_priority_refused", thread=name, change=change, error=str(error))


SYSTEM = SystemWorkers()
