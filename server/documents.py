"""The shape of every answer as a pydantic model, for the documents: names, units, meaning. What comes in: schemas.

Answers are built as plain maps where they are made; tests hold each of them to its model here.
Source: DESIGN section 3.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from engine.public import INDICATOR_FIELDS, MONETARY_FIELDS
from server.live.frames import CHANNELS, INFLATION, MARKET_TICK, PSYCHOLOGY, SCARCITY


class Document(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


# --- mistakes ----------------------------------------------------------------------------------------------------
class Mistake(Document):
    """One mistake in a request."""

    field: str
    problem: str
    allowed: str


class Problem(Document):
    """application/problem+json, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[int, Field(description="stable number: 1xx shape, 2xx funds, 3xx market, 4xx limits, 5xx ours")]
    temporary: Annotated[bool, Field(description="true when the same request may succeed later")]
    errors: list[Mistake]
    instance: str | None = None
    request_id: str | None = None
    tick: int | None = None


# --- actions -----------------------------------------------------------------------------------------------------
class Outcome(Document):
    """What the world did with an action, so far: that of a resting order goes on changing."""

    status: Literal["filled", "resting", "partial", "rejected", "cancelled", "expired", "done"]
    code: Annotated[int, Field(description="0, or why it was rejected; /api/info lists the codes")]
    detail: Annotated[str | None, Field(description="the code in words")] = None
    needed: Annotated[int | str | None, Field(description="when rejected: lots, ticks, or credits as text")] = None
    available: Annotated[int | str | None, Field(description="when rejected: what there was of it")] = None
    order_id: Annotated[str | None, Field(description="the order placed, cancelled or replaced")]
    filled: Annotated[int, Field(description="lots traded, made or consumed")]
    open: Annotated[int, Field(description="lots left resting")]
    price: Annotated[str | None, Field(description="of the last fill, credits a lot")]
    value: Annotated[str, Field(description="credits paid (negative) or received")]


class Receipt(Document):
    """An accepted action."""

    client_action_id: str
    status: Literal["accepted"]
    seq: Annotated[int, Field(description="place in the journal; the id of the order it places")]
    tick: Annotated[int | None, Field(description="tick it was decided in; null before")]
    duplicate: Annotated[bool, Field(description="true when it had been accepted before")]
    outcome: Outcome | None


class Refusal(Problem):
    """A problem with the receipt of the action the world refused."""

    receipt: Receipt


class Verdict(Document):
    """What ?validate=true answers."""

    client_action_id: str
    valid: Annotated[bool, Field(description="whether the published state would let it pass")]
    code: int
    detail: str
    tick: Annotated[int, Field(description="the state it was checked against")]


class BatchResult(Document):
    """What became of one item of a batch: a receipt, a verdict or a problem."""

    index: int
    status: Annotated[int, Field(description="the HTTP status the action would have had alone")]
    receipt: Receipt | None = None
    verdict: Verdict | None = None
    error: Problem | Refusal | None = None


class BatchResults(Document):
    """The results in the order of the actions."""

    tick: int
    accepted: int
    refused: int
    results: list[BatchResult]


# --- agents ------------------------------------------------------------------------------------------------------
class Registered(Document):
    """A new agent. The key is shown here and nowhere again."""

    agent_id: str
    api_key: str
    seq: int
    tick: Annotated[int, Field(description="last published tick; the agent is there in the next one")]


class Holding(Document):
    """Lots of one market."""

    quantity: int
    reserved: Annotated[int, Field(description="lots promised by open sells, part of quantity")]


class OpenOrder(Document):
    """A standing order."""

    order_id: str
    market: str
    side: Literal["buy", "sell"]
    price: str
    quantity: Annotated[int, Field(description="lots left")]
    since_tick: int
    expires_tick: int | None


class Mood(Document):
    """What set_sentiment said last."""

    sentiment: float
    fear: float
    greed: float
    confidence: float


class Agent(Document):
    """One's own agent. Money in credits, decimal strings with 6 decimals."""

    agent_id: str
    status: Literal["registering", "active", "gone"]
    tick: int
    cash: str
    escrow: Annotated[str, Field(description="held for open buys")]
    debt: str
    advance: Annotated[str, Field(description="the interest-free endowment; wealth is net of it")]
    wealth: Annotated[str, Field(description="cash + escrow + holdings at reference prices - debt - advance")]
    holdings: dict[str, Holding]
    orders: list[OpenOrder]
    mood: Mood | None
    last_action_tick: int | None


# --- the economy -------------------------------------------------------------------------------------------------
def _values(model: str, text: str, channel: str, only: Collection[str] | None = None, **more: Any) -> type[BaseModel]:
    """Make a model of a channel's values, the numbers a mirror of the channel shows."""
    columns: dict[str, Any] = {
        field.name: (
            int if field.scale == 1 else float,
            Field(description=f"{field.text} [{field.unit}]".strip()),
        )
        for field in CHANNELS[channel].fields
        if only is None or field.name in only
    }
    return create_model(model, __base__=Document, __doc__=text, **more, **columns)


class Stamped(Document):
    """What every public state document carries."""

    tick: int
    time: Annotated[str, Field(description="when the tick began, ISO 8601, UTC")]
    epoch: Annotated[str, Field(description="name of the world's timeline")]
    units: Annotated[dict[str, str], Field(description="unit of each value")]


def _stamped(model: str, text: str, **columns: Any) -> type[BaseModel]:
    return create_model(model, __base__=Stamped, __doc__=text, **columns)


class BookTop(Document):
    """Top of the book after the last auction: unfilled orders."""

    best_bid: Annotated[float | None, Field(description="credits")]
    best_ask: Annotated[float | None, Field(description="credits")]
    spread_bp: int | None
    bid_depth: Annotated[int, Field(description="lots within 100 bp of the best bid")]
    ask_depth: Annotated[int, Field(description="lots within 100 bp of the best ask")]


class Production(Document):
    """What making one lot of a good takes; the world rounds the total of an action up."""

    hours_per_lot: Annotated[float, Field(description="hours of labour")]
    first_input: Annotated[str, Field(description="market of the first input")]
    first_per_lot: float
    second_input: Annotated[str, Field(description="market of the second input")]
    second_per_lot: float


_INDICATORS = {field.name for field in INDICATOR_FIELDS}
_MONETARY = {field.name for field in MONETARY_FIELDS}
_KEY: dict[str, Any] = {"id": (int, ...), "name": (str, ...)}
_MARKET = _values("MarketValues", "One market.", MARKET_TICK)
_ROW = _values("MarketRow", "One market of the list.", MARKET_TICK, **_KEY)
_RESOURCE = _values("Resource", "One resource.", SCARCITY, **_KEY)

Indicators = _stamped(
    "Indicators",
    "All indicators.",
    values=(_values("IndicatorValues", "The whole economy.", INFLATION, _INDICATORS), ...),
)
Psychology = _stamped(
    "Psychology",
    "Global psychology.",
    values=(_values("PsychologyValues", "Moods of the residents.", PSYCHOLOGY), ...),
)
Monetary = _stamped(
    "Monetary",
    "Inflation, money and the central bank.",
    values=(_values("MonetaryValues", "Inflation and its terms, money, policy.", INFLATION, _MONETARY), ...),
)
Scarcity = _stamped("Scarcity", "The seven resources.", resources=(list[_RESOURCE], ...))  # type: ignore[valid-type]  # a model made above
Markets = _stamped("Markets", "A page of markets.", markets=(list[_ROW], ...), next_cursor=(str | None, ...))  # type: ignore[valid-type]  # as above
Market = _stamped(
    "Market",
    "One market.",
    **_KEY,
    kind=(str, ...),
    inputs=(list[str], ...),
    production=(Production | None, ...),
    values=(_MARKET, ...),
    book=(BookTop, ...),
)


# --- the past ----------------------------------------------------------------------------------------------------
class History(Document):
    """A page of a series; points and candles are rows in the order of columns."""

    series: str
    unit: str
    epoch: str
    step: Annotated[int, Field(description="ticks between points, or ticks a candle")]
    columns: list[str]
    rows: list[list[float | int | None]]
    ticks: Annotated[list[int], Field(description="tick of each row; of a candle its first")]
    next_cursor: str | None


class Event(Document):
    """A fact of the world."""

    id: Annotated[int, Field(description="place in the log since the world began: the cursor")]
    channel: str
    number: Annotated[int, Field(description="place in its channel")]
    tick: int
    name: str
    data: dict[str, Any]


class Events(Document):
    """A page of the event log."""

    tick: int
    epoch: str
    events: Sequence[Event]
    next_cursor: str | None


# --- the service -------------------------------------------------------------------------------------------------
class Info(Document):
    """What the world is made of and what the server allows."""

    name: str
    version: str
    engine_version: int
    epoch: str
    seed_commitment: Annotated[str, Field(description="hash of the secret seed, hexadecimal")]
    tick_rate_ms: int
    residents: int
    config: Annotated[dict[str, Any], Field(description="every number of the world")]
    markets: list[dict[str, Any]]
    resources: list[dict[str, Any]]
    ladder: dict[str, Any]
    limits: dict[str, Any]
    channels: list[dict[str, Any]]
    series: Annotated[list[str], Field(description="names that /api/history/{indicator} takes")]
    actions: Annotated[dict[str, Any], Field(description="fields of each type of action")]
    rejects: Annotated[dict[str, str], Field(description="why the world refuses, by code")]


class Time(Document):
    """The clock of the world."""

    tick: int
    epoch: str
    tick_rate_ms: int
    day: Annotated[int, Field(description="simulated day: tick // 24")]
    hour: Annotated[int, Field(description="hour of the simulated day: tick mod 24")]
    published: Annotated[str, Field(description="when the tick was published, ISO 8601, UTC")]
    published_unix_ms: int
    now: str
    now_unix_ms: int


class Status(Document):
    """How the server is doing."""

    status: Annotated[Literal["running", "read_only"], Field(description="read_only: no input is taken, reads go on")]
    reason: str | None
    tick: int
    epoch: str
    uptime_s: float
    tick_rate_ms: int
    agents: int
    queue_actions: int
    durable_seq: int
    started_tick: Annotated[int, Field(description="tick the world had when this process opened it")]


class Health(Document):
    """Alive, ready, or why not."""

    status: str
