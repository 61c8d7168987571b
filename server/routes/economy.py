"""Public state: GET /api/indicators, /api/markets, /api/psychology, /api/monetary, /api/scarcity."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from engine.markets import ID, MARKETS, NAMES
from server.errors import Code, NotFound
from server.live.analytics import Analytics
from server.live.view import Published, View
from server.routes import Call, Handler, shared_response


def handlers(published: Published, analytics: Analytics) -> dict[str, Handler]:
    """Return the handlers of the public state."""

    async def indicators(call: Call) -> Response:
        if call.query.forecast == "false":
            return await plain_indicators(call)
        forecasts, view = await analytics.forecasts(), published.view
        version = f"{view.epoch}-{view.tick}-indicators-{forecasts.version}"
        return shared_response(call, lambda: _with_forecast(view, forecasts.body), version)

    def of(render: Callable[[View], bytes]) -> Handler:
        async def answer(call: Call) -> Response:
            view = published.view
            return shared_response(call, lambda: render(view), f"{view.epoch}-{view.tick}-{call.operation.name}")

        return answer

    async def markets(call: Call) -> Response:
        view, first, limit = published.view, int(call.query.cursor or 0), call.query.limit
        return shared_response(call, lambda: view.markets(first, limit), f"{view.epoch}-{view.tick}-{first}-{limit}")

    async def market(call: Call) -> Response:
        view, m = published.view, market_id(call.path["id"])
        return shared_response(call, lambda: view.market(m), f"{view.epoch}-{view.tick}-m{m}")

    plain_indicators = of(View.indicators)
    return {
        "indicators": indicators,
        "markets": markets,
        "market": market,
        "psychology": of(View.psychology),
        "monetary": of(View.monetary),
        "scarcity": of(View.scarcity),
    }


def _with_forecast(view: View, forecasts: bytes) -> bytes:
    """Return the indicators with the section of forecasts: spliced in, for both are finished."""
    plain = view.indicators()
    return plain[:-1] + b',"forecast":' + forecasts + b"}"


def market_id(text: str) -> int:
    """Return the market of a name or number. Raises NotFound, naming all."""
    if text in ID:
        return ID[text]
    if text.isascii() and text.isdecimal() and len(text) <= 2 and int(text) < MARKETS:
        return int(text)
    raise NotFound(Code.UNKNOWN_MARKET, f"no market {text[:40]!r}; there are 0 to {MARKETS - 1} or {', '.join(NAMES)}")
