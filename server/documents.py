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


class BatchError(Problem):
    """Why actions of a batch in columns were not taken. indexes: of these actions."""

    indexes: list[int]


class BatchResults(Document):
    """The results in the order of the actions: one object each, or one column a field for a batch in columns.

    A batch of typed arrays is answered in msgpack, with typed arrays for the columns.
    """

    tick: int
    accepted: int
    refused: int
    results: list[BatchResult] | None = None
    columns: Annotated[
        dict[str, list[Any]] | None,
        Field(description="status, code, seq, duplicate; with wait=outcome what became of the actions, money in ucr"),
    ] = None
    errors: list[BatchError] | None = None


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


# --- the private channel -----------------------------------------------------------------------------------------
class OutcomeEntry(Document):
    """An action was decided. Ids that begin with ~ are the server's own actions."""

    entry: Literal["outcome"]
    agent_id: str
    client_action_id: Annotated[str | None, Field(description="null for registrations")]
    seq: Annotated[int, Field(description="of its receipt; the id of the order it placed")]
    type: Annotated[str, Field(description="of the action; also register and unregister")]
    outcome: Outcome


class OrderEntry(Document):
    """An order of an earlier tick was filled, in part or whole, or ended."""

    entry: Literal["order"]
    agent_id: str
    order_id: str
    market: str
    side: Literal["buy", "sell"]
    status: Literal["filled", "partial", "cancelled", "expired"]
    filled: Annotated[int, Field(description="lots traded in this tick")]
    open: Annotated[int, Field(description="lots left")]
    price: Annotated[str | None, Field(description="of the fill, credits a lot; null without one")]
    value: Annotated[str, Field(description="credits paid (negative) or received in this tick")]


class SwitchEntry(Document):
    """The agent's dead-man's switch fired: the orders it ended follow as entries of their own."""

    entry: Literal["switch"]
    agent_id: str


class LeftEntry(Document):
    """The agent left without having asked to."""

    entry: Literal["left"]
    agent_id: str
    reason: Literal["expired", "defaulted"]


class Balance(Document):
    """What an agent had after `tick`: the fields of its account with the same names."""

    agent_id: str
    tick: int
    cash: str
    escrow: str
    debt: str
    advance: str
    holdings: dict[str, Holding]


class Entries(Document):
    """What happened to the owner's agents after `base`, up to `seq`."""

    type: Literal["entries"]
    channel: Literal["agent"]
    epoch: str
    seq: Annotated[int, Field(description="tick x 4096 + part")]
    base: Annotated[int, Field(description="nothing is between it and this frame")]
    tick: int
    sent_ns: int
    entries: list[OutcomeEntry | OrderEntry | SwitchEntry | LeftEntry]
    balances: Annotated[list[Balance], Field(description="of agents something happened to; in the newest frame")] = []


class Accounts(Document):
    """The owner's agents as they are, one after another, once after every subscribe."""

    type: Literal["accounts"]
    channel: Literal["agent"]
    epoch: str
    tick: int
    sent_ns: int
    accounts: list[Agent]
    left: Annotated[int, Field(description="agents still to come")]


# --- analyses ----------------------------------------------------------------------------------------------------
class Missing(Document):
    """Why a figure is not there."""

    reason: str
    have: Annotated[int | None, Field(description="observations there are")]
    need: Annotated[int | None, Field(description="observations it takes")]


_MISSING = Field(description="null when the figures are there")
_Share = Annotated[float, Field(ge=0, le=1)]


class Window(Document):
    """The ticks an analysis looked at, both ends included."""

    first_tick: int
    last_tick: int
    ticks: Annotated[int, Field(ge=1)]


class Analysed(Document):
    """What every analysis of the past carries."""

    tick: Annotated[int, Field(description="last tick it looked at")]
    epoch: str
    window: Window


class Curve(Document):
    """A curve by its points: rising prices and the lots at each of them. Exact where it has a point."""

    prices: Annotated[list[float], Field(description="rising [credits]")]
    lots: Annotated[list[int], Field(description="lots demanded at that price or above, or supplied at it or below")]


class OutsideLots(Document):
    """Lots of outside agents, and of the estate of those that left, that are in the curves."""

    bids: Annotated[int, Field(ge=0)]
    asks: Annotated[int, Field(ge=0)]


class Crossing(Document):
    """Where the curves meet, by the rules of the auction."""

    price: Annotated[float, Field(description="[credits]")]
    volume: Annotated[int, Field(ge=1, description="lots")]
    demand: Annotated[int, Field(ge=1, description="lots demanded at the price")]
    supply: Annotated[int, Field(ge=1, description="lots supplied at the price")]
    consumer_surplus: Annotated[float, Field(ge=0, description="integral of (demand curve - price) [credits]")]
    producer_surplus: Annotated[float, Field(ge=0, description="integral of (price - supply curve) [credits]")]


class Elasticities(Document):
    """(dQ/Q) / (dP/P) over a price change of 1 % around the reference price, both positive."""

    demand: Annotated[float, Field(ge=0)]
    supply: Annotated[float, Field(ge=0)]


class CostInput(Document):
    """What a lot takes of one market."""

    market: str
    per_lot: Annotated[float, Field(gt=0, description="hours or lots")]


class MarginalCost(Document):
    """What another lot costs to make when hours and inputs are bought from the asks that stood for the same auction."""

    inputs: list[CostInput]
    lots: Annotated[list[float], Field(description="up to which the cost beside holds, rising")]
    costs: Annotated[list[float], Field(description="of each of those lots, rising [credits]")]


class Curves(Document):
    """What stood in a market for the auction of `tick`."""

    tick: Annotated[int, Field(description="tick of the auction; it is over")]
    epoch: str
    id: int
    name: str
    is_open: Annotated[bool, Field(description="whether the market cleared in that tick")]
    reference_price: Annotated[float, Field(description="price before the auction [credits]")]
    demand: Curve
    supply: Curve
    outside_lots: OutsideLots
    crossing: Annotated[Crossing | None, Field(description="null where they do not meet")]
    elasticity: Elasticities
    marginal_cost: Annotated[MarginalCost | None, Field(description="null where nothing is made: labour, shares")]


class Kyle(Document):
    """Kyle's lambda: regression of the price change of a tick on the imbalance of its orders."""

    missing: Annotated[Missing | None, _MISSING]
    slope: Annotated[float | None, Field(description="lambda [bp/lot]")] = None
    standard_error: Annotated[float | None, Field(ge=0, description="of lambda, after White 1980 [bp/lot]")] = None
    intercept: Annotated[float | None, Field(description="[bp]")] = None
    r_squared: Annotated[float | None, Field(le=1, description="share of the changes' variance explained")] = None
    observations: Annotated[int | None, Field(description="ticks")] = None


class ImpactBin(Document):
    """Ticks whose imbalance was of about the same size."""

    flow_lots: Annotated[float, Field(gt=0, description="mean size of the imbalance")]
    impact_bp: Annotated[float, Field(description="mean price change in its direction")]
    standard_error: Annotated[float, Field(ge=0, description="of that mean [bp]")]
    count: Annotated[int, Field(ge=1, description="ticks")]


class ImpactCurve(Document):
    """Impact by size: impact = a x flow^exponent; 1 is linear (Kyle), .5 the square-root law."""

    missing: Annotated[Missing | None, _MISSING]
    bins: Annotated[list[ImpactBin] | None, Field(description="12, by rising size")] = None
    exponent: Annotated[float | None, Field(description="null with fewer than three usable bins")] = None
    exponent_error: Annotated[float | None, Field(ge=0)] = None


class Impact(Analysed):
    """Price impact in one market."""

    id: int
    name: str
    kyle: Kyle
    curve: ImpactCurve


class Ratio(Document):
    """Variance of returns over a horizon over that of a random walk with the same variance a tick."""

    horizon: Annotated[int, Field(ge=2, description="ticks")]
    ratio: Annotated[float, Field(ge=0, description="1: a random walk; above: trends; below: reverts")]
    z: Annotated[float, Field(description="robust to changing variance, standard normal for a random walk")]
    p: _Share


class Joint(Document):
    """A test of several autocorrelations together."""

    lags: int
    statistic: Annotated[float, Field(ge=0, description="chi-square of so many degrees without autocorrelation")]
    p: _Share


class Tests(Document):
    """What the returns of a market say."""

    missing: Annotated[Missing | None, _MISSING]
    observations: Annotated[int | None, Field(description="returns")] = None
    autocorrelations: Annotated[list[float] | None, Field(description="at lags 1 to 10")] = None
    ratios: Annotated[list[Ratio] | None, Field(description="variance ratios over 2, 4, 8 and 16 ticks")] = None
    hurst: Annotated[float | None, Field(description=".5 independent, above persistent, below reverting")] = None
    hurst_error: Annotated[float | None, Field(gt=0, description="its standard error for unpredictable returns")] = None
    ljung_box: Annotated[Joint | None, Field(description="rejects clustered volatility as well")] = None
    robust: Annotated[Joint | None, Field(description="the same, allowing for clustered volatility")] = None
    verdict: Annotated[
        Literal["unpredictable", "trending", "reverting", "mixed"] | None,
        Field(description="unpredictable: no test rejects; the others say which way the rejecting ones point"),
    ] = None


class TestedMarket(Document):
    """One market."""

    id: int
    name: str
    tests: Tests


class Efficiency(Analysed):
    """Efficiency of every market."""

    significance: Annotated[float, Field(description="of a verdict, all tests of a market together")]
    markets: list[TestedMarket]


class Gap(Document):
    """Two sides that are tied to each other, and how far they have come apart."""

    kind: Annotated[
        Literal["production", "products", "dividend", "coupon"],
        Field(description="a good and its costs; an input and its good; a share and its dividends; consol and rate"),
    ]
    market: str
    others: list[str]
    price: Annotated[float, Field(description="[credits]")]
    value: Annotated[float, Field(description="what the tie says it should be [credits]")]
    gap_bp: Annotated[float, Field(description="log price over value [bp]")]
    usual_bp: Annotated[float, Field(description="median of the gap in the window [bp]")]
    deviation_bp: Annotated[float, Field(ge=0, description="its standard deviation, by the median deviation [bp]")]
    spread_bp: Annotated[float | None, Field(ge=0, description="half the mean spreads of all legs; null: no quotes")]
    threshold_bp: Annotated[float, Field(ge=0, description="how far from usual_bp the gap is out of bounds")]
    is_outside: bool
    profit_bp: Annotated[
        float | None,
        Field(description="of buying the inputs at the best asks and selling the lot at the best bid, of its cost"),
    ]


class Arbitrage(Analysed):
    """Every link between markets."""

    outside: Annotated[int, Field(ge=0, description="gaps out of bounds")]
    width_deviations: Annotated[float, Field(description="deviations a threshold has, beyond the spreads")]
    links: list[Gap]
    missing: Annotated[Missing | None, Field(description="why there are no links; null when there are")]


class Forecast(Document):
    """An indicator some simulated days ahead, with the score of the method over the window."""

    days: Annotated[int, Field(ge=1, description="horizon, of 24 ticks each")]
    missing: Annotated[Missing | None, _MISSING]
    value: Annotated[float | None, Field(description="expected, in the indicator's unit")] = None
    low: Annotated[float | None, Field(description="lower end of the band")] = None
    high: Annotated[float | None, Field(description="upper end of the band")] = None
    method: Annotated[Literal["random_walk", "half", "regression", "mean"] | None, Field(description="in use")] = None
    mae: Annotated[float | None, Field(ge=0, description="mean absolute error of the forecasts as they were")] = None
    mae_random_walk: Annotated[float | None, Field(ge=0, description="of saying that nothing changes")] = None
    mae_mean: Annotated[float | None, Field(ge=0, description="of saying the mean so far")] = None
    skill: Annotated[float | None, Field(le=1, description="1 - mae / mae_random_walk")] = None
    covered: Annotated[float | None, Field(ge=0, le=1, description="share of outcomes inside their bands")] = None
    scored: Annotated[int | None, Field(ge=1, description="forecasts the score is made from, a day apart")] = None


class ForecastIndicator(Document):
    """One indicator."""

    name: str
    unit: str
    now: float
    forecasts: list[Forecast]


class Backtest(Document):
    """What the warnings of calm days were worth."""

    days: int
    onsets: Annotated[int, Field(description="crises that began")]
    auc: Annotated[float, Field(ge=0, le=1, description="chance that a day before a crisis scored higher than another")]
    hit_rate: Annotated[float, Field(ge=0, le=1, description="share of days before a crisis that were warned of")]
    false_alarm_rate: Annotated[float, Field(ge=0, le=1, description="share of the other days that were")]


class EarlyWarning(Document):
    """How near a crisis looks: mean rank of its signs among all days of the window. Crisis: an asset market panics."""

    missing: Annotated[Missing | None, _MISSING]
    horizon_days: Annotated[int, Field(description="days within which a warning counts as right")]
    alarm: Annotated[float, Field(description="score from which a day is warned of")]
    signs: list[str]
    score: Annotated[float | None, Field(ge=0, le=1, description="1: never more alarming")] = None
    is_alarm: bool | None = None
    is_crisis: Annotated[bool | None, Field(description="one is under way")] = None
    days: int | None = None
    backtest: Annotated[Backtest | None, Field(description="null while the window holds no crisis to judge by")] = None


class Forecasts(Analysed):
    """Forecasts of indicators."""

    coverage: Annotated[float, Field(description="share of outcomes a band is made to contain")]
    indicators: list[ForecastIndicator]
    early_warning: EarlyWarning


class Anomaly(Document):
    """An episode in which a series was out of its ordinary.

    Values: return and spread in bp; volume as log(1 + lots); imbalance as bids minus asks over all lots; an indicator
    as its change in a tick, of levels (cpi, wage, equity_index, consumption_real, money_supply) as a fraction.
    """

    id: Annotated[int, Field(ge=0, description="rising in the order in which they began, never reused: the cursor")]
    kind: Literal["return", "volume", "spread", "imbalance", "indicator"]
    subject: Annotated[str, Field(description="market or indicator")]
    begin: Annotated[int, Field(description="tick")]
    end: Annotated[int | None, Field(description="last unusual tick, null while it lasts")]
    score: Annotated[float, Field(ge=0, description="highest distance over the 1-in-500 distance of the series itself")]
    value: Annotated[float, Field(description="at the peak")]
    usual: Annotated[float, Field(description="what was expected there")]
    peak: Annotated[int, Field(description="tick of the highest score")]


class Anomalies(Document):
    """A page of anomalies."""

    tick: int
    epoch: str
    open: Annotated[int, Field(ge=0, description="anomalies that last")]
    oldest: Annotated[int, Field(description="first id that is kept, 0 when there is none")]
    newest: Annotated[int, Field(description="last id given, 0 when there is none")]
    anomalies: list[Anomaly]
    next_cursor: str | None


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


class Day(Document):
    """The last 24 ticks of a market: open, high, low, last, volume and mean price. Money in credits a lot."""

    ticks: Annotated[int, Field(ge=1, le=24, description="ticks there are; fewer at the begin of history")]
    open: Annotated[float, Field(description="price of the first of them [credits]")]
    high: Annotated[float, Field(description="[credits]")]
    low: Annotated[float, Field(description="[credits]")]
    last: Annotated[float, Field(description="price of this tick [credits]")]
    volume: Annotated[int, Field(ge=0, description="lots traded")]
    vwap: Annotated[float | None, Field(description="mean price a lot traded, null without a trade [credits]")]


_INDICATORS = {field.name for field in INDICATOR_FIELDS}
_MONETARY = {field.name for field in MONETARY_FIELDS}
_KEY: dict[str, Any] = {"id": (int, ...), "name": (str, ...)}
_MARKET = _values("MarketValues", "One market.", MARKET_TICK)
_DAY: dict[str, Any] = {"day": (Day | None, Field(description="the last 24 ticks; null before there is one"))}
_ROW = _values("MarketRow", "One market of the list.", MARKET_TICK, **_KEY, **_DAY)
_RESOURCE = _values("Resource", "One resource.", SCARCITY, **_KEY)

Indicators = _stamped(
    "Indicators",
    "All indicators.",
    values=(_values("IndicatorValues", "The whole economy.", INFLATION, _INDICATORS), ...),
    forecast=(Forecasts | None, Field(None, description="with forecast=true")),
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
    **_DAY,
)


# --- the past ----------------------------------------------------------------------------------------------------
class History(Document):
    """A page of a series; points and candles are rows in the order of columns."""

    series: str
    unit: str
    epoch: str
    step: Annotated[int, Field(description="ticks between points, or ticks a candle")]
    resolution: Annotated[int, Field(description="ticks a value is kept for where the page begins: 1, 24 or 720")]
    aggregate: Annotated[str, Field(description="what a point says of its ticks; 'first' is the value at the tick")]
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

    status: Annotated[
        Literal["running", "paused", "read_only"],
        Field(description="paused: no tick begins, inputs are taken; read_only: no input is taken, reads go on"),
    ]
    reason: str | None
    tick: int
    epoch: str
    uptime_s: float
    tick_rate_ms: int
    agents: int
    queue_actions: int
    durable_seq: int
    started_tick: Annotated[int, Field(description="tick the world had when this process opened it")]
    redis: Annotated[
        Literal["off", "connected", "lost"],
        Field(description="where frames for gateways go; lost: gateways ask the engine itself, nothing else changes"),
    ]


class HashAt(Document):
    """The hash of the world after a tick."""

    tick: int
    state_hash: Annotated[str, Field(description="BLAKE2b-128 over all arrays, hexadecimal")]


class StateHash(HashAt):
    """The hash of the world after one of its last ten ticks; after the last one while it is paused."""

    recovered: Annotated[HashAt, Field(description="after the tick this process came back at")]


class Commanded(Document):
    """A command is on disk."""

    seq: Annotated[int, Field(description="its record in the journal")]
    tick: Annotated[int, Field(description="the tick in which it takes effect")]


class Pulse(Document):
    """Whether the world ticks."""

    seq: Annotated[int, Field(description="the record of the command in the journal")]
    status: Literal["running", "paused"]
    tick: Annotated[int, Field(description="the published tick")]


class Health(Document):
    """Alive, ready, or why not."""

    status: str
