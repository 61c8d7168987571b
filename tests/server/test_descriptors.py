"""A server may open as many sockets as the system lets it, and says when those are too few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from server.descriptors import RESERVE, UNLIMITED, raise_limit, room_of_connections, shortage

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, int(sys.argv[1])))
from server.descriptors import raise_limit
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_becomes_the_hard_one() -> None:
    """A login shell's soft limit is often 1,024, the hard one a thousand times that."""
    done = subprocess.run([sys.executable, "-c", CHILD, "500"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["500", "500", "500"]


def test_raising_twice_changes_nothing() -> None:
    """What is there is returned."""
    assert raise_limit() == raise_limit()


def test_too_few_are_said_with_the_way_out() -> None:
    """Numbers, consequence, remedy; nothing when they suffice or there is no limit."""
    assert shortage(20_000 + RESERVE, 20_000) is None
    assert shortage(None, 20_000) is None

    said = shortage(1_024, 20_000)

    assert said is not None
    assert all(part in said for part in ("20000", "1024", "824", "wait", "LimitNOFILE", "sockets_max"))


def test_connections_leave_the_rest_what_it_needs() -> None:
    """The journal and the history have a reserve that no connection takes; there is a bound in any case."""
    limit = raise_limit()

    assert room_of_connections() == (UNLIMITED if limit is None else limit - RESERVE)
