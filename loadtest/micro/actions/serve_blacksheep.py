"""BlackSheep on uvicorn (uvloop, httptools): a handler that takes the request as it is.

python -m loadtest.micro.actions.serve_blacksheep --port 8103 --agents 64
"""

from __future__ import annotations

import uvicorn
from blacksheep import Application, Content, Request, Response

from loadtest.micro.actions.desk import Desk, serve


def application(desk: Desk) -> Application:
    """Return the application."""
    app = Application()

    async def act(request: Request) -> Response:
        body = await request.read()
        assert request.route_values is not None
        reply = desk.answer(
            request.route_values["agent_id"],
            (request.get_first_header(b"authorization") or b"").decode("latin-1"),
            (request.get_first_header(b"content-type") or b"").decode("latin-1"),
            body or b"",
        )
        headers = [(name.encode(), value.encode()) for name, value in reply.headers if name != "content-type"]
        return Response(reply.status, headers, Content(b"application/json", reply.body))

    app.router.post("/api/agents/{agent_id}/action")(act)
    return app


def run(desk: Desk, port: int) -> None:
    """Serve until the process ends."""
    uvicorn.run(application(desk), port=port, log_config=None, access_log=False, loop="uvloop", http="httptools")


if __name__ == "__main__":
    serve(run, "blacksheep", "uvicorn")
