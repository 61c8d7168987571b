"""How many files and sockets the process may have open: all the system lets it, and a word when that is too few."""

from __future__ import annotations

import sys
from typing import Final

RESERVE: Final = 200
"""Descriptors for everything that is no connection: the journal, history, the event loop."""

UNLIMITED: Final = 1 << 20
"""Connections where the system sets no limit: as many files as Linux lets a process open unless told otherwise."""


def raise_limit() -> int | None:
    """Raise the soft limit to the hard one and return it; None where there is no such limit (Windows, or unlimited)."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            # macOS calls the hard limit infinite and refuses it
            return soft
    return None if hard == resource.RLIM_INFINITY else hard


def limit() -> int | None:
    """Return how many descriptors the process may have now; None where there is no such limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def room_of_connections() -> int:
    """Return how many descriptors connections may take, a reserve left to everything else."""
    most = limit()
    return UNLIMITED if most is None else max(1, most - RESERVE)


def shortage(limit: int | None, sockets_max: int) -> str | None:
    """Return what to say when so many descriptors do not suffice for so many sockets; None when they do."""
    wanted = sockets_max + RESERVE
    if limit is None or limit >= wanted:
        return None
    return (
        f"sockets_max is {sockets_max}, but this process may open {limit} files and sockets: connections beyond"
        f" {max(1, limit - RESERVE)} will wait until others go. Allow {wanted} (ulimit -n, LimitNOFILE= in the unit,"
        " --ulimit nofile= of the container) or lower sockets_max"
    )
