"""The past: GET /api/history/{indicator} (ticks, days, months; JSON, CSV, Parquet, Arrow) and GET /api/events."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import orjson
from starlette.responses import Response

from engine.events import Event
from engine.markets import ID, NAMES
from server.errors import Code, NotFound, Problem
from server.live import columnar
from server.live.admission import invalid
from server.live.cache import AnswerCache
from server.live.columnar import ARROW, PARQUET
from server.live.history import AGGREGATES, OF_EXTREMES, SERIES, EventLog, History, Page, Series
from server.live.tiers import has_extremes
from server.live.view import Published
from server.registry import CSV
from server.routes import JSON, Call, Handler, shared_response

_MEDIA = {"json": JSON, "candles": JSON, "csv": CSV, "parquet": PARQUET, "arrow": ARROW}


def handlers(published: Published, history: History, events: EventLog, cache: AnswerCache) -> dict[str, Handler]:
    """Return the handlers of the past."""
    is_columnar = columnar.is_available()

    async def series(call: Call) -> Response:
        query, name = call.query, call.path["indicator"]
        is_candles, media = _format(call, is_columnar)
        chosen = _market_price(name) if is_candles else _series(name)
        _check_aggregate(chosen, query.aggregate, is_candles)
        first, last, step = query.from_tick, query.to_tick, query.step
        after = None if query.cursor is None else int(query.cursor)
        _check_order(max(first or 0, after or 0), last)
        view = published.view

        def build() -> bytes:
            if is_candles:
                page = history.candles(chosen.place[1], first, last, step, query.limit, after=after)
            else:
                page = history.page(chosen, first, last, step, query.limit, aggregate=query.aggregate, after=after)
            return _rendered(page, media, _about(page, chosen, query.aggregate, view.epoch))

        # a range that has passed can only lose its beginning, and stays as it was shown for as long as we said
        longest = history.step_of(first, last, step, candles=is_candles)
        is_past = first is not None and last is not None and last + longest <= view.tick
        key = f"{chosen.name}-{is_candles}-{first}-{last}-{step}-{query.limit}-{after}-{query.aggregate}"
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


def _format(call: Call, is_columnar: bool) -> tuple[bool, str]:
    """Return whether candles are asked for, and the content type of the answer. Raises Problem 406."""
    asked, accept = call.query.format, call.request.headers.get("accept", "*/*")
    if asked is not None:
        media = _MEDIA[asked.rpartition(".")[2]]
        if media in (PARQUET, ARROW) and not is_columnar:
            raise _no_columns()
        return asked.startswith("candles"), media
    if is_columnar:
        return False, preferred(accept, (JSON, CSV, PARQUET, ARROW))
    try:
        return False, preferred(accept, (JSON, CSV))
    except Problem:
        raise (_no_columns() if PARQUET in accept or ARROW in accept else _not_offered((JSON, CSV))) from None


def _no_columns() -> Problem:
    detail = f"there is {JSON} and {CSV}; Parquet and Arrow: the server {columnar.MISSING}"
    return Problem(Code.NOT_ACCEPTABLE, detail, status=406)


def _not_offered(offered: tuple[str, ...]) -> Problem:
    return Problem(Code.NOT_ACCEPTABLE, f"there is {' and '.join(offered)}", status=406)


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
        raise _not_offered(offered)
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


def _check_aggregate(series: Series, aggregate: str, is_candles: bool) -> None:
    if is_candles and aggregate != "first":
        raise invalid([{"field": "aggregate", "problem": "given with candles", "allowed": "points only"}])
    if aggregate in OF_EXTREMES and not has_extremes(series):
        allowed = ", ".join(f"'{name}'" for name in AGGREGATES if name not in OF_EXTREMES)
        problem = f"is not kept of {series.name}"
        raise invalid([{"field": "aggregate", "problem": problem, "allowed": f"{allowed} for this series"}])


def _check_order(first: int, last: int | None) -> None:
    if last is not None and first > last:
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


def _about(page: Page, series: Series, aggregate: str, epoch: str) -> dict[str, Any]:
    return {
        "series": series.name,
        "unit": series.field.unit,
        "epoch": epoch,
        "step": page.step,
        "resolution": page.resolution,
        "aggregate": aggregate,
    }


def _rendered(page: Page, media: str, about: dict[str, Any]) -> bytes:
    if media == CSV:
        return _csv(page)
    if media in (PARQUET, ARROW):
        return columnar.page_bytes(page, media, {name: str(value) for name, value in about.items()})
    return orjson.dumps(
        about
        | {
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
