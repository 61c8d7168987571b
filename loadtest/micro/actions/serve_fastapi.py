"""FastAPI with pydantic: the models of this product as its body, the answer made by orjson, no middleware.

    python -m loadtest.micro.actions.serve_fastapi --port 8102 --agents 64

Its best shape of those tried: a Response of bytes (a response model costs more), headers from the request (declared
ones cost more), uvicorn on uvloop and httptools.
"""

from __future__ import annotations

from typing import Annotated

import uvicorn
from fastapi import FastAPI, HTTPException, Path, Request, Response

from loadtest.micro.actions.desk import Desk, serve
from server import keys
from server.schemas import AnyAction

AgentId = Annotated[str, Path(pattern="^a[1-9][0-9]{0,15}$")]


def application(desk: Desk) -> FastAPI:
    """Return the application."""
    app = FastAPI(openapi_url=None)

    async def act(agent_id: AgentId, action: AnyAction, request: Request) -> Response:
        began, name = desk.clock.monotonic(), keys.request_id()
        admission = desk.admission
        caller = admission.caller(request.headers, "")
        if caller.rate is None:
            raise HTTPException(401)
        submitted = admission.submit(admission.own_agent(caller.owner, agent_id), action)
        reply = desk.reply(submitted, caller.rate, name, began)
        return Response(reply.body, reply.status, dict(reply.headers))

    app.post("/api/agents/{agent_id}/action")(act)
    return app


def run(desk: Desk, port: int) -> None:
    """Serve until the process ends."""
    uvicorn.run(application(desk), port=port, log_config=None, access_log=False, loop="uvloop", http="httptools")


if __name__ == "__main__":
    serve(run, "fastapi", "uvicorn", "pydantic")
