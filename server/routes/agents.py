"""Agents and what they do: registering, reading, acting, leaving.

An answer that says accepted is given only when the record is on disk. Source: DESIGN D22 to D24.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.responses import Response

from engine.messages import Reject
from server import keys, schemas
from server.errors import Problem
from server.live.accounts import AccountReader
from server.live.admission import Admission, api_key, invalid
from server.live.errors import Frozen
from server.live.receipts import Receipt
from server.live.recorder import Recorder, Submitted
from server.live.registry import NO_KEY
from server.live.ticker import Ticker
from server.live.view import Published
from server.routes import PRIVATE, Call, Handler, address_of, json_response

OUTCOME_WAIT_S = 10.0
"""Longest an answer waits for its tick; then the receipt is given as it is."""
UNREGISTER_ID = "~unregister"
"""The name under which leaving is journaled; no client can take it, for it has a character theirs may not have."""
_PASSING = {
    Reject.MARKET_HALTED, Reject.MARKET_CLOSED, Reject.ACTIONS_PER_TICK, Reject.OPEN_ORDERS, Reject.BOOK_FULL,
    Reject.MOOD_PER_TICK, Reject.AGENTS_FULL,
}  # fmt: skip


def handlers(
    admission: Admission, recorder: Recorder, accounts: AccountReader, ticker: Ticker, published: Published
) -> dict[str, Handler]:
    """Return the handlers of agents."""

    async def register(call: Call) -> Response:
        _check_registration(await call.body())
        if call.caller.owner is None:
            admission.count_newcomer(address_of(call.request))
        minted = keys.mint()
        presented = NO_KEY if (key := api_key(call.headers)) is None else keys.digest(key)
        name = call.headers.get("Idempotency-Key")
        made = recorder.register(call.caller.owner, keys.digest(minted), name, presented)
        await recorder.durable(made.seq)
        agent_id = f"a{made.agent}"
        document = {"agent_id": agent_id, "api_key": minted, "seq": made.seq, "tick": published.view.tick}
        return json_response(orjson.dumps(document), 201, {**PRIVATE, "Location": f"/api/agents/{agent_id}"})

    async def agent(call: Call) -> Response:
        number = admission.own_agent(call.caller.owner, call.path["id"])
        async with ticker.settled():
            document = accounts.document(number)
        return json_response(orjson.dumps(document), headers=PRIVATE)

    async def unregister(call: Call) -> Response:
        number = admission.own_agent(call.caller.owner, call.path["id"], or_left=True)
        admission.check_present(number, UNREGISTER_ID)
        submitted = recorder.unregister(number, UNREGISTER_ID)
        await recorder.durable(submitted.receipt.seq)
        if "respond-async" in call.headers.get("Prefer", ""):
            return _receipt(submitted, 202, {"Preference-Applied": "respond-async"})
        await _outcome(ticker, published, [submitted.receipt])
        if submitted.receipt.outcome is None:
            return _receipt(submitted, 202)
        return Response(status_code=204, headers=PRIVATE)

    async def act(call: Call) -> Response:
        is_check = call.query.validate_only == "true"
        number = admission.own_agent(call.caller.owner, call.path["id"], or_left=not is_check)
        action = admission.parse(await call.body())
        if is_check:
            async with ticker.settled():
                verdict = accounts.verdict(admission.row(number, action), action.client_action_id)
            return json_response(orjson.dumps(verdict), headers=PRIVATE)
        submitted = admission.submit(number, action)
        await recorder.durable(submitted.receipt.seq)
        if call.query.wait is None:
            return _receipt(submitted, 202)
        await _outcome(ticker, published, [submitted.receipt])
        outcome = submitted.receipt.outcome
        if outcome is None:
            return _receipt(submitted, 202)
        if outcome["status"] == "rejected":
            raise refusal(submitted)
        return _receipt(submitted, 200)

    async def receipt(call: Call) -> Response:
        number = admission.own_agent(call.caller.owner, call.path["id"], or_left=True)
        found = admission.receipt(number, call.path["client_action_id"])
        # a receipt says accepted, so it may be shown only when that is on disk
        await recorder.durable(found.seq)
        return _receipt(Submitted(found, False), 200)

    return {
        "register": register,
        "agent": agent,
        "unregister": unregister,
        "act": act,
        "receipt": receipt,
    }


def refusal(submitted: Submitted) -> Problem:
    """Return the answer to an action the world refused: its code, what it needed, and the receipt."""
    outcome = submitted.receipt.outcome
    assert outcome is not None
    return world_refusal(outcome, submitted.receipt.document(submitted.duplicate))


def world_refusal(outcome: dict[str, Any], receipt: dict[str, Any]) -> Problem:
    """Return the answer to an action the world refused. outcome, receipt: as they are published."""
    detail = f"{outcome['detail']}: needs {outcome['needed']}, has {outcome['available']}"
    return Problem(
        outcome["code"],
        detail if outcome["needed"] not in (0, "0.000000") else outcome["detail"],
        status=422,
        title="Refused by the world",
        temporary=outcome["code"] in _PASSING,
        headers=PRIVATE,
        extra={"receipt": receipt},
    )


async def _outcome(ticker: Ticker, published: Published, receipts: list[Receipt]) -> None:
    """Return when all receipts have their outcome, or the wait was too long."""
    try:
        async with asyncio.timeout(OUTCOME_WAIT_S):
            while any(receipt.outcome is None for receipt in receipts):
                await ticker.wait_tick(published.view.tick + 1)
    except (TimeoutError, Frozen):
        # accepted and on disk all the same
        return


def _check_registration(value: Any) -> None:
    try:
        schemas.Registration.model_validate(value)
    except ValidationError as error:
        raise invalid(schemas.mistakes(error, schemas.Registration)) from None


def _receipt(submitted: Submitted, status: int, headers: dict[str, str] | None = None) -> Response:
    document = submitted.receipt.document(submitted.duplicate)
    return json_response(orjson.dumps(document), status, PRIVATE | (headers or {}))
