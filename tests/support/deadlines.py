"""One factor for every deadline of the tests, so that a slow machine is a setting and not an edit."""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("ARENA_TEST_TIMEOUT_FACTOR", "1"))


def seconds(limit: float) -> float:
    """Return a deadline of limit seconds on this machine."""
    return limit * FACTOR
