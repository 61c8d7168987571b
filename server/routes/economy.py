"""Public state, now or at a tick of the hot history: indicators, markets, psychology, monetary, scarcity."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from engine.markets import ID, MARKETS, NAMES
from server.bodies import JSON
from server.errors import Code, NotFound, Problem
from server.live.admission import invalid
from server.live.analytics import Analytics
from server.live.cache import AnswerCache
from server.live.history import History
from server.live.view import Published, StateView, View
from server.routes import FOREVER_S, Call, Handler, shared_response


def handlers(published: Published, history: History, analytics: Analytics, cache: AnswerCache) -> dict[str, Handler]:
    """Return the handlers of the public state."""

    def answered(call: Call, name: str, render: Callable[[StateView], bytes]) -> Response:
        """Answer with the published view, or with that of an earlier tick, which stays as it is for ever."""
        view, tick = published.view, call.query.tick
        version = f"{view.epoch}-{view.tick if tick is None else tick}-{name}"
        if tick is None:
            return shared_response(call, lambda: render(view), version)
        past = _past(tick, history, view.epoch, with_day=call.operation.name == "markets")
        return shared_response(call, lambda: cache.get((version, JSON), lambda: render(past)), version, JSON, FOREVER_S)

    async def indicators(call: Call) -> Response:
        if call.query.forecast == "false":
            return await plain_indicators(call)
        if call.query.tick is not None:
            raise invalid([{"field": "forecast", "problem": "given with tick", "allowed": "forecasts of now only"}])
        forecasts, view = await analytics.forecasts(), published.view
        version = f"{view.epoch}-{view.tick}-indicators-{forecasts.version}"
        return shared_response(call, lambda: _with_forecast(view, forecasts.body), version)

    def of(render: Callable[[StateView], bytes]) -> Handler:
        async def answer(call: Call) -> Response:
            return answered(call, call.operation.name, render)

        return answer

    async def markets(call: Call) -> Response:
        first, limit = int(call.query.cursor or 0), call.query.limit
        return answered(call, f"{first}-{limit}", lambda view: view.markets(first, limit))

    async def market(call: Call) -> Response:
        view, m = published.view, market_id(call.path["id"])
        return shared_response(call, lambda: view.market(m), f"{view.epoch}-{view.tick}-m{m}")

    plain_indicators = of(StateView.indicators)
    return {
        "indicators": indicators,
        "markets": markets,
        "market": market,
        "psychology": of(StateView.psychology),
        "monetary": of(StateView.monetary),
        "scarcity": of(StateView.scarcity),
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


def _past(tick: int, history: History, epoch: str, *, with_day: bool) -> StateView:
    """Return the view of a tick. Raises Problem 404 for one that is to come, 410 for one that is kept no longer.

    with_day: whether the day of ticks before it must be there as well.
    """
    found = history.at(tick)
    if found is not None and (not with_day or history.has_day(tick)):
        states, unix_ms = found
        return StateView(tick, epoch, unix_ms * 1_000_000, lambda: states, lambda: history.day(tick))
    kept = f"the ticks {history.oldest} to {history.newest} are there"
    if tick > history.newest:
        raise Problem(Code.UNKNOWN_TICK, f"tick {tick} is to come; {kept}", status=404, temporary=True)
    detail = f"the state of tick {tick} is kept no longer; {kept}, /api/history has values of older ones"
    raise Problem(Code.UNKNOWN_TICK, detail, status=410)
