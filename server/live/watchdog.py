"""Tells stalls of the machine from our own: when did the system not run a thread that was due?

A thread of its own asks to be woken every 5 ms. What counts is how long the system left it lying, not how long it
then waited for the interpreter: a Linux timer descriptor counts its expirations inside the kernel, before the
interpreter is entered again. Elsewhere the time slept is measured, our own pauses included.

The thread that runs the event loop can be left lying while this one is not; Linux keeps that time as well, and
`LoopWait` reads it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from server.clock import Clock, SystemClock
from server.metrics import Metrics

PERIOD_S = 0.005
STALL_S = 0.020
"""Left lying longer than this is a stall."""
STALLS_KEPT = 4_096
_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1
_PREAD = ctypes.PyDLL(None).pread
_PREAD.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
_PREAD.restype = ctypes.c_ssize_t


class Stall(NamedTuple):
    """The system did not run a thread that was due, from begin to end (monotonic seconds)."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.begin


class Watchdog:
    """Records the machine's stalls while it runs; the newest are kept."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self.stalls: deque[Stall] = deque(maxlen=STALLS_KEPT)
        self._metrics = metrics
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when the thread has ended."""
        self._stopping.set()
        self._thread.join()

    def stalled_s(self, begin: float, end: float) -> float:
        """Return for how long of a time span (monotonic seconds) the machine was stalled."""
        return sum(max(0.0, min(end, stall.end) - max(begin, stall.begin)) for stall in tuple(self.stalls))

    def _watch(self) -> None:
        try:
            wait: Callable[[], float] = _TimerWait().wait
        except OSError:
            wait = self._measured_wait
        while not self._stopping.is_set():
            left_lying = wait()
            if left_lying > STALL_S:
                end = self._clock.monotonic()
                self.stalls.append(Stall(end - left_lying, end))
                self._metrics.scheduler_stalls.inc()

    def _measured_wait(self) -> float:
        began = self._clock.monotonic()
        self._stopping.wait(PERIOD_S)
        return self._clock.monotonic() - began - PERIOD_S


class LoopWait:
    """How long the calling thread has been ready to run without being run, as Linux counts it.

    Made and asked in the same thread. Where the system does not say, it is 0.
    """

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(
                f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC
            )
        except OSError:
            self._descriptor = -1
        self._answer = ctypes.create_string_buffer(128)
        self._before = 0.0
        self._before = self._total()

    def take(self) -> float:
        """Return the seconds since the last call."""
        total = self._total()
        waited, self._before = total - self._before, total
        return waited

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _total(self) -> float:
        if self._descriptor < 0:
            return 0.0
        # without giving the interpreter away, as os.pread would: to get it back can take a millisecond
        length = _PREAD(self._descriptor, self._answer, len(self._answer), 0)
        # run time, time in the queue (both ns), times run
        return int(self._answer.raw[:length].split()[1]) / 1e9 if length > 0 else self._before


class _Interval(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (
        ("period_s", ctypes.c_long),
        ("period_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


class _TimerWait:
    """A periodic timer of the Linux kernel, which runs on the system's clock. Raises OSError where there is none."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError("timer descriptors exist on Linux only")
        # os.timerfd_create came with Python 3.13
        system = ctypes.CDLL(None, use_errno=True)
        self._clock = SystemClock()
        self._descriptor = system.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC)
        self._first = self._clock.monotonic() + PERIOD_S
        self._expired = 0
        whole = int(self._first)
        period = _Interval(0, int(PERIOD_S * 1e9), whole, int((self._first - whole) * 1e9))
        if self._descriptor < 0 or system.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(period), None):
            raise OSError(ctypes.get_errno(), "no timer descriptor")

    def wait(self) -> float:
        """Wait for the next expiration and return the seconds the system left this thread lying after it."""
        due = int((self._clock.monotonic() - self._first) / PERIOD_S) + 1 - self._expired
        expired = int.from_bytes(os.read(self._descriptor, 8), sys.byteorder)
        self._expired += expired
        # what had expired before the wait began is the time this thread waited for the interpreter
        return 0.0 if due > 0 else (expired - 1) * PERIOD_S

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)
