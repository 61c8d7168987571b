"""One small world, run once for all tests of the report."""

from __future__ import annotations

import pytest

from server.clock import ManualClock
from server.report.history import History, run_headless
from tests.support.worlds import small_config

TICKS = 3_000


@pytest.fixture(scope="session")
def history() -> History:
    """3,000 ticks of 2,000 residents after the warm-up: long enough for every plot, too short for a verdict."""
    return run_headless(small_config(), 5, TICKS, ManualClock(), lambda line: None)
