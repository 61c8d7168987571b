"""What an engine answers its gateways, and nobody else: frames they lack, whose a key is, sockets there are in all.

A gateway shows the shared secret with every request, also with those it hands on for its clients; then it is believed
about where the client is. Bodies are msgpack (server.live.relay), for they carry finished frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server import bodies, keys
from server.errors import BadRequest, Code, NotFound, Problem, Unauthorized
from server.live import relay
from server.live.desk import Desk, error_of
from server.live.elsewhere import Elsewhere
from server.live.hub import Hub
from server.live.publisher import Relayed
from server.live.subscriber import Agents
from server.middleware import EXCHANGE

SECRET_HEADER: Final = b"arena-gateway"
CLIENT_HEADER: Final = b"arena-client"
"""Where a gateway's own client is: an address."""
TRUSTED: Final = "arena.gateway"
"""Is in the scope of a request that has come from a gateway."""
FRAMES, KEYS, SOCKETS, ACTION = "/gateway/frames", "/gateway/keys", "/gateway/sockets", "/gateway/action"
MEDIA: Final = "application/msgpack"
KEYS_MAX: Final = 10_000
"""Keys that may be asked for in one request."""
BODY_BYTES: Final = 1024 * 1024


class Trust:
    """Believes who shows the secret about where the client is; takes the headers out, whoever sent them.

    secret: None believes nobody.
    """

    def __init__(self, app: ASGIApp, *, secret: str | None) -> None:
        self._app = app
        self._digest = None if secret is None else keys.digest(secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or handshake on."""
        if scope["type"] in ("http", "websocket"):
            given = {name: value for name, value in scope["headers"] if name in (SECRET_HEADER, CLIENT_HEADER)}
            if given:
                scope["headers"] = [item for item in scope["headers"] if item[0] not in given]
                if self._is_gateway(given.get(SECRET_HEADER)):
                    scope[TRUSTED] = True
                    if CLIENT_HEADER in given:
                        scope["client"] = (given[CLIENT_HEADER].decode("latin-1"), 0)
        await self._app(scope, receive, send)

    def _is_gateway(self, secret: bytes | None) -> bool:
        if secret is None or self._digest is None:
            return False
        return keys.same(keys.digest(secret.decode("latin-1")), self._digest)


def gateway_routes(
    hub: Hub, relayed: Relayed, authenticate: Callable[[bytes], Agents], desk: Desk, elsewhere: Elsewhere
) -> list[BaseRoute]:
    """Return the routes of gateways. authenticate: takes the digest of an API key, returns the owner's agents.

    desk: where actions of their connections go. elsewhere: their connections, as they report them.
    """

    async def frames(asked: Any) -> bytes:
        since = asked["since"] if asked.get("epoch") == hub.epoch else {}
        return relay.bundle(hub, since, relayed.members())

    async def owners(asked: Any) -> bytes:
        given = asked["keys"]
        if len(given) > KEYS_MAX or not all(isinstance(key_hash, bytes) for key_hash in given):
            raise BadRequest(Code.INVALID, f"keys: {len(given)} given; allowed: at most {KEYS_MAX} digests")
        return relay.pack([whose(key_hash) for key_hash in given])

    def whose(key_hash: bytes) -> dict[str, Any] | None:
        agents, identity = authenticate(key_hash), desk.identify(key_hash)
        return None if agents is None or identity is None else {"owner": identity.owner, "agents": agents}

    async def act(asked: Any) -> bytes:
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        identity = desk.identify(asked["key_hash"])
        if identity is None:
            return relay.pack(error_of(Unauthorized(Code.KEY_UNKNOWN, "the API key was revoked")))

        def take(told: dict[str, Any]) -> None:
            # a server that stops may have given this request up
            if not answered.done():
                answered.set_result(told)

        desk.submit(identity, asked["agent_id"], asked["action"], take)
        return relay.pack(await answered)

    async def sockets(asked: Any) -> bytes:
        instance, count = str(asked["instance"])[:64], int(asked["sockets"])
        elsewhere.report(instance, max(0, count))
        serial = elsewhere.take(instance, asked["serial"], asked["holders"])
        version = hub.caps.full_version
        return relay.pack(
            {
                "elsewhere": hub.connected + elsewhere.count(but=instance),
                "max": hub.sockets_max_in_all,
                "max_of_one": hub.caps.most_in_all,
                "serial": serial,
                "full": None if asked["full"] == version else elsewhere.full(but=instance),
                "full_version": version,
            }
        )

    return [_route(FRAMES, frames), _route(KEYS, owners), _route(SOCKETS, sockets), _route(ACTION, act)]


def _route(path: str, answer: Callable[[Any], Awaitable[bytes]]) -> BaseRoute:
    async def endpoint(request: Request) -> Response:
        request.scope[EXCHANGE].route = path
        if TRUSTED not in request.scope:
            # nobody else needs to know that it is there
            raise NotFound(Code.UNKNOWN_PATH, "no such path; /docs lists them")
        try:
            asked = relay.unpack(await bodies.read(request, BODY_BYTES))
            body = await answer(asked)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Problem(Code.MALFORMED, f"not what a gateway of this release sends: {error!r}") from error
        return Response(body, 200, {"Cache-Control": "no-store"}, MEDIA)

    return Route(path, endpoint, methods=["POST"])
