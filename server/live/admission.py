"""The first stage of an action: who asks, how often, for which agent, and in what shape; then to the recorder.

Everything here is decided at once and leaves no trace when refused: nothing is journaled, nothing waits. What needs
the world (funds, holdings, an order's owner) is decided in the tick. Source: DESIGN D22, D24; ECONOMY A13.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from ipaddress import ip_address
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from engine.columns import Columns, to_rows
from engine.ladder import UCR, level_above, level_below, prices
from engine.markets import ID
from engine.messages import ACTION, Kind, TimeInForce
from engine.receipt_table import Verdict
from engine.state import Q15_ONE
from server import keys, schemas
from server.clock import Clock
from server.config import Settings
from server.errors import BadRequest, Code, NotFound, Problem, Unauthorized
from server.live.errors import Full, LiveError
from server.live.pace import Pace
from server.live.quick_check import quick_check
from server.live.receipts import VALIDITY_TICKS, VALIDITY_TICKS_MAX, Receipt
from server.live.recorder import Input, Recorder, Submitted, Taken
from server.live.turns import Turns
from server.metrics import Metrics

BURST_SHARE = 10
"""A key may use a tenth of its requests a minute at once."""
BUDGET_BURST_S = 0.02
"""Time that batches may take at once: who comes meanwhile waits no longer for them."""
BUCKETS_FORGOTTEN = 2
"""Full buckets that are forgotten when somebody new comes, so that there are never many: full is how one begins."""
_AGENT_ID = re.compile(r"a([1-9][0-9]{0,15})")
_SIDES = {"buy": 1, "sell": -1, None: 0}


class Rate(NamedTuple):
    """What is left of the requests of a key or an address. reset_s: seconds until all of them are back."""

    limit: int
    remaining: int
    reset_s: int
    policy: str = "key"

    def headers(self) -> dict[str, str]:
        """Return the limits as headers, by the drafted standard and as X-RateLimit-."""
        return {
            "RateLimit-Policy": f'"{self.policy}";q={self.limit};w=60',
            "RateLimit": f'"{self.policy}";r={self.remaining};t={self.reset_s}',
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_s),
        }

    def lines(self) -> bytes:
        """Return the same as lines of an answer's head."""
        limit, remaining, reset_s, name = self
        policy = name.encode()
        return b"".join(
            (
                b'ratelimit-policy: "%b";q=%d;w=60\r\n' % (policy, limit),
                b'ratelimit: "%b";r=%d;t=%d\r\n' % (policy, remaining, reset_s),
                b"x-ratelimit-limit: %d\r\nx-ratelimit-remaining: %d\r\n" % (limit, remaining),
                b"x-ratelimit-reset: %d\r\n" % reset_s,
            )
        )


class RateLimiter:
    """A token bucket for everybody: `per_minute` tokens flow in evenly, `at_once` fit, a tenth of them unless given.

    policy: whose requests are counted, for the headers; what: is counted, for people.
    """

    def __init__(
        self, per_minute: int, clock: Clock, *, policy: str = "key", what: str = "requests", at_once: int | None = None
    ) -> None:
        self.per_minute = per_minute
        self.burst = at_once or burst(per_minute)
        self.policy = policy
        self._what = what
        self._clock = clock
        self._full_s = self.burst * 60 / per_minute
        """Longest until a bucket nobody takes from is full again."""
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """Tokens and the time they were counted, by whom they are of, the earliest in front."""

    def __len__(self) -> int:
        """Return how many buckets are kept."""
        return len(self._buckets)

    def take(self, who: bytes) -> Rate:
        """Use one request of somebody's. Raises Problem 429 when there is none left."""
        now, per_s = self._clock.monotonic(), self.per_minute / 60
        tokens, since = self._buckets.get(who, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - since) * per_s)
        if tokens < 1:
            wait_s = (1 - tokens) / per_s
            rate = Rate(self.per_minute, 0, _seconds_up((self.burst - tokens) / per_s), self.policy)
            raise Problem(
                Code.RATE,
                f"more than {self.per_minute} {self._what} a minute; try again in {wait_s:.2f} s",
                status=429,
                temporary=True,
                headers={"Retry-After": str(_seconds_up(wait_s))} | rate.headers(),
            )
        if who in self._buckets:
            self._buckets.move_to_end(who)
        else:
            self._forget_full(now)
        self._buckets[who] = (tokens - 1, now)
        return Rate(self.per_minute, int(tokens - 1), _seconds_up((self.burst - tokens + 1) / per_s), self.policy)

    def give_back(self, who: bytes) -> None:
        """Undo somebody's last take: the request is going to be counted by somebody else."""
        tokens, since = self._buckets[who]
        self._buckets[who] = (tokens + 1, since)

    def _forget_full(self, now: float) -> None:
        for who, (_, since) in list(islice(self._buckets.items(), BUCKETS_FORGOTTEN)):
            if now - since >= self._full_s:
                del self._buckets[who]


class Limits(NamedTuple):
    """How often who may ask. keys: requests of a key; addresses: requests without one; newcomers: registrations without
    one, of an address.
    """

    keys: RateLimiter
    addresses: RateLimiter
    newcomers: RateLimiter

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Limits:
        """Return the limits of a server's settings."""
        what, at_once = "registrations without a key", settings.registration_rate_limit
        return cls(
            RateLimiter(settings.rate_limit, clock),
            RateLimiter(settings.address_rate_limit, clock, policy="address"),
            RateLimiter(at_once, clock, policy="registrations", what=what, at_once=at_once),
        )


class TimeBudget:
    """A token bucket of time: a share of it may be spent, at most BUDGET_BURST_S at once.

    What a batch costs depends on its encoding and on what is wrong with it, so time is what is counted: that of the
    thread, for on a crowded machine batches would pay for what others took of it. It is asked before a batch is looked
    at: the last one may overdraw it.
    """

    def __init__(self, share: float, clock: Clock) -> None:
        self.share = share
        self._clock = clock
        self._left_s = BUDGET_BURST_S
        self._counted = clock.monotonic()

    def wait_s(self) -> float:
        """Return how long until something may be spent, 0 when it may be now."""
        now = self._clock.monotonic()
        self._left_s = min(BUDGET_BURST_S, self._left_s + (now - self._counted) * self.share)
        self._counted = now
        return max(0.0, -self._left_s / self.share)

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Count the time of a block."""
        began = self._clock.worked()
        try:
            yield
        finally:
            self._left_s -= self._clock.worked() - began


def burst(per_minute: int) -> int:
    """Return how many requests a key may send at once."""
    return max(1, per_minute // BURST_SHARE)


class Sighted(NamedTuple):
    """What became of an action taken at sight. rate: None when the key had nothing left of it."""

    rate: Rate | None
    result: Submitted | Problem | LiveError


class Caller(NamedTuple):
    """Who asks. owner: number of the key's owner, None without a key."""

    owner: int | None
    rate: Rate | None


class Admission:
    """Turns requests into inputs of the world, or refuses them. Everything is synchronous and on one thread."""

    def __init__(
        self, recorder: Recorder, limits: Limits, budget: TimeBudget, pace: Pace, turns: Turns, metrics: Metrics
    ) -> None:
        self.limits = limits
        self.budget = budget
        self.turns = turns
        self._pace = pace
        self._recorder = recorder
        self._agents = recorder.registry
        self._receipts = recorder.receipts
        self._metrics = metrics

    def caller(self, headers: Mapping[str, str], address: str, *, counted: bool = True) -> Caller:
        """Return who sent a request, after taking it from the rate of the key, or of the address without one.

        Raises Unauthorized for a key that opens nothing, Problem 429 above the rate.
        """
        key = api_key(headers)
        if key is None:
            return Caller(None, self._taken(self.limits.addresses, network_of(address)) if counted else None)
        key_hash = keys.digest(key)
        owner = self._agents.owner_of_key(key_hash)
        if owner is None:
            raise Unauthorized(Code.KEY_UNKNOWN, "the API key is not one of ours, or it was revoked")
        return Caller(owner, self.take(key_hash) if counted else None)

    def take(self, key_hash: bytes) -> Rate:
        """Use one request of a key. Raises Problem 429 when it has none left."""
        return self._taken(self.limits.keys, key_hash)

    def count_newcomer(self, address: str) -> None:
        """Take a registration without a key from the rate of its address. Raises Problem 429 above it."""
        self._taken(self.limits.newcomers, network_of(address))

    def operator(self, headers: Mapping[str, str]) -> Caller:
        """Return the caller when it is the operator. Raises Unauthorized, Problem 429 above the rate of a key."""
        key = api_key(headers)
        if key is None:
            raise Unauthorized(Code.KEY_MISSING, "the operator's key is needed: Authorization: Bearer ak_...")
        key_hash = keys.digest(key)
        if not self._agents.is_operator(key_hash):
            raise Unauthorized(Code.KEY_UNKNOWN, "the key is not the operator's")
        return Caller(None, self.take(key_hash))

    def at_sight(self, key_hash: bytes, agent: int, body: bytes) -> Sighted | None:
        """Do for a JSON body what caller, own_agent, parse and submit do, if all of it can be seen to be right.

        None: it has to be asked of them, and nothing has happened. A refusal that comes later (a rate, an id used for
        something else, no room) is final.
        """
        owner = self._agents.owner_of_key(key_hash)
        if owner is None:
            return None
        try:
            rate = self.take(key_hash)
        except Problem as problem:
            return Sighted(None, problem.with_traceback(None))
        is_own = self._agents.owner_of_agent(agent) == owner
        action = quick_check(body, agent, self._receipts.tick) if is_own else None
        if action is None:
            self.limits.keys.give_back(key_hash)
            return None
        try:
            return Sighted(rate, self._recorder.take(action))
        except LiveError as error:
            # frames it was raised in lead back, caller by caller, to where it is kept: a cycle for every refusal
            return Sighted(rate, error.with_traceback(None))

    def own_agent(self, owner: int | None, agent_id: Any, *, or_left: bool = False) -> int:
        """Return the number of an agent of this owner. Raises NotFound, also when it is somebody else's.

        or_left: an agent that has left will do as well: what it was promised can still be asked for.
        """
        number = agent_number(agent_id)
        if number is None or owner is None:
            raise unknown_agent(agent_id)
        found = self._agents.owner_of_agent(number)
        if found is None and or_left:
            found = self._agents.owner_of_left_agent(number)
        if found != owner:
            raise unknown_agent(agent_id)
        return number

    def check_present(self, agent: int, client_action_id: str) -> None:
        """See to it that an agent which has left gets no more than a receipt it has. Raises NotFound."""
        if self._agents.get(agent) is None and self._receipts.get(agent, client_action_id) is None:
            raise unknown_agent(f"a{agent}")

    def parse(self, value: Any) -> schemas.Action:
        """Return a decoded body as an action. Raises BadRequest that names every mistake and what is allowed."""
        try:
            return schemas.parse_action(value)
        except ValidationError as error:
            self._metrics.actions.labels(_kind_label(value), "invalid").inc()
            if not isinstance(value, dict):
                raise BadRequest(Code.INVALID, "an action is an object with client_action_id and type") from None
            raise invalid(schemas.mistakes(error)) from None

    def submit(self, agent: int, action: schemas.Action) -> Submitted:
        """Hand an action to the recorder; acknowledge it only when recorder.durable(receipt.seq) has returned.

        Raises NotFound for an agent that has left, BadRequest for a shape that depends on more than one field, and
        what Recorder.take raises.
        """
        self.check_present(agent, action.client_action_id)
        row = self.row(agent, action)
        asked = -1 if action.valid_until_tick is None else action.valid_until_tick
        kind, until = Kind(int(row["kind"][0])), int(row["valid_until"][0])
        return self._recorder.take(Input(kind, action.client_action_id, asked, until, row.tobytes()))

    def row(self, agent: int, action: schemas.Action) -> NDArray[np.void]:
        """Return an action as the world takes it: dtype ACTION, shape (1,), seq not filled."""
        row = to_row(agent, action)
        row["valid_until"] = valid_until(action.valid_until_tick, self._receipts.tick)
        return row

    def check_intake(self) -> None:
        """See to it that a batch may be looked at: refused here it has cost next to nothing. Raises ReadOnly, Full."""
        try:
            self._check_intake()
        except Full:
            self._metrics.batches_refused.inc()
            raise

    async def intake_turn(self) -> None:
        """Return when it is a batch's turn to be looked at, until the caller awaits something. Raises as check_intake.

        Others may have taken the room while it was read and while it waited; whoever waits behind it is not asked for.
        """
        self.check_intake()
        await self.turns.take()
        try:
            self._check_room()
        except Full:
            self._metrics.batches_refused.inc()
            raise

    def refuse_batch(self, key_hash: bytes) -> Sighted | None:
        """Do for a batch what caller and check_intake do, if there is no room for it; None, and nothing, otherwise."""
        if self._agents.owner_of_key(key_hash) is None:
            return None
        try:
            self._check_intake()
        except Full as error:
            return self._sight(key_hash, error.with_traceback(None))
        except LiveError:
            return None
        return None

    def _sight(self, key_hash: bytes, full: Full) -> Sighted:
        try:
            rate = self.take(key_hash)
        except Problem as problem:
            return Sighted(None, problem.with_traceback(None))
        self._metrics.batches_refused.inc()
        return Sighted(rate, full)

    def _check_intake(self) -> None:
        self._check_room()
        if (wait_s := self.turns.excess_s(is_flooded=self._pace.is_flooded)) > 0:
            raise Full(f"as many batches wait as can be looked at in time; try again in {wait_s:.3f} s")

    def _check_room(self) -> None:
        self._recorder.check_room()
        if (wait_s := self.budget.wait_s()) > 0:
            raise Full(f"batches have taken the time there is for them; try again in {wait_s:.3f} s")
        if (wait_s := self._pace.wait_s()) > 0:
            raise Full(f"the tick before was full, this one opens bit by bit; try again in {wait_s:.3f} s")

    def look_at(self, columns: Columns) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
        """Return the actions of a batch as rows (dtype ACTION, seq not filled), and which of them are surely right."""
        rows = np.empty(len(columns.agent), ACTION)
        is_good = np.zeros(len(rows), np.uint8)
        to_rows(columns, prices(), self._receipts.tick, VALIDITY_TICKS, VALIDITY_TICKS_MAX, rows, is_good)
        return rows, is_good.astype(np.bool_)

    def submit_batch(
        self, owner: int | None, rows: NDArray[np.void], columns: Columns, is_right: NDArray[np.bool_]
    ) -> Taken:
        """Hand the right actions of a batch to the recorder; acknowledge them only when recorder.durable returned.

        Of the verdicts REFUSED is that of actions that are not right; UNKNOWN_AGENT that of foreign agents, too.
        """
        agents = np.ascontiguousarray(rows["agent_id"])
        owners = self._agents.owners_of_agents(agents)
        verdicts = np.where(owners == (owner or -1), int(Verdict.ASKED), int(Verdict.UNKNOWN_AGENT)).astype(np.int32)
        for i in np.flatnonzero(owners == 0).tolist():
            if self._agents.owner_of_left_agent(int(agents[i])) == owner:
                verdicts[i] = Verdict.LEFT
        verdicts[~is_right] = Verdict.REFUSED
        return self._recorder.submit_batch(rows, columns.names, columns.valid_until_tick, verdicts)

    def receipt(self, agent: int, client_action_id: str) -> Receipt:
        """Return the receipt under that id. Raises NotFound."""
        receipt = self._receipts.get(agent, client_action_id)
        if receipt is None:
            raise NotFound(
                Code.UNKNOWN_RECEIPT,
                "no receipt under that client_action_id: it was never accepted, or it is no longer kept",
            )
        return receipt

    def _taken(self, limiter: RateLimiter, who: bytes) -> Rate:
        try:
            return limiter.take(who)
        except Problem:
            self._metrics.rate_limited.labels(limiter.policy).inc()
            raise


def network_of(address: str) -> bytes:
    """Return whose requests an address counts for: its own, with IPv6 those of its /64, which one customer has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address.encode("utf-8", "replace")
    return parsed.packed[:8] if parsed.version == 6 and parsed.ipv4_mapped is None else parsed.packed[-4:]


def api_key(headers: Mapping[str, str]) -> str | None:
    """Return the API key of a request, None without one. Raises Unauthorized for credentials of another kind."""
    authorization = headers.get("authorization")
    if authorization is None:
        return headers.get("x-api-key")
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized(Code.KEY_UNKNOWN, "Authorization is 'Bearer ' and an API key")
    return key.strip()


def agent_number(agent_id: Any) -> int | None:
    """Return the number in an agent_id, None for what is none."""
    match = _AGENT_ID.fullmatch(agent_id) if isinstance(agent_id, str) else None
    return None if match is None else int(match[1])


def unknown_agent(agent_id: Any) -> NotFound:
    """Return the answer to an agent_id that is not one of the caller's."""
    return NotFound(
        Code.UNKNOWN_AGENT, f"no agent {str(agent_id)[:40]!r} of yours; agent_id is 'a' and a number, from registering"
    )


def invalid(mistakes: list[dict[str, Any]]) -> BadRequest:
    """Return the answer to a request with these mistakes; the first one is its detail."""
    first = mistakes[0]
    return BadRequest(
        Code.INVALID, f"{first['field']}: {first['problem']}; allowed: {first['allowed']}", errors=mistakes
    )


def to_row(agent: int, action: schemas.Action) -> NDArray[np.void]:
    """Return what an action says as a row of dtype ACTION; seq and valid_until stay 0.

    Raises BadRequest when a price cannot be taken to the ladder.
    """
    row = np.zeros(1, ACTION)
    row["agent_id"], row["kind"], row["market"] = agent, Kind[action.type.upper()], -1
    given = action.model_dump()
    if given.get("market") is not None:
        row["market"] = ID[given["market"]]
    for name in ("quantity", "order_id"):
        if name in given:
            row[name] = int(given[name])
    if "ticks" in given:
        row["quantity"] = given["ticks"]
    if "side" in given:
        row["side"] = _SIDES[given["side"]]
    if "price" in given:
        row["level"] = to_level(given["price"], given["side"])
    if "amount" in given:
        row["amount"] = int(given["amount"] * UCR)
    if "time_in_force" in given:
        row["time_in_force"] = TimeInForce[given["time_in_force"].upper()]
        row["order_until"] = given["expires_tick"] or 0
    if "sentiment" in given:
        row["mood"] = [round(given[name] * Q15_ONE) for name in ("sentiment", "fear", "greed", "confidence")]
    return row


def valid_until(asked: int | None, now: int) -> int:
    """Return the last tick an action may be applied in, counted from the published one. Raises BadRequest."""
    if asked is None:
        return now + VALIDITY_TICKS
    if asked > now + VALIDITY_TICKS_MAX:
        allowed = f"at most {now + VALIDITY_TICKS_MAX}: {VALIDITY_TICKS_MAX} ticks from now ({now})"
        raise invalid([{"field": "valid_until_tick", "problem": "too far away", "allowed": allowed}])
    return asked


def to_level(price: Decimal, side: str | None) -> int:
    """Return the ladder level of a price in credits: a buy's never above it, a sell's never below it.

    Without a side only the ladder's own prices are taken. Raises BadRequest otherwise.
    """
    ucr, table = price * UCR, prices()
    below = level_below(table, int(ucr.to_integral_value(ROUND_FLOOR)))
    if side == "buy":
        return below
    above = level_above(table, int(ucr.to_integral_value(ROUND_CEILING)))
    if side is None and above != below:
        allowed = (
            f"a price of the ladder ({Decimal(int(table[below])) / UCR} or {Decimal(int(table[above])) / UCR}), "
            "or give side, the side of the order"
        )
        raise invalid([{"field": "price", "problem": "is between two prices of the ladder", "allowed": allowed}])
    return above


def _kind_label(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) and kind in schemas.ACTION_MODELS else "unknown"


def _seconds_up(seconds: float) -> int:
    return max(1, -int(-seconds // 1))
