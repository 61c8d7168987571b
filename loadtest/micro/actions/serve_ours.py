"""Our server with the application's own layers: uvicorn with our protocol, envelope, gate, hot route, the ordinary one.

python -m loadtest.micro.actions.serve_ours --port 8101 --agents 64
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response

from loadtest.micro.actions.desk import TICK, Desk, serve
from server.middleware import Envelope, Gate
from server.protocols import HOT, websocket_options
from server.registry import BY_NAME
from server.routes import EXCEPTION_HANDLERS, Call, agents, bind
from server.routes.hot import HotRoute


def application(desk: Desk) -> Starlette:
    """Return the application as server.app makes it, over a desk instead of a world."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        yield {HOT: desk.find_hot}

    async def absent(call: Call) -> Response:
        return Response(status_code=404)

    nothing = cast(Any, None)
    others = {name: absent for name, operation in BY_NAME.items() if not operation.is_operators}
    acting = agents.handlers(desk.admission, desk.recorder, nothing, nothing, desk.published)
    return Starlette(
        routes=bind(others | {"act": acting["act"]}, desk.admission),
        middleware=[
            Middleware(Envelope, metrics=desk.metrics, clock=desk.clock, tick=lambda: TICK),
            Middleware(Gate, alive=frozenset(), shut=lambda: None),
            Middleware(HotRoute, find=desk.find_hot),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )


def run(desk: Desk, port: int) -> None:
    """Serve until the process ends."""
    options = {"server_header": False, "proxy_headers": False, **websocket_options()}
    uvicorn.run(application(desk), port=port, log_config=None, access_log=False, lifespan="on", **options)


if __name__ == "__main__":
    serve(run, "uvicorn", "starlette")
