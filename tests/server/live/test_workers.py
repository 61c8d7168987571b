"""The door for threads: what it hands out runs beside the caller, waits for it, and can be waited for."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from server.live.workers import NICE, SYSTEM
from tests.support.deadlines import seconds


def test_a_thread_runs_beside_its_caller() -> None:
    """It has a name, waits for an event, may not hold up the end of the process, and can be joined."""
    go = SYSTEM.event()
    seen: list[tuple[str, bool]] = []

    def run() -> None:
        go.wait(seconds(30))
        current = threading.current_thread()
        seen.append((current.name, current.daemon))

    thread = SYSTEM.thread("worker", run)
    assert seen == []
    go.set()
    thread.join()

    assert seen == [("worker", True)]


def test_an_executor_has_one_thread() -> None:
    """Work is done in the order it was given in, in one thread of that name."""
    executor = SYSTEM.executor("worker")

    names = [executor.submit(lambda: threading.current_thread().name) for _ in range(3)]

    assert {future.result(seconds(30)) for future in names} == {"worker_0"}
    executor.shutdown()


def test_an_event_is_waited_for_no_longer_than_asked() -> None:
    """Until it is set, a wait ends with False."""
    event = SYSTEM.event()

    assert not event.wait(0.0)
    event.set()
    assert event.wait(0.0)
    event.clear()
    assert not event.is_set()


def priority_of_a_thread() -> int:
    """Return the nice value a new thread runs with."""
    found: list[int] = []
    SYSTEM.thread("test", lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))).join()
    return found[0]


def test_a_thread_has_the_priority_the_system_lets_it_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused or granted: it runs, and the rest of the process is as it was."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    granted = priority_of_a_thread()

    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as without:
        without.setattr(os, "setpriority", refuse)
        refused = priority_of_a_thread()

    assert granted in (NICE, before)
    assert refused == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
