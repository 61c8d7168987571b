"""Whose agents a connection speaks for, as the engine says: what clients ask keeps nothing else waiting."""

from __future__ import annotations

import asyncio

from arena_client.wire import SUBPROTOCOL_JSON

from server import keys
from server.clock import ManualClock
from server.config import Settings
from server.gateway.owners import Owners
from server.gateway.upstream import Upstream
from server.live import relay
from server.live.hub import Hub
from server.metrics import Metrics
from tests.support.deadlines import seconds
from tests.support.http_peer import Peer, Serve, forever, serving
from tests.support.streams import until


def silent(peer: Peer) -> Serve:
    """Read requests and answer none."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await peer.read(reader)

    return handle


async def test_clients_that_show_keys_do_not_keep_the_gateways_own_questions_waiting() -> None:
    """A revocation is noticed while every connection for look-ups is in use."""
    unknown = relay.pack([None])
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(unknown), unknown)
    async with serving(silent) as busy, serving(forever(answer)) as engine:
        metrics, clock = Metrics(is_gateway=True), ManualClock()
        lookups, questions = (
            Upstream(("127.0.0.1", peer.port), 1, metrics, limit_s=seconds(10.0)) for peer in (busy, engine)
        )
        owners = Owners(lookups, questions, [], clock)
        hub = Hub("0" * 16, Settings(), metrics, clock, owners.authenticate)
        subscriber = hub.open(SUBPROTOCOL_JSON)
        subscriber.key_hash = keys.digest("ak_revoked")
        asking = [asyncio.create_task(owners.authenticate(keys.digest(f"ak_{i}"))) for i in range(3)]
        running = asyncio.create_task(owners.run(hub))
        await until(lambda: bool(busy.requests), 10.0)

        owners.doubt_all()
        await until(lambda: subscriber.close_code == 4500, 10.0)

        for task in (running, *asking):
            task.cancel()
        await asyncio.gather(running, *asking, return_exceptions=True)
        lookups.close()
        questions.close()
        await until(lambda: metrics.registry.get_sample_value("arena_gateway_connections") == 0, 10.0)
