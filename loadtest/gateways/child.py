"""A process that makes engines and gateways: each is forked from one that has the code and the kernels loaded.

    python -m loadtest.gateways.child

Reads one JSON line a process: {"what": "engine" or "gateway", "flags": [...], "planted": name or null}; prints "pid N",
later "exit N S" with the status, negative for a signal. Planted mistakes prove that the driver finds them.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from typing import Any

from server import kernel_cache

PLANTED = ("says_unsent", "answers_early")
"""A gateway that says 503 when it does not know; one that says 202 before the engine did."""


def main() -> None:
    """Load everything, then fork."""
    kernel_cache.choose()
    import_module("server.gateway.app")
    from server import app

    app.warm_kernels()
    _say("loaded")
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_serve(order))
        _say(f"pid {child}")
        threading.Thread(target=_bury, args=(child,), daemon=True).start()


def _serve(order: dict[str, Any]) -> int:
    from server import app, config
    from server.gateway import app as gateway_app

    if order["what"] == "engine":
        return app.serve(config.load(order["flags"], {}))
    if order["planted"] is not None:
        _plant(order["planted"])
    return gateway_app.serve(config.load_gateway(order["flags"], {}))


def _plant(name: str) -> None:
    from server.gateway.upstream import Answer, Unanswered, Unsent, Upstream

    exchange = Upstream.exchange

    async def wrong(self: Upstream, method: bytes, target: bytes, *rest: Any) -> Answer:
        try:
            return await exchange(self, method, target, *rest)
        except Unanswered as error:
            if name == "says_unsent":
                raise Unsent(str(error)) from error
            if b"/action" not in target or method != b"POST" or target.endswith(b"s"):
                raise
            body = json.loads(rest[1])
            receipt = {"client_action_id": body["client_action_id"], "status": "accepted", "seq": 1, "tick": None}
            return Answer(202, [], json.dumps(receipt | {"duplicate": False, "outcome": None}).encode())

    Upstream.exchange = wrong  # type: ignore[assignment,method-assign]  # a mistake, made on purpose


def _bury(child: int) -> None:
    _, status = os.waitpid(child, 0)
    _say(f"exit {child} {os.waitstatus_to_exitcode(status)}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
