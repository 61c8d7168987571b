"""A real server with a probe in its event loop: how long did a task that wanted to run wait for its turn?

    python -m loadtest.micro.probed_server --data DIR [OPTION ...]

Takes the options of `arena serve`, prints its port when it is open, then answers `begin` (forget) and `report` (one
line of JSON) on standard input. What the machine did meanwhile is taken off: stalls that the watchdog saw, and the
time in which the thread was ready to run and was not. When the longest pauses were is said as well, for whoever knows
of other stalls.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import sys
import threading
import time
from typing import Any

import uvloop

from loadtest.peers.broadcasting import say
from loadtest.process import percentile
from server import descriptors, kernel_cache, logs
from server.clock import SystemClock
from server.config import Settings, load
from server.live.watchdog import LoopWait, Watchdog
from server.metrics import Metrics

PERIOD_S = 0.001
LONGEST = 1_000
"""Pauses that are told one by one."""


class Probe:
    """Measures every turn of the loop that it lives in."""

    def __init__(self) -> None:
        self._watchdog = Watchdog(Metrics(), SystemClock())
        self.begin()

    def begin(self) -> None:
        """Forget what was measured."""
        self._pauses_ms: list[float] = []
        self._turns: list[tuple[float, float]] = []
        self._longest_raw_ms = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        self._watchdog.start()
        waiting = LoopWait()
        while True:
            waiting.take()
            begun = time.monotonic()
            await asyncio.sleep(PERIOD_S)
            ended = time.monotonic()
            pause = ended - begun - PERIOD_S
            explained = max(self._watchdog.stalled_s(begun, ended), waiting.take())
            self._longest_raw_ms = max(self._longest_raw_ms, 1e3 * pause)
            self._turns.append((begun + PERIOD_S, ended))
            self._pauses_ms.append(1e3 * max(0.0, pause - explained))

    def report(self) -> dict[str, Any]:
        """Return what was measured; `longest`: pauses, each with when it began and ended (monotonic, s)."""
        pauses = self._pauses_ms
        return {
            "count": len(pauses),
            "longest": heapq.nlargest(LONGEST, zip(pauses, self._turns, strict=True)),
            "longest_raw_ms": round(self._longest_raw_ms, 3),
            "p50_ms": round(percentile(pauses, 0.5), 3),
            "p99_ms": round(percentile(pauses, 0.99), 3),
            "p999_ms": round(percentile(pauses, 0.999), 3),
        }


async def serve(settings: Settings) -> None:
    """Serve and probe until the process is killed."""
    # kernels come with it, and are looked for in the folder that is chosen below
    from server.app import SWITCH_S, Opening, Server, create_app, server_config

    sys.setswitchinterval(SWITCH_S)
    opening, metrics = Opening(), Metrics()
    app = create_app(settings, metrics=metrics, opening=opening, on_ended=lambda: server.stop())
    server = Server(server_config(app, settings), opening, metrics)
    serving = asyncio.create_task(server.serve())
    await opening.is_open.wait()
    await server.is_listening.wait()
    probe = Probe()
    probing = asyncio.create_task(probe.run())
    say(str(server.servers[0].sockets[0].getsockname()[1]))
    # a thread of its own: a pipe in the loop would take turns from it
    threading.Thread(target=_answer, args=(asyncio.get_running_loop(), probe), daemon=True).start()
    await serving
    probing.cancel()


def _answer(loop: asyncio.AbstractEventLoop, probe: Probe) -> None:
    for line in sys.stdin:
        if line == "begin\n":
            loop.call_soon_threadsafe(probe.begin)
        else:
            say(json.dumps(probe.report()))


if __name__ == "__main__":
    kernel_cache.choose()
    logs.configure("json", "info")
    descriptors.raise_limit()
    uvloop.run(serve(load(["--port", "0", *sys.argv[1:]], {})))
