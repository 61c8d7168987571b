"""The one door for threads of the live path: what runs beside the event loop, and how it waits.

Whoever needs a thread gets it from here through its constructor, so that a simulation can decide when each of them
runs. A lock that is held for a few lines and never while waiting needs no door.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol


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
        """Start a daemon thread."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def executor(self, name: str) -> Executor:
        """Return an executor of one thread."""
        return ThreadPoolExecutor(1, thread_name_prefix=name)

    def event(self) -> Event:
        """Return an event that is not set."""
        return threading.Event()


SYSTEM = SystemWorkers()
