"""Files that are there as a whole or not at all, whenever the power goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

PAUSE_BYTES = 1 << 20


def write_whole(path: Path, parts: Iterable[bytes | memoryview], pause: Callable[[int], None] | None = None) -> None:
    """Write a file under a temporary name, sync it, rename it, sync its folder.

    pause: called with the open file's descriptor after each megabyte.
    """
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        since = 0
        for part in parts:
            write_all(descriptor, part)
            since += len(part)
            if pause is not None and since >= PAUSE_BYTES:
                pause(descriptor)
                since = 0
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of data, in as many calls as the system needs."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def remove(path: Path) -> None:
    """Remove a file, durably; one that is not there is no error."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
