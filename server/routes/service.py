"""The service itself: information, clock, health, metrics, documents, pages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields
from functools import cache, lru_cache
from typing import Any

import orjson
from starlette.responses import Response

from engine.config import ENGINE_VERSION, Config
from engine.ladder import LEVELS, prices
from engine.markets import HOURS, IMPORTANCE, INPUTS, NAMES, RAW_FIRST, RAW_LAST, SECTOR, SHARE_FIRST
from engine.messages import REJECT_TEXT
from server import openapi, pages, registry, schemas
from server.asyncapi import document as asyncapi_document
from server.bodies import DEPTH_MAX
from server.clock import Clock
from server.config import Settings
from server.errors import Code, NotFound
from server.live.admission import burst
from server.live.agent_frames import AGENT
from server.live.frames import CHANNELS
from server.live.history import SERIES, History
from server.live.hub import PRIVATE, stream_limits
from server.live.receipts import RETENTION_TICKS, VALIDITY_TICKS, VALIDITY_TICKS_MAX, credits
from server.live.recorder import Recorder
from server.live.view import KIND, Published, iso_time
from server.live.world import World
from server.metrics import Metrics
from server.protocols import BODY_S, HEAD_BYTES_MAX, HEAD_S, UNREAD_S
from server.routes import Call, Handler, json_response, shared_response

_NO_STORE = {"Cache-Control": "no-store"}


def handlers(
    settings: Settings,
    version: str,
    world: World,
    recorder: Recorder,
    published: Published,
    history: History,
    metrics: Metrics,
    clock: Clock,
    redis: Callable[[], str],
) -> dict[str, Handler]:
    """Return the handlers of the service. version: of the server. redis: says how it is: off, connected, lost."""
    began = clock.monotonic()
    started_tick = published.view.tick

    @lru_cache(1)
    def info_of(config: Config) -> bytes:
        return orjson.dumps(information(settings, version, world))

    def info_body() -> bytes:
        # an operator may have set something since it was asked for last
        return info_of(world.economy.config)

    @cache
    def openapi_body() -> bytes:
        return orjson.dumps(openapi.document(version))

    @cache
    def asyncapi_body() -> bytes:
        return orjson.dumps(asyncapi_document(settings))

    @cache
    def docs_body() -> bytes:
        return pages.docs(openapi.document(version)).encode()

    def fixed(body: Callable[[], bytes], media: str = "application/json") -> Handler:
        @lru_cache(1)
        def name(whole: bytes) -> str:
            # settings are in these documents, and may be others after a restart
            return hashlib.blake2b(whole, digest_size=8).hexdigest()

        async def answer(call: Call) -> Response:
            response = shared_response(call, body, f"{world.epoch}-{name(body())}", media)
            response.headers.update(pages.HEADERS if media == registry.HTML else {})
            return response

        return answer

    async def time(call: Call) -> Response:
        view, now = published.view, clock.unix_ns()
        document = {
            "tick": view.tick,
            "epoch": view.epoch,
            "tick_rate_ms": settings.tick_rate,
            "day": view.tick // HOURS,
            "hour": view.tick % HOURS,
            "published": iso_time(view.published_unix_ns),
            "published_unix_ms": view.published_unix_ns // 1_000_000,
            "now": iso_time(now),
            "now_unix_ms": now // 1_000_000,
        }
        return json_response(orjson.dumps(document), headers=_NO_STORE)

    async def status(call: Call) -> Response:
        reason = recorder.read_only
        document = {
            "status": "read_only" if reason is not None else "paused" if world.is_paused else "running",
            "reason": reason,
            "tick": published.view.tick,
            "epoch": world.epoch,
            "uptime_s": round(clock.monotonic() - began, 3),
            "tick_rate_ms": settings.tick_rate,
            "agents": world.registry.active,
            "queue_actions": len(world.queue),
            "durable_seq": world.journal.durable_seq,
            "started_tick": started_tick,
            "redis": redis(),
        }
        return json_response(orjson.dumps(document), headers=_NO_STORE)

    async def alive(call: Call) -> Response:
        return json_response(b'{"status":"ok"}', headers=_NO_STORE)

    async def ready(call: Call) -> Response:
        # reads and streams go on when no input is taken, so a world that is read-only is still worth its traffic
        state = "ready" if recorder.read_only is None else "read_only"
        return json_response(orjson.dumps({"status": state}), headers=_NO_STORE)

    async def metrics_page(call: Call) -> Response:
        metrics.history_points.set(history.points)
        metrics.history_waiting.set(history.waiting)
        for name, tier in zip(("days", "months"), history.tiers, strict=False):
            metrics.history_bars.labels(name).set(tier.count)
        body, media = await metrics.expose(call.request.headers.get("accept"))
        return Response(body, 200, _NO_STORE, media)

    async def front(call: Call) -> Response:
        body = pages.front(published.view, version).encode()
        return Response(body, 200, {**pages.HEADERS, **_NO_STORE}, registry.HTML)

    async def asset(call: Call) -> Response:
        name = call.path["name"]
        if name not in pages.ASSETS:
            raise NotFound(Code.UNKNOWN_PATH, f"no file {name[:40]!r}; there are {', '.join(pages.ASSETS)}")
        media, text = pages.ASSETS[name]
        return shared_response(call, text.encode, f"{version}-{name}", media)

    return {
        "info": fixed(info_body),
        "time": time,
        "status": status,
        **dict.fromkeys(("healthz", "livez", "health", "live"), alive),
        **dict.fromkeys(("readyz", "ready"), ready),
        "metrics": metrics_page,
        "openapi": fixed(openapi_body),
        "asyncapi": fixed(asyncapi_body),
        "docs": fixed(docs_body, registry.HTML),
        "front": front,
        "asset": asset,
    }


def information(settings: Settings, version: str, world: World) -> dict[str, Any]:
    """Return the document of GET /api/info: what the world is made of and what the server allows."""
    config = world.economy.config
    table = prices()
    return {
        "name": "Living Economy Arena",
        "version": version,
        "engine_version": ENGINE_VERSION,
        "epoch": world.epoch,
        "seed_commitment": world.seed_commitment,
        "tick_rate_ms": settings.tick_rate,
        "residents": config.residents,
        "config": {item.name: getattr(config, item.name) for item in fields(config)},
        "markets": [_market(m) for m in range(len(NAMES))],
        "resources": [
            {"id": m, "name": NAMES[m], "importance": IMPORTANCE[m - RAW_FIRST]} for m in range(RAW_FIRST, RAW_LAST + 1)
        ],
        "ladder": {
            "levels": LEVELS,
            "ratio": "1.0001",
            "lowest": credits(int(table[0])),
            "highest": credits(int(table[-1])),
            "rule": "price of level j = round half even(0.01 x 1.0001^j) to 6 decimals; a buy is taken to the level at "
            "or below its price, a sell to the level at or above",
        },
        "limits": limits(settings, config),
        "channels": [
            *({"name": channel.name, "kind": channel.kind, "text": channel.text} for channel in CHANNELS.values()),
            {"name": AGENT, "kind": PRIVATE, "text": "one's own agents: outcomes, fills, balances; needs a key"},
        ],
        "series": list(SERIES),
        "actions": {
            name: {key: field.description or "" for key, field in model.model_fields.items() if key != "type"}
            for name, model in schemas.ACTION_MODELS.items()
        },
        "rejects": {str(int(code)): text for code, text in REJECT_TEXT.items()},
    }


def limits(settings: Settings, config: Config) -> dict[str, Any]:
    """Return every limit a client can meet. config: of the world, as it is now."""
    return {
        "requests_per_minute": settings.rate_limit,
        "requests_burst": burst(settings.rate_limit),
        "requests_per_minute_without_key": settings.address_rate_limit,
        "requests_burst_without_key": burst(settings.address_rate_limit),
        "registrations_per_minute_without_key": settings.registration_rate_limit,
        "actions_per_tick": config.actions_per_tick_max,
        "actions_per_batch": schemas.BATCH_MAX,
        "actions_waiting": settings.queue_actions_max,
        "batches_share_of_time": settings.intake_share,
        "receipts": settings.receipts_max,
        "open_orders_per_agent": config.open_orders_max,
        "open_orders": config.order_book_max,
        "agents": config.max_agents,
        "agents_per_owner": config.agents_per_owner_max,
        "idle_ticks": config.idle_ticks_max,
        "quantity": schemas.QUANTITY_MAX,
        "amount_credits": schemas.AMOUNT_MAX,
        "valid_ticks_default": VALIDITY_TICKS,
        "valid_ticks": VALIDITY_TICKS_MAX,
        "receipt_ticks_after_validity": RETENTION_TICKS,
        "body_bytes_action": registry.ACTION_BYTES,
        "body_bytes_batch": registry.BATCH_BYTES,
        "body_bytes_batch_msgpack": registry.BINARY_BYTES,
        "body_bytes_other": registry.OTHER_BYTES,
        "body_depth": DEPTH_MAX,
        "body_within_s": int(BODY_S),
        "head_bytes": HEAD_BYTES_MAX,
        "head_within_s": int(HEAD_S),
        "answer_read_within_s": int(UNREAD_S),
        "history_points": settings.history_limit,
        "cache_expiry_ms": settings.cache_expiry,
        "sockets": settings.sockets_max,
        **stream_limits(settings),
    }


def _market(m: int) -> dict[str, Any]:
    sector = SECTOR[m]
    return {
        "id": m,
        "name": NAMES[m],
        "kind": KIND[m],
        "inputs": list(INPUTS.get(NAMES[m], ())),
        "profit_to": NAMES[SHARE_FIRST + sector] if sector >= 0 else None,
    }
