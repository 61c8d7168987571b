"""A broadcaster's conversation with the bench: so many ticks, ten a second, one payload to everybody in each.

Prints its port, then answers every line `N` on standard input with N ticks and a line: the frames it has sent.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable

PERIOD_S = 0.1
_HEAD = b"\xa7channel\xc0\xa7sent_ns\xcf"


def payload(size: int) -> bytes:
    """Return size bytes that carry the time, as the receiver looks for it."""
    return (_HEAD + time.time_ns().to_bytes(8, "big")).ljust(size, b"\0")


async def run(port: int, tick: Callable[[], Awaitable[int]]) -> None:
    """Tick as often as standard input says. tick: sends one payload to everybody, returns to how many."""
    # as in our server: what lives is out of the collector's sight, and it runs between ticks only
    gc.collect()
    gc.freeze()
    gc.disable()
    say(str(port))
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        sent, due = 0, loop.time()
        for _ in range(int(line)):
            await asyncio.sleep(due - loop.time())
            sent += await tick()
            gc.collect(0)
            due += PERIOD_S
        say(str(sent))


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
