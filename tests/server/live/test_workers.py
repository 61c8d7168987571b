"""The door for threads: what it hands out runs beside the caller, waits for it, and can be waited for."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from server.live import workers
from server.live.workers import NICER, PATIENCE, PATIENT, SYSTEM, URGENT
from tests.support.deadlines import seconds

LOWEST, HIGHEST = -20, 19
"""There are no nice values below and above."""


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


def priority_of(name: str) -> int:
    """Return the nice value a new thread of that name runs with."""
    found: list[int] = []
    SYSTEM.thread(name, lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))).join()
    return found[0]


def test_an_urgent_thread_has_the_priority_the_system_lets_it_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused or granted: it runs, and the rest of the process is as it was."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    granted = priority_of("journal")

    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as without:
        without.setattr(os, "setpriority", refuse)
        refused = priority_of("journal")

    assert granted in (max(LOWEST, before - NICER), before)
    assert refused == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.parametrize("name", sorted(PATIENT))
def test_what_nobody_waits_for_comes_behind(name: str) -> None:
    """A snapshot, a merge or a day's Parquet takes no processor from the event loop, nor from other threads."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    # elsewhere than on Linux it would be the priority of the whole process
    behind = min(HIGHEST, before + PATIENCE) if sys.platform == "linux" else before
    executor = SYSTEM.executor(name)

    of_executor = executor.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    assert (priority_of(name), of_executor.result(seconds(30))) == (behind, behind)
    assert priority_of("tick") == os.getpriority(os.PRIO_PROCESS, 0) == before
    executor.shutdown()


def test_every_patient_thread_is_one_that_a_world_has() -> None:
    """A thread that was given another name would come before its turn, and nobody would see it."""
    live = Path(workers.__file__).parent
    asked = {
        name for path in live.glob("*.py") for name in re.findall(r'\.(?:executor|thread)\("(\w+)"', path.read_text())
    }

    assert asked >= PATIENT | URGENT


def test_an_urgent_thread_comes_first_in_a_server_with_a_priority_of_its_own() -> None:
    """One that was started as more urgent, or as less, than others has a journal that is more urgent than itself."""
    # elsewhere than on Linux it would be the priority of the whole process
    higher = 7 if sys.platform == "linux" else 0
    before = os.getpriority(os.PRIO_PROCESS, 0)
    found: list[int] = []

    def start() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, before + higher)
        found.append(priority_of("journal"))

    starting = threading.Thread(target=start)
    starting.start()
    starting.join()

    assert found[0] in (before + higher - NICER, before + higher)
