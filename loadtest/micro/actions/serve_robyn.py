"""robyn: a coroutine of its router, one process, one worker.

    python -m loadtest.micro.actions.serve_robyn --port 8105 --agents 64

Its best shape of those tried: a plain function runs in a pool of threads, which a desk is not made for and which was
slower.
"""

from __future__ import annotations

import logging
import sys

from robyn import Request, Response, Robyn

from loadtest.micro.actions.desk import Desk, serve


def application(desk: Desk) -> Robyn:
    """Return the application."""
    app = Robyn(__file__)

    async def act(request: Request) -> Response:
        body = request.body
        reply = desk.answer(
            request.path_params["agent_id"],
            request.headers.get("authorization"),
            request.headers.get("content-type"),
            body.encode() if isinstance(body, str) else bytes(body),
        )
        return Response(status_code=reply.status, headers=dict(reply.headers), description=reply.body)

    app.post("/api/agents/:agent_id/action")(act)
    return app


def run(desk: Desk, port: int) -> None:
    """Serve until the process ends."""
    logging.disable(logging.CRITICAL)
    # it reads the command line itself
    sys.argv = [sys.argv[0], "--disable-openapi", "--log-level", "WARN"]
    application(desk).start(host="127.0.0.1", port=port, _check_port=False)


if __name__ == "__main__":
    serve(run, "robyn")
