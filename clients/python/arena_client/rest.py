"""The REST side of the client: register, act, read; every repetition safe.

A request that failed on the way is repeated under the same id, so that it has one effect however often it was sent:
actions carry a `client_action_id`, registrations an `Idempotency-Key`. What the world decided is a value (a `Receipt`
with its outcome, a refusal too); what the server would not even take is an exception of `errors`.
"""

from __future__ import annotations

import asyncio
import functools
import random
import secrets
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any, Final

import httpx2

from arena_client.backoff import Backoff, retry_after_s
from arena_client.columns import BatchOutcome, count_of, decode_answer, encode_columns
from arena_client.errors import OutcomeUnknown, ProblemError, RequestError, Unreachable, problem
from arena_client.receipt import Outcome, Receipt

__all__ = ["ArenaClient", "BatchOutcome", "Credentials", "Outcome", "Receipt"]

Credits = Decimal | str | int | float
Document = dict[str, Any]

#: Answers that say "not now": the same request may do better in a moment.
RETRIED: Final = frozenset({429, 502, 503, 504})
#: Of these the ones that leave open whether the request was done.
UNCLEAR: Final = frozenset({502, 504})
#: Failures before anything was sent.
NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
CACHE_MAX: Final = 256
BATCH_MAX: Final = 1000
MSGPACK: Final = "application/msgpack"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who an agent is. The key is shown by the server once, here; it does not appear in the repr."""

    agent_id: str
    api_key: str = field(repr=False)


class ArenaClient:
    """One agent's view of a server over REST.

        async with ArenaClient("http://127.0.0.1:8000") as arena:
            await arena.register()
            receipt = await arena.limit("food", "buy", 5, "1.25", wait=True)

    url: the server. credentials: of an agent registered earlier. attempts: how often a request is sent in all before
    it fails. backoff: between attempts. timeout_s: for each answer. retry_after_max_s: a server that asks for a longer
    wait than this gets no second attempt. draw: uniform numbers in [0, 1) for the back-off.
    tick: the newest tick any answer has named.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials | None = None,
        *,
        attempts: int = 5,
        backoff: Backoff | None = None,
        timeout_s: float = 10.0,
        retry_after_max_s: float = 30.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.credentials = credentials
        self.tick: int | None = None
        self._http = httpx2.AsyncClient(base_url=url, timeout=timeout_s, verify=_trust())
        self._attempts = attempts
        self._backoff = backoff or Backoff(base_s=0.1, cap_s=5.0)
        self._retry_after_max_s = retry_after_max_s
        self._draw = draw
        self._cache: OrderedDict[str, tuple[str, Document]] = OrderedDict()
        # random per client, counted within: unique without asking anybody, and readable in a log
        self._id_prefix = secrets.token_hex(6)
        self._id_count = 0
        self._markets: dict[str, int] | None = None

    async def __aenter__(self) -> ArenaClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # -- agents -----------------------------------------------------------------------------------------------

    async def register(self, idempotency_key: str | None = None) -> Credentials:
        """Register an agent, act as it from now on and return its credentials.

        With credentials of an earlier agent set, the new one belongs to the same owner.
        idempotency_key: the same one again gives the same agent with a new key, the old key is revoked then.
        Raises Conflict when the world or the owner is full.
        """
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        response = await self._send("POST", "/api/agents/register", body={}, headers=headers)
        document = self._document(response)
        self.credentials = Credentials(document["agent_id"], document["api_key"])
        return self.credentials

    async def agent(self) -> Document:
        """Return the agent's own state: cash, escrow, debt, wealth, holdings, orders. Money is decimal strings."""
        return await self._read(f"/api/agents/{self._agent_id()}")

    async def unregister(self) -> None:
        """Leave the world: orders are cancelled, debt and advance repaid as far as the cash goes."""
        response = await self._send("DELETE", f"/api/agents/{self._agent_id()}")
        if not response.is_success:
            raise _problem(response)

    # -- actions ----------------------------------------------------------------------------------------------

    async def limit(
        self,
        market: str,
        side: str,
        quantity: int,
        price: Credits,
        *,
        time_in_force: str = "gtc",
        expires_tick: int | None = None,
        **options: Any,
    ) -> Receipt:
        """Order at a limit price in credits a lot; quantity in lots. time_in_force: gtc, ioc, or gtt with expires_tick.

        All actions take the options of `act`.
        """
        action = {"type": "limit", "market": market, "side": side, "quantity": quantity, "price": _decimal(price)}
        action["time_in_force"] = time_in_force
        if expires_tick is not None:
            action["expires_tick"] = expires_tick
        return await self.act(action, **options)

    async def market(self, market: str, side: str, quantity: int, **options: Any) -> Receipt:
        """Order at whatever price the next auction gives."""
        return await self.act({"type": "market", "market": market, "side": side, "quantity": quantity}, **options)

    async def cancel(self, order_id: str, **options: Any) -> Receipt:
        """Take an open order back."""
        return await self.act({"type": "cancel", "order_id": order_id}, **options)

    async def replace(
        self, order_id: str, quantity: int, price: Credits, *, side: str | None = None, **options: Any
    ) -> Receipt:
        """Change an open order; `side` is that of the order and says which way its price is taken to the ladder."""
        action = {"type": "replace", "order_id": order_id, "quantity": quantity, "price": _decimal(price)}
        if side is not None:
            action["side"] = side
        return await self.act(action, **options)

    async def borrow(self, amount: Credits, **options: Any) -> Receipt:
        """Take a loan, in credits."""
        return await self.act({"type": "borrow", "amount": _decimal(amount)}, **options)

    async def repay(self, amount: Credits, **options: Any) -> Receipt:
        """Pay a loan back, in credits."""
        return await self.act({"type": "repay", "amount": _decimal(amount)}, **options)

    async def produce(self, market: str, quantity: int, **options: Any) -> Receipt:
        """Make lots of a good from hours and inputs held, by the market's public coefficients."""
        return await self.act({"type": "produce", "market": market, "quantity": quantity}, **options)

    async def consume(self, market: str, quantity: int, **options: Any) -> Receipt:
        """Use lots of a final good up."""
        return await self.act({"type": "consume", "market": market, "quantity": quantity}, **options)

    async def set_sentiment(
        self, sentiment: float, fear: float, greed: float, confidence: float, **options: Any
    ) -> Receipt:
        """State a mood, each number in [0, 1], .5 is neutral."""
        moods = {"sentiment": sentiment, "fear": fear, "greed": greed, "confidence": confidence}
        return await self.act({"type": "set_sentiment", **moods}, **options)

    async def cancel_all(self, market: str | None = None, **options: Any) -> Receipt:
        """Take all open orders back, or only those in one market."""
        named = {} if market is None else {"market": market}
        return await self.act({"type": "cancel_all", **named}, **options)

    async def cancel_after(self, ticks: int, **options: Any) -> Receipt:
        """Set the dead-man's switch: all open orders end so many ticks from now unless it is set again; 0 = never."""
        return await self.act({"type": "cancel_after", "ticks": ticks}, **options)

    async def act(
        self,
        action: Mapping[str, Any],
        *,
        wait: bool = False,
        client_action_id: str | None = None,
        valid_until_tick: int | None = None,
    ) -> Receipt:
        """Send any action and return its receipt, which is durable; a repetition has no second effect.

        wait: let the answer wait for the tick that decides, so that the receipt has its outcome; an outcome
        `rejected` is a value as well. valid_until_tick: the last tick the action may be applied in.
        Raises BadRequest and the like when the server does not take it, OutcomeUnknown when no answer came.
        """
        body = self._named(action, client_action_id, valid_until_tick)
        response = await self._send(
            "POST",
            f"/api/agents/{self._agent_id()}/action",
            body=body,
            params={"wait": "outcome"} if wait else None,
            action_id=body["client_action_id"],
        )
        return self._receipt(response)

    async def check(self, action: Mapping[str, Any]) -> Document:
        """Have an action checked against the published state; nothing changes. Returns valid, code, detail, tick."""
        path, body = f"/api/agents/{self._agent_id()}/action", self._named(action, None, None)
        return self._document(await self._send("POST", path, body=body, params={"validate": "true"}))

    async def batch(self, actions: Iterable[Mapping[str, Any]], *, wait: bool = False) -> list[Receipt | ProblemError]:
        """Send up to 1,000 actions in one request and return per action, in order, its receipt or what was wrong.

        An action without `agent_id` is this agent's; one without `client_action_id` gets one. wait: as in `act`.
        """
        bodies = [{"agent_id": self._agent_id(), **self._named(action, None, None)} for action in actions]
        if not 1 <= len(bodies) <= BATCH_MAX:
            raise ValueError(f"a batch holds 1 to {BATCH_MAX} actions, got {len(bodies)}")
        params = {"wait": "outcome"} if wait else None
        document = self._document(await self._send("POST", "/api/actions", body={"actions": bodies}, params=params))
        return [_batch_result(result) for result in document["results"]]

    async def batch_columns(self, columns: Mapping[str, Any], *, wait: bool = False) -> BatchOutcome:
        """Send up to 1,000 actions as typed arrays: the fastest way to send many.

            outcome = await arena.batch_columns({"type": "limit", "market": ["food", "oil"], "side": "buy",
                                                 "quantity": [5, 2], "price": ["1.25", "9"]})

        columns: by the names of an action's fields, each a value for every action or one for all; lists, or arrays of
        numpy, which is not needed. Values that an action does not have are the ones docs/protocol.md names. Without
        agent_id they are this agent's, without client_action_id (texts) or client_action_number (whole numbers) they
        get names. wait: as in `act`; what became of the actions is then in `outcomes`.
        Raises ValueError for columns that do not fit together, BadRequest and the like when the server takes none,
        OutcomeUnknown when no answer came: send the same columns again, with the same names.
        """
        given = {"agent_id": self._agent_id(), **columns}
        if "client_action_id" not in given and "client_action_number" not in given:
            given["client_action_id"] = [self.new_action_id() for _ in range(count_of(columns))]
        if (names := given.get("market")) is not None:
            given["market"] = await self._market_numbers(names)
        headers = {"Content-Type": MSGPACK}
        params = {"wait": "outcome"} if wait else None
        response = await self._send(
            "POST", "/api/actions", content=encode_columns(given), params=params, headers=headers
        )
        if not response.is_success:
            raise _problem(response)
        return decode_answer(response.content)

    async def receipt(self, client_action_id: str) -> Receipt:
        """Return the receipt of an action as it stands now. Raises NotFound when there is none (any more)."""
        path = f"/api/agents/{self._agent_id()}/actions/{client_action_id}"
        return Receipt.of(await self._read(path))

    async def outcome(self, client_action_id: str, *, timeout_s: float = 10.0) -> Receipt:
        """Wait for the tick that decides an action and return its receipt with the outcome.

        Raises TimeoutError after timeout_s seconds.
        """
        polls = Backoff(base_s=0.05, cap_s=0.5)
        async with asyncio.timeout(timeout_s):
            for count in range(1, 1_000_000):
                receipt = await self.receipt(client_action_id)
                if receipt.outcome is not None:
                    return receipt
                await asyncio.sleep(polls.delay_s(count, 0.5 + self._draw() / 2))
        raise TimeoutError(f"{client_action_id} was not decided in {timeout_s} s")

    # -- reads ------------------------------------------------------------------------------------------------

    async def indicators(self) -> Document:
        """Return the macroeconomic indicators: tick, time, epoch, values, units."""
        return await self._read("/api/indicators")

    async def markets(self) -> list[Document]:
        """Return all markets, in the order of their ids: id, name and the values of `market_tick`."""
        return [row async for row in self._pages("/api/markets", "markets", {})]

    async def market_detail(self, market: str) -> Document:
        """Return one market: kind, inputs, values, book, and for a produced good its production coefficients."""
        return await self._read(f"/api/markets/{market}")

    async def psychology(self) -> Document:
        """Return the moods of the residents."""
        return await self._read("/api/psychology")

    async def monetary(self) -> Document:
        """Return inflation and its terms, money, the treasury, the banks."""
        return await self._read("/api/monetary")

    async def scarcity(self) -> Document:
        """Return the seven resources."""
        return await self._read("/api/scarcity")

    async def info(self) -> Document:
        """Return what the world is made of and what the server allows."""
        return await self._read("/api/info")

    async def time(self) -> Document:
        """Return the clock of the world."""
        return await self._read("/api/time")

    async def status(self) -> Document:
        """Return how the server is doing."""
        return await self._read("/api/status")

    async def history(
        self,
        series: str,
        *,
        from_tick: int | None = None,
        to_tick: int | None = None,
        step: int | None = None,
        candles: bool = False,
    ) -> list[list[Any]]:
        """Return the rows of a series, oldest first, all pages: [tick, time, value], or candles of `step` ticks.

        series: such as "cpi" or "oil.price"; candles: of a market. A candle is [time, open, high, low, close, volume].
        time: Unix ms. Raises NotFound for an unknown series.
        """
        wanted = {"from": from_tick, "to": to_tick, "step": step, "format": "candles" if candles else None}
        params = {key: value for key, value in wanted.items() if value is not None}
        return [row async for row in self._pages(f"/api/history/{series}", "rows", params)]

    async def events(self, kind: str | None = None, *, newest_first: bool = False) -> AsyncIterator[Document]:
        """Go through the event log, page by page. kind: only events of this name or channel."""
        params: dict[str, Any] = {"order": "desc"} if newest_first else {}
        if kind is not None:
            params["type"] = kind
        async for event in self._pages("/api/events", "events", params):
            yield event

    # -- below: requests, repetitions, answers ----------------------------------------------------------------

    def new_action_id(self) -> str:
        """Return an id that no other action of any client has."""
        self._id_count += 1
        return f"{self._id_prefix}-{self._id_count}"

    def _named(self, action: Mapping[str, Any], action_id: str | None, valid_until: int | None) -> Document:
        body = dict(action)
        if action_id is not None or "client_action_id" not in body:
            body["client_action_id"] = action_id or self.new_action_id()
        if valid_until is not None:
            body["valid_until_tick"] = valid_until
        return body

    async def _market_numbers(self, names: Any) -> Any:
        """Return markets by number where they are named."""
        one = isinstance(names, str)
        if not one and not any(isinstance(name, str) for name in names):
            return names
        if self._markets is None:
            self._markets = {market["name"]: market["id"] for market in (await self.info())["markets"]}
        try:
            numbers = [self._markets[name] if isinstance(name, str) else name for name in ([names] if one else names)]
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is no market; there are {', '.join(self._markets)}") from None
        return numbers[0] if one else numbers

    def _agent_id(self) -> str:
        if self.credentials is None:
            raise RequestError("no agent yet: register() first, or give credentials")
        return self.credentials.agent_id

    async def _pages(self, path: str, key: str, params: Mapping[str, Any]) -> AsyncIterator[Any]:
        cursor: str | None = None
        while True:
            page = await self._read(path, {**params, "cursor": cursor} if cursor else params)
            for item in page[key]:
                yield item
            cursor = page.get("next_cursor")
            if cursor is None or not page[key]:
                return

    async def _read(self, path: str, params: Mapping[str, Any] | None = None) -> Document:
        """GET a document; one that has not changed since the last time does not travel again.

        The result is shared with the cache: read it, do not change it.
        """
        key = str(httpx2.URL(path, params=dict(params or {})))
        cached = self._cache.get(key)
        headers = {"If-None-Match": cached[0]} if cached else None
        response = await self._send("GET", path, params=params, headers=headers)
        if response.status_code == 304 and cached:
            self._cache.move_to_end(key)
            return cached[1]
        document = self._document(response)
        etag = response.headers.get("ETag")
        if etag is not None:
            self._cache[key] = (etag, document)
            self._cache.move_to_end(key)
            if len(self._cache) > CACHE_MAX:
                self._cache.popitem(last=False)
        return document

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        action_id: str | None = None,
    ) -> httpx2.Response:
        """Send a request until it is answered for good, at most `attempts` times."""
        head = dict(headers or {})
        if self.credentials is not None:
            head["Authorization"] = f"Bearer {self.credentials.api_key}"
        is_unclear = False
        for attempt in range(1, self._attempts + 1):
            failure: httpx2.Response | httpx2.TransportError
            try:
                failure = await self._http.request(
                    method, path, json=body, content=content, params=params, headers=head
                )
            except httpx2.TransportError as error:
                is_unclear |= not isinstance(error, NOT_SENT)
                failure, asked_s = error, 0.0
            else:
                self._note_tick(failure)
                if failure.status_code not in RETRIED:
                    return failure
                is_unclear |= failure.status_code in UNCLEAR
                asked_s = retry_after_s(failure.headers.get("Retry-After"))
            if attempt == self._attempts or asked_s > self._retry_after_max_s:
                break
            await asyncio.sleep(asked_s + self._backoff.delay_s(attempt, self._draw()))
        last = _problem(failure) if isinstance(failure, httpx2.Response) else failure
        # one unclear attempt is enough: a later "surely not applied" speaks only of the later attempt
        if is_unclear and method != "GET":
            raise OutcomeUnknown(f"{method} {path}: no clear answer, the last was {last!r}", action_id) from last
        if isinstance(last, ProblemError):
            raise last
        raise Unreachable(f"{method} {path}: {type(last).__name__}: {last}") from last

    def _note_tick(self, response: httpx2.Response) -> None:
        tick = response.headers.get("Arena-Tick", "")
        if tick.isascii() and tick.isdigit():
            self.tick = max(self.tick or 0, int(tick))

    def _document(self, response: httpx2.Response) -> Document:
        if not response.is_success:
            raise _problem(response)
        document = _json(response)
        if document is None:
            raise RequestError(f"{response.request.url.path} did not answer with a JSON object")
        return document

    def _receipt(self, response: httpx2.Response) -> Receipt:
        if response.status_code == 422:
            receipt = (_json(response) or {}).get("receipt")
            if receipt is not None:
                return Receipt.of(receipt)
        return Receipt.of(self._document(response))


@functools.cache
def _trust() -> ssl.SSLContext:
    """Return the certificates to trust, read once: for each client anew they took 50 ms of it."""
    return httpx2.create_ssl_context()


def _batch_result(result: Mapping[str, Any]) -> Receipt | ProblemError:
    error: Mapping[str, Any] = result.get("error") or {}
    # an action that the world refused was accepted all the same and has its receipt with the refusal
    receipt = result.get("receipt") or error.get("receipt")
    return problem(result["status"], error) if receipt is None else Receipt.of(receipt)


def _problem(response: httpx2.Response) -> ProblemError:
    document = _json(response) or {"title": response.reason_phrase, "detail": response.text[:200]}
    return problem(response.status_code, document, retry_after_s(response.headers.get("Retry-After")) or None)


def _json(response: httpx2.Response) -> Document | None:
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _decimal(amount: Credits) -> str:
    """Write an amount without an exponent; a float with the six decimals that money has."""
    if isinstance(amount, float):
        return f"{amount:.6f}"
    return amount if isinstance(amount, str) else format(Decimal(amount), "f")
