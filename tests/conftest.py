"""What every test runs under: Hypothesis without deadlines, a time limit per test, one factor for all deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest
from hypothesis import settings

from server import kernel_cache
from tests.support.deadlines import FACTOR

# before any test file imports a kernel
kernel_cache.choose()

TEST_TIMEOUT_S = 120.0
"""Longest a single test may take, its fixtures not counted, before its stack is shown and it fails."""

# no deadline: the first example of a kernel compiles it; no database: a run leaves nothing behind in the tree
settings.register_profile("arena", deadline=None, database=None, derandomize=False, print_blob=True)
settings.load_profile("arena")


@pytest.fixture(scope="session", autouse=True)
def _warm_kernels() -> None:
    """Compile, or load, every kernel once for the suite: a test then takes the time its own work takes."""
    from tests.support.kernels import warm

    warm()


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked `both_loops` over the server's usual event loop as well, where that exists."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops") is not None:
        with suppress(ImportError):
            import uvloop

            factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test without a time limit of its own the common one."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S * FACTOR))
