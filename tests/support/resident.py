"""How much of the libraries' code that a start needs is in memory."""

from __future__ import annotations

from pathlib import Path

from server.memory import code_of_libraries


def resident_code() -> int:
    """Return the bytes of it that are resident in this process."""
    begins = tuple(f"{begin:x}-" for begin, _ in code_of_libraries())
    total, is_code = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if " r-xp " in line:
            is_code = line.startswith(begins)
        elif is_code and line.startswith("Rss:"):
            total, is_code = total + int(line.split()[1]) * 1024, False
    return total
