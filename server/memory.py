"""Memory that only a piece of work needed, given back when it is over: code of the compiler, freed blocks.

Loading the kernels brings 55 MB of LLVM's code into the process and Arrow 13 MB of its own, which count as resident
until the system is short of memory; the start's garbage leaves 6 to 13 MB with the allocator (100,000 residents).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LIBRARIES: Final = ("libllvmlite", "libarrow", "libparquet")
"""Whose code a world that ticks seldom needs."""
_MAPS: Final = Path("/proc/self/maps")
# bytes: a path is in whatever encoding its file system has it
_CODE: Final = re.compile(rf"([0-9a-f]+)-([0-9a-f]+) r-xp .*/(?:{'|'.join(LIBRARIES)})[^/]*".encode())
_MADV_DONTNEED: Final = 4
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
MAPPED_FROM: Final = 1 << 20
"""A block of so many bytes is mapped by itself, and gone when it is freed."""
FREE_MAX: Final = 4 << 20
"""Bytes that may be free at the end of a part of the allocator before they go back."""


def bound_free() -> None:
    """Have the allocator give back what it has free at its ends; does nothing where it is not glibc's.

    Left alone it raises both bounds with the largest block ever freed, to 32 and 64 MB, so that a thread that has
    written a span of the archive keeps tens of MB resident.
    """
    system = ctypes.CDLL(None)
    if hasattr(system, "mallopt"):
        system.mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM)
        system.mallopt(_M_TRIM_THRESHOLD, FREE_MAX)


def give_back() -> None:
    """Return what the start needed to the system. Code that is needed again comes back by itself, from the file.

    Does nothing where /proc cannot be read (macOS, Windows), and leaves the allocator alone where it is not glibc's.
    """
    try:
        code = list(code_of_libraries())
    except OSError:
        return
    system = ctypes.CDLL(None)
    for begin, end in code:
        # only pages that nobody can have written to: they are as they are in the file
        system.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
    trim()


def trim() -> None:
    """Return what the allocator has free to the system; does nothing where it is not glibc's.

    What a thread frees stays with its own part of the allocator, for as long as a block behind it is in use.
    """
    system = ctypes.CDLL(None)
    if hasattr(system, "malloc_trim"):
        system.malloc_trim(ctypes.c_size_t(0))


def code_of_libraries() -> Iterator[tuple[int, int]]:
    """Yield the begin and end of all code of LIBRARIES in this process. Raises OSError where that cannot be read."""
    for line in _MAPS.read_bytes().splitlines():
        if (found := _CODE.fullmatch(line)) is not None:
            yield int(found[1], 16), int(found[2], 16)
