"""What an engine tells gateways, and only those that know the secret; whom it believes about where a client is."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from server import keys
from server.live import relay
from server.routes.gateway import FRAMES, KEYS, TRUSTED, Trust
from tests.support.arena import run_server
from tests.support.gateways import SECRET

BODY = relay.pack({"epoch": "", "since": {}})
PROOF = {"Arena-Gateway": SECRET}


class Seen:
    """An application that keeps the scope it was given."""

    scope: Scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope


async def passed(secret: str | None, **headers: str) -> Scope:
    """Return a request's scope as it comes out of Trust."""
    seen = Seen()
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: Any = {"type": "http", "client": ("10.0.0.9", 1), "headers": [(b"host", b"h"), *given]}
    await Trust(seen, secret=secret)(scope, None, None)  # type: ignore[arg-type]  # nobody receives or sends
    return seen.scope


async def test_a_gateway_is_believed_about_its_client() -> None:
    """Its address stands for the gateway's own; neither header is seen by anybody else."""
    scope = await passed(SECRET, arena_gateway=SECRET, arena_client="203.0.113.7")

    assert scope["client"] == ("203.0.113.7", 0)
    assert scope[TRUSTED]
    assert scope["headers"] == [(b"host", b"h")]


@pytest.mark.parametrize(
    ("secret", "headers"),
    [
        (SECRET, {"arena_client": "203.0.113.7"}),
        (SECRET, {"arena_client": "203.0.113.7", "arena_gateway": "not-the-secret-at-all"}),
        (SECRET, {"arena_client": "203.0.113.7", "arena_gateway": ""}),
        (None, {"arena_client": "203.0.113.7", "arena_gateway": SECRET}),
        (None, {"arena_client": "203.0.113.7", "arena_gateway": "None"}),
    ],
)
async def test_nobody_else_is(secret: str | None, headers: dict[str, str]) -> None:
    """Without the secret the connection's own address counts, and the headers are taken out."""
    scope = await passed(secret, **headers)

    assert scope["client"] == ("10.0.0.9", 1)
    assert TRUSTED not in scope
    assert scope["headers"] == [(b"host", b"h")]


async def test_frames_and_keys_are_for_gateways() -> None:
    """With the secret an answer; without it, or where there are no gateways, no such path."""
    async with run_server(gateway_secret=SECRET) as arena, arena.client() as client:
        bot = await arena.register()
        question = relay.pack({"keys": [keys.digest(bot.api_key), keys.digest("ak_other")]})
        answered = await client.post(FRAMES, content=BODY, headers=PROOF)
        owners = await client.post(KEYS, content=question, headers=PROOF)
        for path in (FRAMES, KEYS):
            for headers in ({}, {"Arena-Gateway": "wrong-wrong-wrong-wrong"}):
                refused = await client.post(path, content=BODY, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (404, 111)

        told = relay.read(answered.content)
        assert (told["epoch"], told["tick"]) == (arena.parts.world.epoch, arena.tick)
        assert relay.unpack(owners.content) == [{"owner": int(bot.agent_id[1:]), "agents": [bot.agent_id]}, None]
    async with run_server() as arena, arena.client() as client:
        assert (await client.post(FRAMES, content=BODY, headers=PROOF)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((path, body) for path in (FRAMES, KEYS) for body in (b"", b"\xc1", relay.pack([]), relay.pack(1))),
        (KEYS, relay.pack({})),
        (KEYS, relay.pack({"keys": [1]})),
        (KEYS, relay.pack({"keys": [b""] * 10_001})),
    ],
)
async def test_what_no_gateway_sends_is_refused(path: str, body: bytes) -> None:
    """400, never 500, for whatever is none of its questions."""
    async with run_server(gateway_secret=SECRET) as arena, arena.client() as client:
        assert (await client.post(path, content=body, headers=PROOF)).status_code == 400
