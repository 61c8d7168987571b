"""Public state: GET /api/indicators, /api/markets, /api/psychology, /api/monetary, /api/scarcity."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from engine.markets import ID, MARKETS, NAMES
from server.errors import Code, NotFound
from server.live.view import Published, View
from server.routes import Call, Handler, shared_response


def handlers(published: Published) -> dict[str, Handler]:
    """Return the handlers of the public state."""

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

    return {
        "indicators": of(View.indicators),
        "markets": markets,
        "market": market,
        "psychology": of(View.psychology),
        "monetary": of(View.monetary),
        "scarcity": of(View.scarcity),
    }


def market_id(text: str) -> int:
    """Return the market of a name or number. Raises NotFound, naming all."""
    if text in ID:
        return ID[text]
    if text.isascii() and text.isdecimal() and len(text) <= 2 and int(text) < MARKETS:
        return int(text)
    raise NotFound(Code.UNKNOWN_MARKET, f"no market {text[:40]!r}; there are 0 to {MARKETS - 1} or {', '.join(NAMES)}")
