"""socketify (uWebSockets): a plain function, the body by callback, the answer written corked.

python -m loadtest.micro.actions.serve_socketify --port 8106 --agents 64
"""

from __future__ import annotations

from typing import Any

from socketify import App, AppListenOptions

from loadtest.micro.actions.desk import Desk, Reply, serve


def application(desk: Desk) -> App:
    """Return the application."""

    def act(response: Any, request: Any) -> None:
        agent_id = request.get_parameter(0)
        authorization, content_type = request.get_header("authorization"), request.get_header("content-type")
        chunks: list[bytes] = []

        def take(response: Any, chunk: bytes, is_last: bool) -> None:
            chunks.append(chunk)
            if is_last:
                reply = desk.answer(agent_id, authorization, content_type, b"".join(chunks))
                response.cork(lambda response: _write(response, reply))

        response.on_data(take)

    app = App()
    app.post("/api/agents/:agent_id/action", act)
    return app


def _write(response: Any, reply: Reply) -> None:
    response.write_status(reply.status)
    for name, value in reply.headers:
        response.write_header(name, value)
    response.end(reply.body)


def run(desk: Desk, port: int) -> None:
    """Serve until the process ends."""
    app = application(desk)
    app.listen(AppListenOptions(port=port, host="127.0.0.1"), lambda options: None)
    app.run()


if __name__ == "__main__":
    serve(run, "socketify")
