"""The server that is tested: one of somebody's, by its address, or one of our own for the time of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loadtest.process import warm_server


@contextmanager
def target(url: str | None, *flags: str) -> Iterator[str]:
    """Give the address of the server to test. flags: of our own, which is started when there is no url.

    Our own has started once before, so that it neither compiles nor settles while it is tested.
    """
    if url is not None:
        yield url.rstrip("/")
        return
    with warm_server(*flags) as server:
        yield server.url
