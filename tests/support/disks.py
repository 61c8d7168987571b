"""Files for a journal that do what disks do: fail, fill up, and take their time."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.live.journal import DiskFile


class FailingFile:
    """A real file whose n-th call of write or sync (counted together, from 1) fails; so does every later one.

    fails_at: n; may be changed while the file is used.
    """

    def __init__(self, path: Path, fails_at: int, error: int = errno.EIO) -> None:
        self._file = DiskFile(path)
        self.fails_at = fails_at
        self._error = error
        self.calls = 0

    def write(self, data: bytes) -> None:
        """Write all of it, or half of it and fail."""
        self.calls += 1
        if self.calls >= self.fails_at:
            self._file.write(data[: len(data) // 2])
            raise OSError(self._error, os.strerror(self._error))
        self._file.write(data)

    def sync(self) -> None:
        """Sync, or fail."""
        self.calls += 1
        if self.calls >= self.fails_at:
            raise OSError(self._error, os.strerror(self._error))
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class GatedFile:
    """A real file whose syncs wait while the gate is shut."""

    def __init__(self, path: Path) -> None:
        self._file = DiskFile(path)
        self._gate = threading.Event()
        self._gate.set()
        self.writes: list[int] = []
        """Bytes of each batch."""

    def write(self, data: bytes) -> None:
        """Write all of it."""
        self.writes.append(len(data))
        self._file.write(data)

    def sync(self) -> None:
        """Wait for the gate, then sync."""
        self._gate.wait()
        self._file.sync()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Let no sync end inside the block."""
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def failing(at: int, error: int = errno.EIO) -> Callable[[Path], FailingFile]:
    """Return what opens a file that fails at its n-th call."""
    return lambda path: FailingFile(path, at, error)


class Disk:
    """The system's fdatasync, which can be made to wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_busy = False
        """Whether somebody waits for it."""
        self._gate = threading.Event()
        self._gate.set()
        sync = os.fdatasync

        def gated(descriptor: int) -> None:
            self.is_busy = not self._gate.is_set()
            self._gate.wait()
            sync(descriptor)

        monkeypatch.setattr(os, "fdatasync", gated)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Let no sync end inside the block."""
        self.is_busy = False
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()
