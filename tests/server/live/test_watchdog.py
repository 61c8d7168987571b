"""The watchdog: stalls of the machine are found, our own pauses are not taken for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from server.clock import ManualClock, SystemClock
from server.live.watchdog import PERIOD_S, STALL_S, LoopWait, Stall, Watchdog
from server.metrics import Metrics
from tests.support.deadlines import seconds

ROOT = Path(__file__).parents[3]
#: Stopped by a signal, a process is left lying as a whole: to its watchdog that is a stall of the machine.
STOPPED = """
import sys
from server.clock import SystemClock
from server.live.watchdog import Watchdog
from server.metrics import Metrics

watchdog = Watchdog(Metrics(), SystemClock())
watchdog.start()
for line in sys.stdin:
    sys.stdout.write(f"{max((stall.seconds for stall in tuple(watchdog.stalls)), default=0.0)}\\n")
    sys.stdout.flush()
watchdog.stop()
"""


def test_a_stall_of_the_machine_is_found() -> None:
    """A process that was not run for a while knows it afterwards, and for how long."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}"}
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def longest() -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("?\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        found = longest()
        for _ in range(20):
            process.send_signal(signal.SIGSTOP)
            # the stall itself: it has to take its time
            threading.Event().wait(0.2)
            process.send_signal(signal.SIGCONT)
            # a stop that hits the thread between two waits is not the system's fault, as far as it can tell
            if (found := max(found, longest())) >= 0.15:
                break
        assert process.stdin is not None
        process.stdin.close()
        process.wait(seconds(30.0))

    assert found >= 0.15


def test_a_clock_ahead_of_the_machine_does_not_hold_it_up() -> None:
    """The timer runs on the system's clock: one set on a clock that tests turn, as on a machine just started, would
    first expire when the machine has run for that long."""
    watchdog = Watchdog(Metrics(), ManualClock(monotonic=SystemClock().monotonic() + 86_400.0))
    watchdog.start()
    stopping = threading.Thread(target=watchdog.stop, daemon=True)
    stopping.start()
    stopping.join(seconds(10.0))

    assert not stopping.is_alive()


def test_holding_the_interpreter_is_not_a_stall_of_the_machine() -> None:
    """A long call that lets no other Python thread run is ours: the timer in the kernel tells the two apart."""
    watchdog = Watchdog(Metrics(), SystemClock())
    watchdog.start()
    clock = SystemClock()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(10.0)
    try:
        begin = clock.monotonic()
        while clock.monotonic() - begin < 0.3:
            pass
        end = clock.monotonic()
    finally:
        sys.setswitchinterval(switch)
    watchdog.stop()

    assert watchdog.stalled_s(begin, end) < 0.15


def test_stalls_are_counted_within_a_span() -> None:
    """Only what overlaps the span counts, and only that part of it."""
    watchdog = Watchdog(Metrics(), ManualClock())
    watchdog.stalls.extend([Stall(1.0, 2.0), Stall(5.0, 6.0), Stall(9.0, 9.5)])

    assert watchdog.stalled_s(1.5, 5.25) == 0.75
    assert watchdog.stalled_s(2.0, 5.0) == 0.0
    assert watchdog.stalled_s(0.0, 10.0) == 2.5
    assert Stall(1.0, 1.5).seconds == 0.5
    assert PERIOD_S < STALL_S


def test_the_loops_wait_for_a_processor_never_runs_backwards() -> None:
    """What the system counts for a thread only grows; after closing it reads as nothing."""
    wait = LoopWait()

    taken = [wait.take() for _ in range(3)]
    wait.close()

    assert all(seconds_waited >= 0.0 for seconds_waited in taken)
    wait.close()
