"""A gateway put together, in flow order: the only place that constructs its parts.

feed (Redis, engine) -> hub -> stream        requests -> reads | forwarder -> upstream -> engine
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, WebSocketRoute

from server import descriptors, logs, send_loop
from server.app import SWITCH_S, Opening, Server, server_config
from server.clock import Clock, SystemClock
from server.config import GatewaySettings, Settings
from server.errors import Code
from server.gateway.desk import RemoteDesk
from server.gateway.feed import Feed
from server.gateway.forward import Forwarder
from server.gateway.owners import Owners
from server.gateway.reads import Reads
from server.gateway.routes import routes
from server.gateway.sockets import Sockets
from server.gateway.upstream import Upstream
from server.live.collector import Collector
from server.live.hub import Hub
from server.metrics import Metrics
from server.middleware import Envelope, Gate
from server.protocols import FRAMES_PER_S
from server.redis_door import connect
from server.registry import OPERATIONS
from server.routes import EXCEPTION_HANDLERS
from server.routes.stream import stream_endpoint

ANSWER_S = 15.0
"""Longest the engine may take for an answer; with wait=outcome it takes ten seconds itself."""
QUESTIONS = 4
"""Connections for the gateway's own questions: requests of clients must not keep them waiting."""
LOOKUPS = 8
"""Connections for whom a client's key belongs to: whoever shows wrong ones keeps no requests waiting."""
COLLECT_S = 0.1
"""Seconds between two steps of the garbage collector: as an engine's, which has one after every tick."""
NO_EPOCH = ""
"""Of a gateway that has not heard from its engine yet."""

log = structlog.get_logger("arena.gateway")


@dataclass
class Gateway:
    """All parts of a running gateway, for whoever embeds or tests it. failure: what ended it."""

    settings: GatewaySettings
    metrics: Metrics
    redis: Redis
    hub: Hub
    feed: Feed
    owners: Owners
    desk: RemoteDesk
    sockets: Sockets
    upstream: Upstream
    questions: Upstream
    lookups: Upstream
    forwarder: Forwarder
    reads: Reads
    is_stopping: bool = False
    failure: BaseException | None = None

    def refusal(self) -> Code | None:
        """Return why requests are not taken now, None while they are."""
        if self.is_stopping:
            return Code.STOPPING
        return None if self.feed.is_in_step.is_set() else Code.STARTING


def serve(settings: GatewaySettings) -> int:
    """Run a gateway until it is told to stop; return 0. Raises what ended it."""
    logs.configure(settings.log, settings.log_level)
    sys.setswitchinterval(SWITCH_S)
    if shortage := descriptors.shortage(descriptors.raise_limit(), settings.sockets_max):
        log.warning("descriptors_too_few", hint=shortage)
    # compiled, or loaded, before the first frame waits for it
    send_loop.warm()
    gateway = build(settings, Metrics(is_gateway=True), SystemClock())
    app = create_app(gateway, on_ended=lambda: server.stop())
    server = Server(server_config(app, Settings(host=settings.host, port=settings.port)), Opening(), gateway.metrics)
    server.run()
    if gateway.failure is not None:
        raise gateway.failure
    return 0


def build(settings: GatewaySettings, metrics: Metrics, clock: Clock) -> Gateway:
    """Build all parts of a gateway; nothing is connected yet."""
    streaming = Settings(
        sockets_max=settings.sockets_max,
        sockets_per_key_max=settings.sockets_per_key_max,
        sockets_per_address_max=settings.sockets_per_address_max,
        client_frames_per_s=settings.client_frames_per_s,
        outbox_frames_max=settings.outbox_frames_max,
        resume_frames=settings.resume_frames,
        heartbeat_s=settings.heartbeat_s,
    )
    assert settings.gateway_secret is not None  # the settings see to it
    upstream = Upstream(settings.engine_address, settings.engine_connections, metrics, limit_s=ANSWER_S)
    questions = Upstream(settings.engine_address, QUESTIONS, metrics, limit_s=ANSWER_S)
    lookups = Upstream(settings.engine_address, LOOKUPS, metrics, limit_s=ANSWER_S)
    forwarder = Forwarder(upstream, settings.gateway_secret, metrics)
    redis = connect(settings.redis)
    host, port = settings.engine_address
    headers = [(b"host", f"{host}:{port}".encode()), *forwarder.own_headers(None)]
    owners = Owners(lookups, questions, headers, clock)
    desk = RemoteDesk(owners, forwarder, headers)
    hub = Hub(NO_EPOCH, streaming, metrics, clock, owners.authenticate, desk=desk)

    def on_revoked(key_hash: bytes | None) -> None:
        if key_hash is None:
            owners.doubt_all()
        else:
            hub.revoke(key_hash)

    async def on_away() -> None:
        await reads.keep_all()

    feed = Feed(hub, redis, questions, headers, metrics, clock, on_revoked=on_revoked, on_away=on_away)
    reads = Reads(hub, redis, forwarder, lambda: feed.away_s, lambda: feed.has_redis, metrics, clock)
    return Gateway(
        settings,
        metrics,
        redis,
        hub,
        feed,
        owners,
        desk,
        Sockets(hub, questions, headers, clock),
        upstream,
        questions,
        lookups,
        forwarder,
        reads,
    )


def create_app(gateway: Gateway, *, on_ended: Callable[[], None] = lambda: None) -> Starlette:
    """Return a gateway as an ASGI application. on_ended: called when its tasks failed."""
    hub = gateway.hub

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        log.info("following", **gateway.settings.describe())
        streaming = asyncio.create_task(hub.run(), name="hub")
        following = asyncio.create_task(gateway.feed.run(), name="feed")
        checking = asyncio.create_task(gateway.owners.run(hub), name="owners")
        reporting = asyncio.create_task(gateway.sockets.run(), name="sockets")
        collecting = asyncio.create_task(collect(), name="collecting")
        for task in (streaming, following, checking, reporting, collecting):
            task.add_done_callback(note_end)
        try:
            yield {FRAMES_PER_S: gateway.settings.client_frames_per_s}
        finally:
            gateway.is_stopping = True
            for task in (following, checking, reporting, collecting):
                task.cancel()
            await hub.close()
            await gateway.desk.close()
            await asyncio.wait((streaming, following, checking, reporting, collecting))
            for pool in (gateway.upstream, gateway.questions, gateway.lookups):
                pool.close()
            await gateway.redis.aclose()
            log.info("stopped", tick=hub.tick)

    async def collect() -> None:
        collector = Collector()
        collector.start()
        try:
            while True:
                await asyncio.sleep(COLLECT_S)
                collector.step()
        finally:
            collector.stop()

    def note_end(task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            gateway.failure = failure
            on_ended()

    stream: list[BaseRoute] = [WebSocketRoute("/ws", stream_endpoint(hub), name="stream")]
    return Starlette(
        routes=[*routes(gateway.feed, gateway.reads, gateway.forwarder, hub, gateway.owners, gateway.metrics), *stream],
        middleware=[
            Middleware(Envelope, metrics=gateway.metrics, clock=SystemClock(), tick=lambda: hub.tick),
            Middleware(Gate, alive=frozenset(item.path for item in OPERATIONS if item.starting), shut=gateway.refusal),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
