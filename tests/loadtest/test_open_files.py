"""Room for sockets: what the system allows is taken, what it does not is said before the test begins."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from loadtest.open_files import OTHER_FILES, make_room


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """Keep the limits of this process as they were."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_is_allowed_is_taken(limits: tuple[int, int]) -> None:
    """The soft limit rises to what is needed and no further, and never sinks."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))

    make_room(200)
    make_room(100)

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200 + OTHER_FILES, limits[1])


def test_what_is_not_allowed_is_said(limits: tuple[int, int]) -> None:
    """The message has what is needed, what is allowed, and how to raise it."""
    assert limits[1] != resource.RLIM_INFINITY

    with pytest.raises(OSError, match=rf"need {limits[1] + 1 + OTHER_FILES:,} open files, and at most {limits[1]:,}"):
        make_room(limits[1] + 1)
