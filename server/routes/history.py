"""The past: GET /api/history/{indicator} and GET /api/events."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import orjson
from starlette.responses import Response

from engine.events import Event
from engine.markets import ID, NAMES
from server.errors import Code, NotFound, Problem
from server.live.admission import invalid
from server.live.cache import AnswerCache
from server.live.history import SERIES, EventLog, History, Page, Series
from server.live.view import Published
from server.registry import CSV
from server.routes import JSON, Call, Handler, shared_response

CANDLE_TICKS = 24
"""Ticks a candle unless step says otherwise: a simulated day."""


def handlers(published: Published, history: History, events: EventLog, cache: AnswerCache) -> dict[str, Handler]:
    """Return the handlers of the past."""

    async def series(call: Call) -> Response:
        query, name = call.query, call.path["indicator"]
        is_candles, media = _format(call)
        chosen = _market_price(name) if is_candles else _series(name)
        step = query.step or (CANDLE_TICKS if is_candles else 1)
        first = _first(query.from_tick, query.cursor)
        last = query.to_tick
        _check_order(first, last)
        view = published.view

        def build() -> bytes:
            if is_candles:
                page = history.candles(chosen.place[1], first, last, step, query.limit)
            else:
                page = history.page(chosen, first, last, step, query.limit)
            return _csv(page) if media == CSV else _json(page, chosen, step, view.epoch)

        # a range that has passed can only lose its beginning, and stays as it was shown for as long as we said
        is_past = first is not None and last is not None and last + step <= view.tick
        key = f"{chosen.name}-{is_candles}-{first}-{last}-{step}-{query.limit}"
        version = f"{view.epoch}-{key}" if is_past else f"{view.epoch}-{view.tick}-{key}"
        max_age = int(cache.expiry_s) if is_past else 0
        return shared_response(call, lambda: cache.get((version, media), build), version, media, max_age)

    async def event_log(call: Call) -> Response:
        query, view = call.query, published.view
        after = None if query.cursor is None else int(query.cursor)

        def build() -> bytes:
            found, following = events.page(query.type, after, query.limit, descending=query.order == "desc")
            document = {
                "tick": view.tick,
                "epoch": view.epoch,
                "events": [_event(number, event) for number, event in found],
                "next_cursor": None if following is None else str(following),
            }
            return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)

        version = f"{view.epoch}-{view.tick}-{query.type}-{after}-{query.limit}-{query.order}"
        return shared_response(call, build, version)

    return {"history": series, "events": event_log}


def _format(call: Call) -> tuple[bool, str]:
    """Return whether candles are asked for, and the content type of the answer."""
    asked = call.query.format
    if asked is not None:
        return asked.startswith("candles"), CSV if asked.endswith("csv") else JSON
    return False, preferred(call.request.headers.get("accept", "*/*"), (JSON, CSV))


def preferred(accept: str, offered: tuple[str, ...]) -> str:
    """Return the offered content type an Accept header likes best; the first one when it does not care.

    Raises Problem 406 when it accepts none of them.
    """
    weights = {"*/*": 0.0}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weights[media] = float(weight) if weight.replace(".", "", 1).isdecimal() else 0.0
    # the most specific one counts: q=0 rules a type out that */* would take
    liking = [
        next(weights[name] for name in (media, media.split("/")[0] + "/*", "*/*") if name in weights)
        for media in offered
    ]
    if not any(liking):
        raise Problem(Code.NOT_ACCEPTABLE, f"there is {' and '.join(offered)}", status=406)
    return offered[liking.index(max(liking))]


def _series(name: str) -> Series:
    series = SERIES.get(name)
    if series is None:
        close = get_close_matches(name[:80], SERIES, 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise NotFound(Code.UNKNOWN_SERIES, f"no series {name[:80]!r}{hint} /api/info lists them all")
    return series


def _market_price(name: str) -> Series:
    market = name.removesuffix(".price")
    if market not in ID:
        raise NotFound(
            Code.UNKNOWN_SERIES, f"candles are of markets, {name[:80]!r} is none; there are {', '.join(NAMES)}"
        )
    return SERIES[f"{market}.price"]


def _first(from_tick: int | None, cursor: str | None) -> int | None:
    return from_tick if cursor is None else max(int(cursor), from_tick or 0)


def _check_order(first: int | None, last: int | None) -> None:
    if first is not None and last is not None and first > last:
        raise invalid([{"field": "from", "problem": f"{first} is after to", "allowed": f"at most to ({last})"}])


def _event(number: int, event: Event) -> dict[str, Any]:
    return {
        "id": number,
        "channel": event.channel,
        "number": event.number,
        "tick": event.tick,
        "name": event.name,
        "data": event.data,
    }


def _json(page: Page, series: Series, step: int, epoch: str) -> bytes:
    return orjson.dumps(
        {
            "series": series.name,
            "unit": series.field.unit,
            "epoch": epoch,
            "step": step,
            "columns": page.columns,
            "rows": page.rows,
            "ticks": page.ticks,
            "next_cursor": None if page.next_tick is None else str(page.next_tick),
        }
    )


def _csv(page: Page) -> bytes:
    lines = [",".join(page.columns)]
    lines += [",".join("" if value is None else repr(value) for value in row) for row in page.rows]
    return ("\r\n".join(lines) + "\r\n").encode()
