"""How much of the libraries' code that a start needs is in memory."""

from __future__ import annotations

from pathlib import Path

from server.memory import code_of_libraries

IS_TOLD = Path("/proc/self/smaps").exists()
"""Whether the system says what is resident."""


def resident_code() -> int:
    """Return the bytes of it that are resident in this process, 0 where the system does not say (macOS, Windows)."""
    try:
        begins = tuple(f"{begin:x}-".encode() for begin, _ in code_of_libraries())
        lines = Path("/proc/self/smaps").read_bytes().splitlines()
    except OSError:
        return 0
    total, is_code = 0, False
    for line in lines:
        if b" r-xp " in line:
            is_code = line.startswith(begins)
        elif is_code and line.startswith(b"Rss:"):
            total, is_code = total + int(line.split()[1]) * 1024, False
    return total
