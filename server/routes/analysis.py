"""Analyses: GET /api/markets/{id}/curves, /api/markets/{id}/impact, /api/analysis/..."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import orjson
from starlette.responses import Response

from engine.analysis.anomalies import Anomaly
from server.live.analytics import Analytics, Answer
from server.live.anomaly_log import AnomalyLog
from server.live.view import Published
from server.routes import Call, Handler, shared_response
from server.routes.economy import market_id


def handlers(published: Published, analytics: Analytics, anomalies: AnomalyLog) -> dict[str, Handler]:
    """Return the handlers of analyses."""

    def shown(make: Callable[[Call], Awaitable[Answer]]) -> Handler:
        async def answer(call: Call) -> Response:
            made = await make(call)
            return shared_response(call, lambda: made.body, f"{published.view.epoch}-{made.version}")

        return answer

    async def flags(call: Call) -> Response:
        query, view = call.query, published.view
        is_open = None if query.state is None else query.state == "open"
        found, following = anomalies.page(
            None if query.cursor is None else int(query.cursor),
            query.limit,
            descending=query.order == "desc",
            is_open=is_open,
            kind=query.kind,
        )
        document: dict[str, Any] = {
            "tick": view.tick,
            "epoch": view.epoch,
            "open": anomalies.open_count,
            "oldest": anomalies.oldest,
            "newest": anomalies.newest,
            "anomalies": [_anomaly(item) for item in found],
            "next_cursor": None if following is None else str(following),
        }
        version = f"{view.epoch}-{view.tick}-anomalies-{call.request.url.query}"
        return shared_response(call, lambda: orjson.dumps(document), version)

    return {
        "curves": shown(lambda call: analytics.curves(market_id(call.path["id"]), call.query.points)),
        "impact": shown(lambda call: analytics.impact(market_id(call.path["id"]))),
        "efficiency": shown(lambda call: analytics.efficiency()),
        "arbitrage": shown(lambda call: analytics.arbitrage()),
        "forecasts": shown(lambda call: analytics.forecasts()),
        "anomalies": flags,
    }


def _anomaly(item: Anomaly) -> dict[str, Any]:
    return {"id" if name == "number" else name: value for name, value in asdict(item).items()}
