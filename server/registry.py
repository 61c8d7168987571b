"""Every route of the HTTP interface once: method, path, role, models and limits.

Routing, OpenAPI, /docs and the tests over all routes come from this one list; a route that is not in it
does not exist, and one without a handler keeps the server from starting. The channels of /ws: live.frames.CHANNELS.
Source: DESIGN D1, section 3, S1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import BaseModel

from server import documents, schemas
from server.bodies import JSON, MSGPACK
from server.live.columnar import ARROW, PARQUET

KIB = 1024
ACTION_BYTES, BATCH_BYTES, BINARY_BYTES, OTHER_BYTES = 16 * KIB, 256 * KIB, 1024 * KIB, 64 * KIB
"""Largest request bodies: of one action, of a batch in JSON, in msgpack, of everything else."""

CSV = "text/csv"
EVENT_STREAM = "text/event-stream"
HTML = "text/html"
METRICS_TEXT = "text/plain"


class Role(StrEnum):
    """Who may call a route."""

    ANONYMOUS = "anonymous"
    AGENT = "agent"
    OPERATOR = "operator"
    """Whoever has the operator's key, on the operator's port."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One way a route answers. media: content types; model: of its JSON."""

    status: int
    text: str
    model: type[BaseModel] | None = None
    media: tuple[str, ...] = (JSON,)


@dataclass(frozen=True, kw_only=True)
class Header:
    """A request header a route looks at. pattern: what its value must match."""

    name: str
    text: str
    pattern: str


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route.

    body: model of the request body, None when it takes none; a tuple is one model of several, told apart by `type`.
    binary_bytes: largest body in msgpack, whose columns may be typed arrays; None: as body_bytes, and they may not.
    body_optional: whether an absent body stands for an empty object. problems: statuses of its own besides 400, 404
    of the path, 429 and 500. starting: whether it answers while the world is being opened.
    """

    name: str
    method: str
    path: str
    summary: str
    tag: str
    role: Role = Role.ANONYMOUS
    text: str = ""
    answers: tuple[Answer, ...]
    query: type[schemas.Query] = schemas.Query
    headers: tuple[Header, ...] = ()
    body: type[BaseModel] | tuple[type[BaseModel], ...] | None = None
    body_media: tuple[str, ...] = (JSON,)
    body_bytes: int = OTHER_BYTES
    binary_bytes: int | None = None
    body_optional: bool = False
    problems: tuple[int, ...] = ()
    starting: bool = False
    counted: bool = field(default=True)
    """Whether the call takes from the key's requests a minute."""

    def body_limit(self, media: str) -> int:
        """Return how large a body of a media type may be."""
        return self.body_bytes if media != MSGPACK or self.binary_bytes is None else self.binary_bytes

    @property
    def is_operators(self) -> bool:
        """Whether it is served on the operator's port, and nowhere else."""
        return self.role is Role.OPERATOR


def _ok(text: str, model: type[BaseModel]) -> Answer:
    return Answer(status=200, text=text, model=model)


_IDEMPOTENCY = Header(
    name="Idempotency-Key",
    text="your own secret name of the registration, 16 to 128 characters of A-Z a-z 0-9 . _ : -; sent again it gives "
    "the same agent_id and a new key, and revokes the old one",
    pattern=r"^[A-Za-z0-9._:-]{16,128}$",
)
_PREFER = Header(
    name="Prefer", text="'respond-async': answer 202 with the receipt at once", pattern=r"^[\x20-\x7e]{0,256}$"
)
_LAST_EVENT_ID = Header(
    name="Last-Event-ID",
    text="the id of the last event of a stream with the same query: every channel goes on behind it",
    pattern=r"^[0-9a-f]{16}:([0-9]{1,16}|-)(,([0-9]{1,16}|-)){0,6}$",
)
_STATE_TEXT = "The state after the last published tick. ETag changes with every tick; If-None-Match answers 304."
_TICK_TEXT = (
    _STATE_TEXT + " With ?tick= the state after an earlier tick of the hot history, to the bit as it was published: it "
    "never changes and may be kept. 404 for a tick that is to come, 410 for one that is kept no longer."
)
_ANALYSIS_TEXT = (
    "Made when somebody asks, from the ticks kept hot (historyLimit, at most a simulated year), and reused for "
    "cacheExpiry: `tick` says how old it is. What there is too little history for is left out, and `missing` says why."
)
_ACTION_TEXT = (
    "The shape is checked at once: 4xx, nothing is kept. Everything that needs the world is decided in the tick: 202 "
    "says that the action is on disk, its outcome follows in the receipt. With wait=outcome the answer waits for it: "
    "200, or 422 when the world refused. The same client_action_id with the same action gives the same receipt with "
    "duplicate true; with another action 409."
)

_COMMAND_TEXT = "The command is in the journal before it is answered, and takes effect when its tick begins."

OPERATIONS: tuple[Operation, ...] = (
    # the economy
    Operation(
        name="indicators",
        method="GET",
        path="/api/indicators",
        summary="All indicators of the economy",
        tag="economy",
        text=_TICK_TEXT + " Past values: /api/history/{indicator}; forecasts: forecast=true, of now only.",
        query=schemas.IndicatorsQuery,
        answers=(_ok("indicators", documents.Indicators),),
        problems=(404, 410),
    ),
    Operation(
        name="markets",
        method="GET",
        path="/api/markets",
        summary="The 32 markets",
        tag="economy",
        text=_TICK_TEXT,
        query=schemas.MarketsQuery,
        answers=(_ok("a page of markets", documents.Markets),),
        problems=(404, 410),
    ),
    Operation(
        name="market",
        method="GET",
        path="/api/markets/{id}",
        summary="One market by id (0 to 31) or name: price, book, depth, elasticity, surplus, volatility",
        tag="economy",
        text=_STATE_TEXT,
        answers=(_ok("the market", documents.Market),),
        problems=(404,),
    ),
    Operation(
        name="psychology",
        method="GET",
        path="/api/psychology",
        summary="Moods of the residents and the volatility multiplier",
        tag="economy",
        text=_TICK_TEXT,
        query=schemas.StateQuery,
        answers=(_ok("psychology", documents.Psychology),),
        problems=(404, 410),
    ),
    Operation(
        name="monetary",
        method="GET",
        path="/api/monetary",
        summary="Inflation and its terms, interest rate, money, velocity, interventions",
        tag="economy",
        text=_TICK_TEXT,
        query=schemas.StateQuery,
        answers=(_ok("monetary state", documents.Monetary),),
        problems=(404, 410),
    ),
    Operation(
        name="scarcity",
        method="GET",
        path="/api/scarcity",
        summary="The seven resources: level, multiplier, reserves",
        tag="economy",
        text=_TICK_TEXT,
        query=schemas.StateQuery,
        answers=(_ok("resources", documents.Scarcity),),
        problems=(404, 410),
    ),
    # analyses
    Operation(
        name="curves",
        method="GET",
        path="/api/markets/{id}/curves",
        summary="Demand and supply curves of a market's next auction, once it is over; marginal cost of another lot",
        tag="analysis",
        text="Waits for the next tick: until then the residents' orders are sealed. What stood for that tick when it "
        "was asked for; the orders that came with the tick itself are not in it.",
        query=schemas.CurvesQuery,
        answers=(_ok("the curves", documents.Curves),),
        problems=(404, 503),
    ),
    Operation(
        name="impact",
        method="GET",
        path="/api/markets/{id}/impact",
        summary="Price impact in a market: Kyle's lambda with its standard error, and the curve over sizes",
        tag="analysis",
        text=_ANALYSIS_TEXT,
        answers=(_ok("the impact", documents.Impact),),
        problems=(404,),
    ),
    Operation(
        name="efficiency",
        method="GET",
        path="/api/analysis/efficiency",
        summary="Market efficiency: variance ratios, Hurst exponent, tests for autocorrelation, a verdict a market",
        tag="analysis",
        text=_ANALYSIS_TEXT,
        answers=(_ok("the tests", documents.Efficiency),),
    ),
    Operation(
        name="arbitrage",
        method="GET",
        path="/api/analysis/arbitrage",
        summary="Gaps between markets that are tied to each other, and which of them are out of bounds",
        tag="analysis",
        text=_ANALYSIS_TEXT,
        answers=(_ok("the gaps", documents.Arbitrage),),
    ),
    Operation(
        name="forecasts",
        method="GET",
        path="/api/analysis/forecasts",
        summary="Forecasts of indicators with error bands and scores; early warning of crises with its backtest",
        tag="analysis",
        text=_ANALYSIS_TEXT,
        answers=(_ok("the forecasts", documents.Forecasts),),
    ),
    Operation(
        name="anomalies",
        method="GET",
        path="/api/analysis/anomalies",
        summary="Anomalies of returns, volumes, spreads, imbalances and indicators, numbered as they began",
        tag="analysis",
        query=schemas.AnomaliesQuery,
        answers=(_ok("a page", documents.Anomalies),),
    ),
    # agents
    Operation(
        name="register",
        method="POST",
        path="/api/agents/register",
        summary="Register an agent",
        tag="agents",
        text="Without a key a new owner is made; with a key the agent belongs to the key's owner. The key in the "
        "answer is shown once. An owner's first key stays valid, so do the keys of its agents and of the 16 that left "
        "last (agents_per_owner, if that is more); with a registration beyond that the oldest of the others ends.",
        headers=(_IDEMPOTENCY,),
        body=schemas.Registration,
        body_optional=True,
        answers=(Answer(status=201, text="registered", model=documents.Registered),),
        problems=(401, 409, 413, 415, 503, 504),
    ),
    Operation(
        name="agent",
        method="GET",
        path="/api/agents/{id}",
        summary="One's own agent: cash, holdings, debts, open orders",
        tag="agents",
        role=Role.AGENT,
        answers=(_ok("the agent", documents.Agent),),
        problems=(401, 404, 503),
    ),
    Operation(
        name="unregister",
        method="DELETE",
        path="/api/agents/{id}",
        summary="Unregister one's own agent",
        tag="agents",
        role=Role.AGENT,
        text="Open orders are cancelled, the debt and then the advance are repaid as far as cash goes, what is left "
        "goes to the treasury and the estate.",
        headers=(_PREFER,),
        answers=(
            Answer(status=204, text="settled"),
            Answer(status=202, text="accepted, with Prefer: respond-async", model=documents.Receipt),
        ),
        problems=(401, 404, 503, 504),
    ),
    Operation(
        name="act",
        method="POST",
        path="/api/agents/{id}/action",
        summary="Submit an action of one's own agent",
        tag="agents",
        role=Role.AGENT,
        text=_ACTION_TEXT,
        query=schemas.ActionQuery,
        body=tuple(schemas.ACTION_MODELS.values()),
        body_media=(JSON, MSGPACK),
        body_bytes=ACTION_BYTES,
        answers=(
            Answer(status=202, text="accepted and durable", model=documents.Receipt),
            _ok("decided (wait=outcome)", documents.Receipt),
            _ok("checked (validate=true)", documents.Verdict),
        ),
        problems=(401, 404, 409, 413, 415, 422, 503, 504),
    ),
    Operation(
        name="act_batch",
        method="POST",
        path="/api/actions",
        summary="Submit up to 1,000 actions of several agents of one owner",
        tag="agents",
        role=Role.AGENT,
        text="Each action carries its agent_id and is taken or refused by itself, in the order given. " + _ACTION_TEXT,
        query=schemas.ActionQuery,
        body=schemas.Batch,
        body_media=(JSON, MSGPACK),
        body_bytes=BATCH_BYTES,
        binary_bytes=BINARY_BYTES,
        answers=(
            Answer(status=202, text="what was accepted is durable", model=documents.BatchResults),
            _ok("decided or checked (wait=outcome, validate=true)", documents.BatchResults),
        ),
        problems=(401, 413, 415, 503, 504),
    ),
    Operation(
        name="receipt",
        method="GET",
        path="/api/agents/{id}/actions/{client_action_id}",
        summary="The receipt of an action and its outcome",
        tag="agents",
        role=Role.AGENT,
        answers=(_ok("the receipt", documents.Receipt),),
        problems=(401, 404, 503),
    ),
    # streams
    Operation(
        name="stream",
        method="GET",
        path="/api/stream",
        summary="The channels of /ws as server-sent events",
        tag="streams",
        query=schemas.StreamQuery,
        headers=(_LAST_EVENT_ID,),
        text="Each event is a message of the subprotocol arena.v2.json: `event` is its type, `data` the message, `id` "
        "the epoch and where each channel stands. docs/protocol.md has the messages, /asyncapi.json their schemas. The "
        "channel agent needs a key, and tells of the agents of its owner. The last event is `close`, with a code and "
        "what to do.",
        answers=(Answer(status=200, text="events, for as long as the client stays", media=(EVENT_STREAM,)),),
        problems=(401, 503),
    ),
    # the past
    Operation(
        name="history",
        method="GET",
        path="/api/history/{indicator}",
        summary="A value over time: an indicator, market.field or resource.field; candles of a market",
        tag="history",
        query=schemas.HistoryQuery,
        text="Without `from` the page begins with the hot history. What is older comes from a tier of days or months: "
        "a point is still the value at its tick, or what `aggregate` asks for.",
        answers=(Answer(status=200, text="a page", model=documents.History, media=(JSON, CSV, PARQUET, ARROW)),),
        problems=(404, 406),
    ),
    Operation(
        name="events",
        method="GET",
        path="/api/events",
        summary="The event log",
        tag="history",
        query=schemas.EventsQuery,
        answers=(_ok("a page", documents.Events),),
    ),
    # the operator
    Operation(
        name="admin_state_hash",
        method="GET",
        path="/api/admin/state_hash",
        summary="The hash of the world's state, and of the state this process came back at",
        tag="operator",
        role=Role.OPERATOR,
        text="While the world ticks, after the newest tick that 10 divides; while it is paused, after the last one.",
        answers=(_ok("the hashes", documents.StateHash),),
        problems=(401, 503),
    ),
    Operation(
        name="admin_events",
        method="POST",
        path="/api/admin/events",
        summary="Let a discovery or a catastrophe happen",
        tag="operator",
        role=Role.OPERATOR,
        text=_COMMAND_TEXT + " A find that would lift reserves above 1.2 x their base is dropped, without an event.",
        body=schemas.InjectedEvent,
        answers=(Answer(status=202, text="accepted and durable", model=documents.Commanded),),
        problems=(401, 413, 415, 503, 504),
    ),
    Operation(
        name="admin_parameters",
        method="POST",
        path="/api/admin/parameters",
        summary="Set a parameter of the world",
        tag="operator",
        role=Role.OPERATOR,
        text=_COMMAND_TEXT + " The parameters are those of docs/configuration.md, without the sizes residents, "
        "max_agents and order_book_max. /api/info shows what is in force.",
        body=schemas.Parameter,
        answers=(Answer(status=202, text="accepted and durable", model=documents.Commanded),),
        problems=(401, 413, 415, 503, 504),
    ),
    Operation(
        name="admin_pause",
        method="POST",
        path="/api/admin/pause",
        summary="Let no tick begin; also over restarts",
        tag="operator",
        role=Role.OPERATOR,
        text="Answered when the tick under way is published. Inputs are still acknowledged; their tick comes later.",
        body=schemas.Nothing,
        body_optional=True,
        answers=(_ok("paused", documents.Pulse),),
        problems=(401, 413, 415, 503, 504),
    ),
    Operation(
        name="admin_resume",
        method="POST",
        path="/api/admin/resume",
        summary="Let ticks begin again",
        tag="operator",
        role=Role.OPERATOR,
        body=schemas.Nothing,
        body_optional=True,
        answers=(_ok("running", documents.Pulse),),
        problems=(401, 413, 415, 503, 504),
    ),
    Operation(
        name="admin_step",
        method="POST",
        path="/api/admin/step",
        summary="Run some ticks of a paused world, one after another",
        tag="operator",
        role=Role.OPERATOR,
        body=schemas.Steps,
        body_optional=True,
        answers=(
            _ok("all of them are published", documents.Pulse),
            Answer(status=202, text="they go on: so far after 10 s", model=documents.Pulse),
        ),
        problems=(401, 409, 413, 415, 503, 504),
    ),
    # the service
    Operation(
        name="info",
        method="GET",
        path="/api/info",
        summary="Markets, ladder, limits, channels, series, reject codes",
        tag="service",
        answers=(_ok("information", documents.Info),),
    ),
    Operation(
        name="time",
        method="GET",
        path="/api/time",
        summary="The tick and the times that go with it",
        tag="service",
        answers=(_ok("time", documents.Time),),
    ),
    Operation(
        name="status",
        method="GET",
        path="/api/status",
        summary="How the server is doing",
        tag="service",
        answers=(_ok("status", documents.Status),),
    ),
    *(
        Operation(
            name=path[1:],
            method="GET",
            path=path,
            summary="Alive: the process answers",
            tag="service",
            answers=(_ok("alive", documents.Health),),
            starting=True,
            counted=False,
        )
        for path in ("/healthz", "/livez", "/health", "/live")
    ),
    *(
        Operation(
            name=path[1:],
            method="GET",
            path=path,
            summary="Ready: the world is open and ticking; 503 before",
            tag="service",
            answers=(_ok("ready", documents.Health),),
            problems=(503,),
            counted=False,
        )
        for path in ("/readyz", "/ready")
    ),
    Operation(
        name="metrics",
        method="GET",
        path="/metrics",
        summary="Metrics for Prometheus",
        tag="service",
        answers=(Answer(status=200, text="metrics", media=(METRICS_TEXT, "application/openmetrics-text")),),
        counted=False,
    ),
    Operation(
        name="openapi",
        method="GET",
        path="/openapi.json",
        summary="This interface as OpenAPI 3.1",
        tag="pages",
        answers=(Answer(status=200, text="OpenAPI"),),
    ),
    Operation(
        name="asyncapi",
        method="GET",
        path="/asyncapi.json",
        summary="The streams of /ws as AsyncAPI 3",
        tag="pages",
        answers=(Answer(status=200, text="AsyncAPI"),),
    ),
    Operation(
        name="docs",
        method="GET",
        path="/docs",
        summary="This interface for people",
        tag="pages",
        answers=(Answer(status=200, text="a page", media=(HTML,)),),
    ),
    Operation(
        name="front",
        method="GET",
        path="/",
        summary="What this is, with the indicators live",
        tag="pages",
        answers=(Answer(status=200, text="a page", media=(HTML,)),),
    ),
    Operation(
        name="asset",
        method="GET",
        path="/assets/{name}",
        summary="Style and script of the pages",
        tag="pages",
        answers=(Answer(status=200, text="a file", media=("text/css", "text/javascript")),),
        problems=(404,),
    ),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
