"""Every event of the world, one JSON line each, appended as it is published: what a start after a snapshot reads.

A projection: a snapshot names how long the file was at its tick, what is behind that is cut and comes again from the
journal. Nothing waits for it to be durable but a snapshot.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import orjson
import structlog

from engine.events import Event
from server.live.array_file import NotWhole
from server.live.disk import sync_folder, write_all

FILE_NAME = "events.jsonl"

log = structlog.get_logger("arena.events")


class EventStore:
    """The file of all events. size: bytes so far; failed: whether it could not be written: it is no use any more."""

    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if is_new:
            sync_folder(path.parent)
        self.size = os.fstat(self._descriptor).st_size
        self.failed = False

    def restore(self, size: int, limit: int) -> list[Event]:
        """Cut the file to the size it had at a snapshot; return the newest events in it, at most limit, oldest first.

        Raises NotWhole when it is shorter than that, or what is in it are no events.
        """
        if self.size < size:
            raise NotWhole(f"the log of events has {self.size} bytes, the snapshot names {size}")
        os.ftruncate(self._descriptor, size)
        self.size = size
        kept: deque[bytes] = deque(maxlen=limit)
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            kept.extend(file)
        try:
            return [Event(**orjson.loads(line)) for line in kept]
        except (ValueError, TypeError) as error:
            raise NotWhole(f"the log of events cannot be read: {error}") from error

    def add(self, events: Iterable[Event]) -> None:
        """Append events. A disk that does not take them costs snapshots, and with them a fast start, nothing else."""
        data = b"".join(orjson.dumps(asdict(event), option=orjson.OPT_APPEND_NEWLINE) for event in events)
        if not data or self.failed:
            return
        try:
            write_all(self._descriptor, data)
            self.size += len(data)
        except OSError as error:
            self.failed = True
            log.error("event_log_failed", error=str(error))

    def sync(self) -> None:
        """Return when everything added is durable."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)
