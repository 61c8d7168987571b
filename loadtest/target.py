"""The server that is tested: one of somebody's, by its address, or one of our own for the time of the test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.process import ServerProcess

FIRST_START_S = 600.0
START_S = 60.0


@contextmanager
def target(url: str | None, *flags: str) -> Iterator[str]:
    """Give the address of the server to test. flags: of our own, which is started when there is no url.

    Our own has started once before, so that it neither compiles nor settles while it is tested.
    """
    if url is not None:
        yield url.rstrip("/")
        return
    with tempfile.TemporaryDirectory(prefix="arena-loadtest-") as folder:
        data = Path(folder) / "world"
        with ServerProcess(data, *flags) as first:
            first.wait_ready(FIRST_START_S)
            first.stop()
        with ServerProcess(data, *flags) as server:
            server.wait_ready(START_S)
            yield server.url
