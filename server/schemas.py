"""The shape of every request as a pydantic model: fields, units and bounds. What goes out: documents.

Strict: unknown fields are refused, a bool is no number, a text is no number unless the field is money. The models are
the shape of an action and nothing more: what needs the world is decided in the tick.
Source: DESIGN section 3 and D24; ECONOMY A13.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from engine.commands import CHANGEABLE, RESOURCE_NAMES, STEP_TICKS_MAX
from engine.ladder import UCR
from engine.markets import FINAL, GOOD_FIRST, GOOD_LAST, NAMES
from engine.messages import CANCEL_AFTER_TICKS_MAX
from server.bodies import INTEGER_MAX
from server.live.agent_frames import AGENT
from server.live.frames import CHANNELS
from server.live.narrowing import DEPTH_MAX, EVERY_MAX
from server.live.receipts import VALIDITY_TICKS, VALIDITY_TICKS_MAX

QUANTITY_MAX = 1_000_000_000
PRICE_LOWEST, PRICE_HIGHEST = Decimal("0.01"), Decimal("1018465.744168")
"""First and last price of the ladder, credits a lot."""
AMOUNT_MAX = 1_000_000_000
"""Largest amount of a loan or repayment, credits."""
BATCH_MAX = 1_000
GOODS = NAMES[GOOD_FIRST : GOOD_LAST + 1]

ID_PATTERN = r"^[A-Za-z0-9._:-]{1,64}$"
_MONEY_TEXT = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,18})?")
_WHOLE_TEXT = re.compile(r"-?[0-9]{1,16}")


class Shape(BaseModel):
    """Base of everything that comes in: strict, closed, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


# --- actions -----------------------------------------------------------------------------------------------------
def _money(value: Any) -> Decimal:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str) and _MONEY_TEXT.fullmatch(value):
        return Decimal(value)
    raise PydanticCustomError("money", "is not an amount in credits: give a number or a decimal string such as '1.25'")


def _price(value: Any) -> Decimal:
    price = _money(value)
    if not PRICE_LOWEST <= price <= PRICE_HIGHEST:
        side = "below" if price < PRICE_LOWEST else "above"
        raise PydanticCustomError(
            "price",
            "is {side} the price ladder, which goes from {low} to {high} credits",
            {"side": side, "low": str(PRICE_LOWEST), "high": str(PRICE_HIGHEST)},
        )
    return price


def _amount(value: Any) -> Decimal:
    amount = _money(value)
    if not 0 < amount <= AMOUNT_MAX:
        raise PydanticCustomError("amount", "is not above 0 and at most {high} credits", {"high": AMOUNT_MAX})
    # a product of Decimals would be rounded to 28 digits
    if (Fraction(amount) * UCR).denominator != 1:
        raise PydanticCustomError("amount", "has more than 6 decimals")
    return amount


def _mood(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not 0 <= value <= 1:
        raise PydanticCustomError("mood", "is not a number in [0, 1]")
    return float(value)


def _market(value: Any) -> str:
    return _one_of(value, NAMES, "market")


def _good(value: Any) -> str:
    return _one_of(value, GOODS, "produced good")


def _final(value: Any) -> str:
    return _one_of(value, FINAL, "final good")


def _one_of(value: Any, names: Sequence[str], what: str) -> str:
    if isinstance(value, str) and value in names:
        return value
    raise PydanticCustomError("name", "is not a {what}; there are {names}", {"what": what, "names": ", ".join(names)})


#: From 0.01 to the whole credits of the highest price: as near as a pattern comes to the bounds of the ladder.
_PRICE_PATTERN = (
    r"^(0\.(0[1-9]|[1-9][0-9]?)[0-9]{0,16}|([1-9][0-9]{0,5}|10(0[0-9]{4}|1([0-7][0-9]{3}|8([0-3][0-9]{2}|4([0-5][0-9]"
    r"|6[0-4])))))(\.[0-9]{1,18})?)$"
)
_AMOUNT_PATTERN = r"^(0\.[0-9]{0,5}[1-9]|[1-9][0-9]{0,8}(\.[0-9]{1,6})?)$"
_PRICE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": _PRICE_PATTERN},
        {"type": "number", "minimum": float(PRICE_LOWEST), "maximum": float(PRICE_HIGHEST)},
    ]
}
_AMOUNT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": _AMOUNT_PATTERN},
        {"type": "number", "exclusiveMinimum": 0, "maximum": AMOUNT_MAX, "multipleOf": 0.000001},
    ]
}
#: What the validator of LimitAction says, for the documents.
_EXPIRES_SCHEMA: dict[str, Any] = {
    "if": {"properties": {"time_in_force": {"const": "gtt"}}, "required": ["time_in_force"]},
    "then": {"properties": {"expires_tick": {"type": "integer"}}, "required": ["expires_tick"]},
    "else": {"properties": {"expires_tick": {"type": "null"}}},
}

Price = Annotated[Decimal, PlainValidator(_price), WithJsonSchema(_PRICE_SCHEMA)]
Amount = Annotated[Decimal, PlainValidator(_amount), WithJsonSchema(_AMOUNT_SCHEMA)]
Mood = Annotated[float, PlainValidator(_mood), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Market = Annotated[str, PlainValidator(_market), WithJsonSchema({"type": "string", "enum": list(NAMES)})]
Good = Annotated[str, PlainValidator(_good), WithJsonSchema({"type": "string", "enum": list(GOODS)})]
FinalGood = Annotated[str, PlainValidator(_final), WithJsonSchema({"type": "string", "enum": list(FINAL)})]
Quantity = Annotated[
    StrictInt, Field(ge=1, le=QUANTITY_MAX, description=f"whole lots, a whole number in [1, {QUANTITY_MAX}]")
]
Tick = Annotated[StrictInt, Field(ge=0, le=INTEGER_MAX)]
OrderId = Annotated[
    str,
    Field(pattern=r"^[1-9][0-9]{0,15}$", description="id of an own order: 1 to 16 digits as text, from its receipt"),
]
Side = Annotated[Literal["buy", "sell"], Field(description="'buy' or 'sell'")]

_PRICE_TEXT = (
    f"credits a lot as decimal string or number, {PRICE_LOWEST} to {PRICE_HIGHEST}; taken to the ladder: "
    "a buy never above it, a sell never below it"
)


class Action(Shape):
    """What every action has."""

    type: str
    client_action_id: Annotated[
        str,
        Field(
            pattern=ID_PATTERN,
            description="your own name of the action, 1 to 64 characters of A-Z a-z 0-9 . _ : -; "
            "sent again with the same action it has one effect",
        ),
    ]
    valid_until_tick: Annotated[
        Tick | None,
        Field(
            description=f"last tick the action may be applied in, a whole number; "
            f"now + {VALIDITY_TICKS} unless given, at most now + {VALIDITY_TICKS_MAX}"
        ),
    ] = None


class LimitAction(Action):
    """An order with a limit price."""

    model_config = ConfigDict(json_schema_extra=_EXPIRES_SCHEMA)

    type: Literal["limit"]
    market: Annotated[Market, Field(description="name of a market: " + ", ".join(NAMES))]
    side: Side
    quantity: Quantity
    price: Annotated[Price, Field(description=_PRICE_TEXT)]
    time_in_force: Annotated[
        Literal["gtc", "ioc", "gtt"],
        Field(description="'gtc' until cancelled, 'ioc' this tick only, 'gtt' until expires_tick"),
    ] = "gtc"
    expires_tick: Annotated[
        Tick | None, Field(description="last tick the order takes part in: a whole number, with 'gtt' and only then")
    ] = None

    @model_validator(mode="after")
    def _expires_with_gtt(self) -> LimitAction:
        if (self.time_in_force == "gtt") != (self.expires_tick is not None):
            raise PydanticCustomError("expires_tick", "expires_tick is given with time_in_force 'gtt' and only then")
        return self


class MarketAction(Action):
    """An order at whatever price this tick's auction gives, for one tick."""

    type: Literal["market"]
    market: Annotated[Market, Field(description="name of a market: " + ", ".join(NAMES))]
    side: Side
    quantity: Quantity


class CancelAction(Action):
    """Take an open order back."""

    type: Literal["cancel"]
    order_id: OrderId


class ReplaceAction(Action):
    """Change an open order; it keeps its place only if nothing but the quantity gets smaller."""

    type: Literal["replace"]
    order_id: OrderId
    quantity: Quantity
    price: Annotated[Price, Field(description=_PRICE_TEXT)]
    side: Annotated[
        Literal["buy", "sell"] | None,
        Field(description="'buy' or 'sell', the side of the order; needed when the price is not one of the ladder's"),
    ] = None


class BorrowAction(Action):
    """Take a loan from the bank."""

    type: Literal["borrow"]
    amount: Annotated[Amount, Field(description=f"credits, above 0, at most {AMOUNT_MAX}, at most 6 decimals")]


class RepayAction(Action):
    """Pay a loan back."""

    type: Literal["repay"]
    amount: Annotated[Amount, Field(description=f"credits, above 0, at most {AMOUNT_MAX}, at most 6 decimals")]


class ProduceAction(Action):
    """Make lots of a good from hours and inputs held."""

    type: Literal["produce"]
    market: Annotated[Good, Field(description="name of a produced good: " + ", ".join(GOODS))]
    quantity: Quantity


class ConsumeAction(Action):
    """Use lots of a final good up."""

    type: Literal["consume"]
    market: Annotated[FinalGood, Field(description="name of a final good: " + ", ".join(FINAL))]
    quantity: Quantity


class SetSentimentAction(Action):
    """State a mood; it joins the residents' by the agent's wealth."""

    type: Literal["set_sentiment"]
    sentiment: Annotated[Mood, Field(description="a number in [0, 1]; .5 is neutral")]
    fear: Annotated[Mood, Field(description="a number in [0, 1]")]
    greed: Annotated[Mood, Field(description="a number in [0, 1]")]
    confidence: Annotated[Mood, Field(description="a number in [0, 1]")]


class CancelAllAction(Action):
    """Take all open orders back; it is not counted among the actions of a tick."""

    type: Literal["cancel_all"]
    market: Annotated[
        Market | None,
        Field(description="name of the market whose orders end; all of the agent's orders unless given"),
    ] = None


class CancelAfterAction(Action):
    """Set the dead-man's switch: all open orders end unless it is set again in time; not counted either."""

    type: Literal["cancel_after"]
    ticks: Annotated[
        StrictInt,
        Field(
            ge=0,
            le=CANCEL_AFTER_TICKS_MAX,
            description=f"ticks from the one the action is applied in, a whole number in "
            f"[0, {CANCEL_AFTER_TICKS_MAX}]; the orders end at the start of that tick; 0 takes the switch back",
        ),
    ]


AnyAction = Annotated[
    LimitAction
    | MarketAction
    | CancelAction
    | ReplaceAction
    | BorrowAction
    | RepayAction
    | ProduceAction
    | ConsumeAction
    | SetSentimentAction
    | CancelAllAction
    | CancelAfterAction,
    Field(discriminator="type"),
]
ACTION_MODELS: dict[str, type[Action]] = {
    "limit": LimitAction,
    "market": MarketAction,
    "cancel": CancelAction,
    "replace": ReplaceAction,
    "borrow": BorrowAction,
    "repay": RepayAction,
    "produce": ProduceAction,
    "consume": ConsumeAction,
    "set_sentiment": SetSentimentAction,
    "cancel_all": CancelAllAction,
    "cancel_after": CancelAfterAction,
}
_ACTION: TypeAdapter[Action] = TypeAdapter(AnyAction)

AGENT_ID = Annotated[str, Field(pattern=r"^a[1-9][0-9]{0,15}$", description="id of an agent, such as 'a17'")]


def parse_action(value: Any) -> Action:
    """Return the action a decoded body stands for, or raise ValidationError."""
    return _ACTION.validate_python(value)


#: The same models with the agent's id beside: what an item of a batch looks like. For the documents.
BATCH_MODELS: tuple[type[Action], ...] = tuple(
    create_model(f"Agent{model.__name__}", __base__=model, agent_id=(AGENT_ID, ...)) for model in ACTION_MODELS.values()
)


class Batch(Shape):
    """Actions of several agents of one owner, each taken or refused by itself."""

    actions: Annotated[
        list[Any],
        Field(min_length=1, max_length=BATCH_MAX, description=f"1 to {BATCH_MAX} actions, each with its agent_id"),
        WithJsonSchema({"type": "array", "minItems": 1, "maxItems": BATCH_MAX, "items": {"type": "object"}}),
    ]


class BatchColumns(Shape):
    """The same as one list a field, or in msgpack as one typed array a field (see docs/protocol.md)."""

    columns: Annotated[
        dict[str, Any],
        Field(description="one column a field: a list with a value or null for each action, or a typed array"),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": "array", "maxItems": BATCH_MAX}}),
    ]


class Registration(Shape):
    """A registration has no fields: the world decides what a new agent gets."""


class Nothing(Shape):
    """A body without fields."""


class InjectedEvent(Shape):
    """An event that an operator lets happen."""

    name: Annotated[Literal["resource_discovered", "catastrophe_struck"], Field(description="which event")]
    resource: Annotated[str, Field(description=f"one of {', '.join(RESOURCE_NAMES)}")]
    size: Annotated[
        StrictFloat | StrictInt,
        Field(gt=0, le=1, description="in (0, 1]: share of the base reserves found, or of the reserves lost"),
    ]
    kind: Annotated[
        Literal["natural_disaster", "political_instability"] | None,
        Field(description="of a catastrophe, natural_disaster unless given"),
    ] = None

    @model_validator(mode="after")
    def _check_kind(self) -> InjectedEvent:
        if self.kind is not None and self.name == "resource_discovered":
            raise ValueError("kind is left out: only catastrophe_struck has one")
        return self


class Parameter(Shape):
    """A setting of the world that takes another value."""

    name: Annotated[str, Field(description=f"one of {', '.join(CHANGEABLE)}")]
    value: Annotated[
        StrictBool | StrictInt | StrictFloat, Field(description="within the bounds of docs/configuration.md")
    ]


class Steps(Shape):
    """How far a paused world goes."""

    ticks: Annotated[
        StrictInt, Field(ge=1, le=STEP_TICKS_MAX, description=f"ticks to run now, 1 to {STEP_TICKS_MAX}")
    ] = 1


# --- parameters --------------------------------------------------------------------------------------------------
def _whole(value: Any) -> Any:
    if isinstance(value, str):
        if not _WHOLE_TEXT.fullmatch(value):
            raise PydanticCustomError("whole", "is not a whole number")
        return int(value)
    return value


class Query(BaseModel):
    """Base of all query parameters: text in, closed; an operation without parameters takes none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# bounds first: behind the validator they would not reach the documents
QueryTick = Annotated[int, Field(ge=0, le=INTEGER_MAX), BeforeValidator(_whole)]
Cursor = Annotated[
    str | None, Field(pattern=r"^[0-9]{1,16}$", description="where the last page ended: its next_cursor")
]


class ActionQuery(Query):
    """How an action is to be answered."""

    wait: Annotated[
        Literal["outcome"] | None,
        Field(description="'outcome': the answer waits for the tick: 200, or 422 when the world refused"),
    ] = None
    validate_only: Annotated[
        Literal["true", "false"],
        Field(alias="validate", description="'true': checked against the published state; nothing changes"),
    ] = "false"


class StateQuery(Query):
    """Which tick's state."""

    tick: Annotated[
        QueryTick | None,
        Field(description="the state after this tick instead of now, a whole number; the last history_limit are there"),
    ] = None


class MarketsQuery(StateQuery):
    """A page of the list of markets."""

    limit: Annotated[int, Field(ge=1, le=32), BeforeValidator(_whole), Field(description="markets a page, 1 to 32")] = (
        32
    )
    cursor: Cursor = None


def _listed(names: Sequence[str], most: int) -> str:
    """Return the pattern of 1 to `most` of the names with commas between."""
    one = "|".join(names)
    return rf"^({one})(,({one})){{0,{most - 1}}}$"


class StreamQuery(Query):
    """Which channels, and how narrowed: the fields of the op subscribe."""

    channels: Annotated[
        str,
        Field(
            pattern=_listed([*CHANNELS, AGENT], len(CHANNELS) + 1),
            description="1 to 7 names with commas between, each once: " + ", ".join([*CHANNELS, AGENT]),
        ),
    ]
    markets: Annotated[
        str | None,
        Field(
            pattern=_listed(NAMES, len(NAMES)),
            description="of market_tick only these: 1 to 32 names with commas between, each once",
        ),
    ] = None
    every: Annotated[
        Annotated[int, Field(ge=1, le=EVERY_MAX), BeforeValidator(_whole)] | None,
        Field(description=f"of state channels a frame every so many ticks, 1 to {EVERY_MAX}"),
    ] = None
    depth: Annotated[
        Annotated[int, Field(ge=1, le=DEPTH_MAX), BeforeValidator(_whole)] | None,
        Field(description=f"with markets: levels a side of what each auction left unfilled, 1 to {DEPTH_MAX}"),
    ] = None


class HistoryQuery(Query):
    """A page of a series."""

    from_tick: Annotated[QueryTick | None, Field(alias="from", description="first tick, a whole number")] = None
    to_tick: Annotated[QueryTick | None, Field(alias="to", description="last tick, a whole number")] = None
    step: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_whole)] | None,
        Field(
            description="ticks between points (1), or ticks a candle (24); 1 to 1000000; older than the hot history "
            "there are days (24) and months (720): the answer's step and resolution say what it is made of"
        ),
    ] = None
    aggregate: Annotated[
        Literal["first", "last", "high", "low", "mean", "sum"],
        Field(
            description="'first', the value at the tick; 'mean' or 'sum' of the step ticks from there on; 'last', "
            "'high' or 'low' of them for values of the whole economy and prices of markets; candles have their own"
        ),
    ] = "first"
    limit: Annotated[
        int, Field(ge=1, le=10_000), BeforeValidator(_whole), Field(description="points a page, 1 to 10000")
    ] = 1_000
    cursor: Cursor = None
    format: Annotated[
        Literal["json", "csv", "parquet", "arrow", "candles", "candles.csv", "candles.parquet", "candles.arrow"] | None,
        Field(
            description="'json' or 'csv' points, 'parquet' or 'arrow' where the server can; 'candles', 'candles.csv', "
            "'candles.parquet' or 'candles.arrow' for the price of a market; unless given, the Accept header decides"
        ),
    ] = None


class EventsQuery(Query):
    """A page of the event log."""

    type: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z_]{1,64}$",
            description="only events of this name (resource_discovered, ...) or channel (discovery_event, ...)",
        ),
    ] = None
    order: Annotated[Literal["asc", "desc"], Field(description="'asc' oldest first, 'desc' newest first")] = "asc"
    limit: Annotated[
        int, Field(ge=1, le=1_000), BeforeValidator(_whole), Field(description="events a page, 1 to 1000")
    ] = 100
    cursor: Cursor = None


class IndicatorsQuery(StateQuery):
    """What comes with the indicators."""

    forecast: Annotated[
        Literal["true", "false"],
        Field(description="'true': with the forecasts of /api/analysis/forecasts, made now if they are not there"),
    ] = "false"


class CurvesQuery(Query):
    """How fine curves are."""

    points: Annotated[
        int, Field(ge=2, le=2_000), BeforeValidator(_whole), Field(description="most points of a curve, 2 to 2000")
    ] = 200


class AnomaliesQuery(Query):
    """A page of the anomalies."""

    kind: Annotated[
        Literal["return", "volume", "spread", "imbalance", "indicator"] | None,
        Field(description="only of this kind: 'return', 'volume', 'spread', 'imbalance' or 'indicator'"),
    ] = None
    state: Annotated[
        Literal["open", "ended"] | None, Field(description="'open': only those that last; 'ended': only the others")
    ] = None
    order: Annotated[Literal["asc", "desc"], Field(description="'asc' oldest first, 'desc' newest first")] = "asc"
    limit: Annotated[
        int, Field(ge=1, le=1_000), BeforeValidator(_whole), Field(description="anomalies a page, 1 to 1000")
    ] = 100
    cursor: Cursor = None


# --- mistakes ----------------------------------------------------------------------------------------------------
def mistakes(error: ValidationError, model: type[BaseModel] | None = None) -> list[dict[str, Any]]:
    """Return a refused shape as errors[]: per mistake the field, the problem and what is allowed.

    model: what was validated; None for an action, whose model follows from its type.
    """
    return [_mistake(item, model) for item in error.errors(include_url=False)[:20]]


def _mistake(item: ErrorDetails, model: type[BaseModel] | None) -> dict[str, Any]:
    path = list(item["loc"])
    if model is None and path and path[0] in ACTION_MODELS:
        model = ACTION_MODELS[str(path.pop(0))]
    name = ".".join(str(part) for part in path)[:80]
    problem = item["msg"].removeprefix("Value error, ")
    if model is None:
        allowed = "type is one of " + ", ".join(ACTION_MODELS)
        return {"field": name or "type", "problem": _tag_problem(item, problem), "allowed": allowed}
    known = {(field.alias or key): field for key, field in model.model_fields.items()}
    if item["type"] == "extra_forbidden":
        return {"field": name, "problem": "unknown field", "allowed": "fields: " + (", ".join(known) or "none")}
    field = known.get(str(path[0])) if path else None
    allowed = field.description if field is not None and field.description else "fields: " + ", ".join(known)
    return {"field": name, "problem": "missing" if item["type"] == "missing" else problem, "allowed": allowed}


def _tag_problem(item: ErrorDetails, problem: str) -> str:
    if item["type"] == "union_tag_not_found":
        return "missing"
    return "unknown type" if item["type"] == "union_tag_invalid" else problem
