"""One buffer written to many sockets: the loop of send(2), compiled, without the interpreter's lock.

Written in Python the loop costs about a microsecond a connection more, a fifth of what the kernel needs for it, and
takes and gives back the interpreter's lock for each of them (bench_fanout). write(2) does the same by way of what a
system keeps of a file, which lies cold in memory where there are thousands: a delivery cost a twentieth more.

A write to a reader on the same machine wakes it, often on the writer's own processor, where it takes the writer's
turn: a loop in C needed 10 to 11 ms for a thousand writes of 3 KB, two threads that share them 6.5 to 7.6, at the same
processor time (two cores). So a `Sender` has a helper. Both take the next connection when they are done with one, and
nobody waits for a thread that the system does not run: a helper that comes too late finds the door shut. Only for the
write that it is in the middle of does the other wait: when a call has returned its descriptors may be closed, and their
numbers belong to others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, Protocol

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

SHARED_MIN: Final = 16
"""Fewer connections than this are written to without help: waking a thread costs about as much as one write."""
SHARED_MAX: Final = 1_024
"""Most connections of one call that are shared; more are written to without help."""

#: Words of the board that both threads look at, each in a cache line of its own.
_DOOR, _NEXT, _COUNT, _DATA, _SIZE, _IS_OVER = range(0, 48, 8)
_BOARD: Final = 48
#: What the door is: shut, open for the helper, passed by it.
_SHUT, _OPEN, _PASSED = range(3)

#: Found by their names among the symbols of the process when the compiled loop is loaded, so the loop can be cached.
_write: Any = types.ExternalFunction("write", types.intp(types.intc, types.uintp, types.uintp))
_send_once: Any = types.ExternalFunction("send", types.intp(types.intc, types.uintp, types.uintp, types.intc))
_read: Any = types.ExternalFunction("read", types.intp(types.intc, types.uintp, types.uintp))

Descriptors = NDArray[np.int32]
Send = Callable[[Descriptors, bytes], list[int]]
Words = NDArray[np.int64]


class Thread(Protocol):
    """A thread that was started."""

    def join(self) -> None:
        """Return when it has ended."""


def is_room_for_two() -> bool:
    """Return whether this process may use more than one processor now."""
    # asked each time: an operator may move a process to one processor while it runs
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


class Sender:
    """Writes as send_to_each does, in two threads where there are processors for two.

    start: starts a thread; the helper is started when it is first of use. is_room: says whether it would be of use now.
    To be called from one thread, and closed.
    """

    def __init__(
        self, start: Callable[[Callable[[], None]], Thread], is_room: Callable[[], bool] = is_room_for_two
    ) -> None:
        self._start = start
        self._is_room = is_room
        self._helper: Thread | None = None
        self._board = np.zeros(_BOARD, np.int64)
        self._descriptors = np.empty(SHARED_MAX, np.int32)
        self._taken = np.empty(SHARED_MAX, np.int64)
        self._go = self._done = -1
        self._ends = ExitStack()

    def __call__(self, descriptors: Descriptors, data: bytes) -> list[int]:
        """Write data to each descriptor once and return how many bytes each took, -1 for none or an error."""
        count = len(descriptors)
        # -1: transports will write, to all or nearly all
        is_shared = SHARED_MIN <= count <= SHARED_MAX and descriptors[0] >= 0 and self._is_room()
        if not is_shared or (self._helper is None and not self._hire()):
            return send_to_each(descriptors, data)
        self._descriptors[:count] = descriptors
        buffer = np.frombuffer(data, np.uint8)
        _send_shared(self._board, self._descriptors, self._taken, count, buffer, self._go, self._done)
        counts: list[int] = self._taken[:count].tolist()
        return counts

    def _hire(self) -> bool:
        """Start the helper; return whether the system had two descriptors and a thread to give."""
        with ExitStack() as ends:
            try:
                self._go, self._done = (_counter(ends) for _ in range(2))
                self._board[:] = 0
                shared = self._board, self._descriptors, self._taken, self._go, self._done
                self._helper = self._start(lambda: _help(*shared))
            except (OSError, RuntimeError):
                # where they are short now they may not be at the next tick
                return False
            self._ends = ends.pop_all()
        return True

    def close(self) -> None:
        """End the helper."""
        helper, self._helper = self._helper, None
        if helper is not None:
            self._board[_IS_OVER] = 1
            os.eventfd_write(self._go, 1)
            helper.join()
            self._ends.close()


def _counter(ends: ExitStack) -> int:
    """Return the descriptor of a counter that a thread can wait for, closed with the others. Raises OSError."""
    descriptor = os.eventfd(0, os.EFD_CLOEXEC)
    ends.callback(os.close, descriptor)
    return descriptor


def send_to_each(descriptors: Descriptors, data: bytes) -> list[int]:
    """Write data to each descriptor once and return how many bytes each took, -1 for none or an error.

    Every descriptor must be open and non-blocking, or -1, which takes nothing.
    """
    taken = np.empty(len(descriptors), np.int64)
    _send(descriptors, np.frombuffer(data, np.uint8), taken)
    counts: list[int] = taken.tolist()
    return counts


def warm() -> None:
    """Load what is compiled here."""
    board, descriptors, taken = np.zeros(_BOARD, np.int64), np.full(1, -1, np.int32), np.empty(1, np.int64)
    send_to_each(np.full(1, -1, np.int32), b"")
    _send_shared(board, descriptors, taken, 1, np.frombuffer(b"", np.uint8), -1, -1)
    board[_IS_OVER] = 1
    _help(board, descriptors, taken, -1, -1)


@njit(cache=True, nogil=True)
def _send(descriptors: Descriptors, data: NDArray[np.uint8], taken: Words) -> None:
    for i in range(len(descriptors)):
        taken[i] = _send_once(descriptors[i], data.ctypes.data, len(data), 0) if descriptors[i] >= 0 else -1


@njit(cache=True, nogil=True)
def _send_shared(
    board: Words,
    descriptors: Descriptors,
    taken: Words,
    count: int,
    data: NDArray[np.uint8],
    go: int,
    done: int,
) -> None:
    """Write data to the first count descriptors, with the helper where it comes in time."""
    board[_NEXT], board[_COUNT], board[_DATA], board[_SIZE] = 0, count, data.ctypes.data, len(data)
    word = np.ones(1, np.uint64)
    _exchange(board, _DOOR, _SHUT, _OPEN)
    _write(go, word.ctypes.data, 8)
    _send_next(board, descriptors, taken)
    if _exchange(board, _DOOR, _OPEN, _SHUT) != _OPEN:
        # it is at its last write, or done; a word from an earlier time may wake us too soon
        while _exchange(board, _DOOR, _SHUT, _SHUT) != _SHUT:
            _read(done, word.ctypes.data, 8)


@njit(cache=True, nogil=True)
def _help(board: Words, descriptors: Descriptors, taken: Words, go: int, done: int) -> None:
    """Take part in whatever is being sent, whenever woken, until it is over."""
    word = np.ones(1, np.uint64)
    while True:
        _read(go, word.ctypes.data, 8)
        if board[_IS_OVER]:
            return
        if _exchange(board, _DOOR, _OPEN, _PASSED) == _OPEN:
            _send_next(board, descriptors, taken)
            _exchange(board, _DOOR, _PASSED, _SHUT)
            word[0] = 1
            _write(done, word.ctypes.data, 8)


@njit(cache=True, nogil=True)
def _send_next(board: Words, descriptors: Descriptors, taken: Words) -> None:
    """Write to one descriptor after another that nobody has taken yet."""
    i = _take(board, _NEXT)
    while i < board[_COUNT]:
        descriptor = descriptors[i]
        taken[i] = _send_once(descriptor, board[_DATA], board[_SIZE], 0) if descriptor >= 0 else -1
        i = _take(board, _NEXT)


def _atomic_take(typing: Any, words: Any, at: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(words, types.int64), generate


def _atomic_exchange(typing: Any, words: Any, at: Any, old: Any, new: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        pair = builder.cmpxchg(place, arguments[2], arguments[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 0)

    return types.int64(words, types.int64, types.int64, types.int64), generate


def _place(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
    words = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(words.data, [arguments[1]])


_take: Any = intrinsic(_atomic_take)
"""(words, at): return a word and leave the next number there, as one step for all threads."""
_exchange: Any = intrinsic(_atomic_exchange)
"""(words, at, old, new): return a word and put new there if it was old, as one step for all threads."""
