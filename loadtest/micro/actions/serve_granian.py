"""granian with its own interface, RSGI, and no framework on top.

    python -m loadtest.micro.actions.serve_granian --port 8104 --agents 64

Its best shape of those tried: one worker, the single-threaded runtime, uvloop.
"""

from __future__ import annotations

import os
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.server import Server

from loadtest.micro.actions.desk import Desk, arguments
from server import logs

AGENTS = "ARENA_BENCH_AGENTS"
"""How many agents its worker, a process that is given a name to import, has."""


class Application:
    """The application, made in the worker."""

    def __init__(self) -> None:
        logs.configure("json", "info")
        self._desk = Desk(int(os.environ[AGENTS]))
        self._desk.open("granian")

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer a request."""
        headers = scope.headers
        body = await protocol()
        reply = self._desk.answer(
            scope.path.split("/")[3], headers.get("authorization"), headers.get("content-type"), body
        )
        protocol.response_bytes(reply.status, reply.headers, reply.body)


def application() -> Application:
    """Return the application: what the worker calls."""
    return Application()


if __name__ == "__main__":
    given = arguments()
    os.environ[AGENTS] = str(given.agents)
    Server(
        "loadtest.micro.actions.serve_granian:application",
        port=given.port,
        interface=Interfaces.RSGI,
        runtime_mode=RuntimeModes.st,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        factory=True,
    ).serve()
