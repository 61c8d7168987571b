"""A batch of actions in any of its encodings: looked at in one go, one record, an answer in the same encoding.

    room? -> body -> columns -> rows that are surely right | the others one by one -> recorder -> disk -> answer

Whether there is room is asked before a byte of the body is looked at. Source: DESIGN D2, D19, D22 to D24.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response

from engine.messages import Status
from engine.receipt_table import RECEIPT, Verdict
from server import batches, bodies
from server.batches import Batch, BinaryBatch, ObjectBatch
from server.errors import Problem
from server.live.accounts import AccountReader
from server.live.admission import Admission, unknown_agent
from server.live.errors import Frozen, IdReused, ReceiptDamaged, ReceiptsFull
from server.live.receipts import Entry, Ints, Rows, entry_of, outcome_document, outcome_of
from server.live.recorder import Recorder, Taken
from server.live.ticker import Ticker
from server.live.view import Published
from server.routes import PRIVATE, Call, Handler, json_response, problem_of
from server.routes.agents import OUTCOME_WAIT_S, world_refusal

SLICE = 16
"""Actions that are looked at one by one before others get their turn: a millisecond."""
CHECKED_SLICE = 4
"""The same for actions that are held against the published state."""
_STATUS = {
    Verdict.ACCEPTED: 202, Verdict.DUPLICATE: 202, Verdict.CONFLICT: 409, Verdict.UNKNOWN_AGENT: 404,
}  # fmt: skip
_OUTCOME_NAMES = [None, *(Status(number).name.lower() for number in range(1, len(Status) + 1))]


@dataclass
class Results:
    """What became of the actions of a batch, by their places.

    problems: why an action was not taken. seqs, is_duplicate: of the receipts of the others. rows: these receipts
    (dtype RECEIPT), of the actions at `known`. verdicts: what the published state would let pass, when that was asked.
    """

    batch: Batch
    problems: dict[int, Problem] = field(default_factory=dict)
    verdicts: dict[int, dict[str, Any]] = field(default_factory=dict)
    seqs: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    is_duplicate: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    known: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: Rows | None = None
    is_waiting: bool = False

    @property
    def size(self) -> int:
        """How many actions there are."""
        return len(self.batch.columns.agent)


def handlers(
    admission: Admission, recorder: Recorder, accounts: AccountReader, ticker: Ticker, published: Published
) -> dict[str, Handler]:
    """Return the handler of batches."""
    budget = admission.budget

    async def act_batch(call: Call) -> Response:
        admission.check_intake()
        data = await call.read()
        await admission.intake_turn()
        with budget.spent():
            batch = batches.read(call.decode(data))
        results = Results(batch, is_waiting=call.query.wait is not None)
        if call.query.validate_only == "true":
            await check(batch, call.caller.owner, results)
        else:
            await act(batch, call.caller.owner, results)
        is_decided = call.query.validate_only == "true" or results.is_waiting
        with budget.spent():
            return _answer(results, published.view.tick, 200 if is_decided else 202)

    async def check(batch: Batch, owner: int | None, results: Results) -> None:
        """Hold each action against the published state."""
        for first in range(0, results.size, CHECKED_SLICE):
            await asyncio.sleep(0)
            async with ticker.settled():
                with budget.spent():
                    for i in range(first, min(first + CHECKED_SLICE, results.size)):
                        check_one(batch, owner, i, results)

    def check_one(batch: Batch, owner: int | None, i: int, results: Results) -> None:
        try:
            number = admission.own_agent(owner, batch.agent_id(i))
            action = admission.parse(batch.content(i))
            results.verdicts[i] = accounts.verdict(admission.row(number, action), action.client_action_id)
        except Problem as problem:
            results.problems[i] = problem

    async def act(batch: Batch, owner: int | None, results: Results) -> None:
        """Take what can be taken, and wait until it is on disk, or decided."""
        with budget.spent():
            rows, is_right = admission.look_at(batch.columns)
        others = np.flatnonzero(~is_right).tolist()
        for first in range(0, len(others), SLICE):
            await asyncio.sleep(0)
            with budget.spent():
                for i in others[first : first + SLICE]:
                    is_right[i] = act_one(batch, owner, i, rows, results)
        with budget.spent():
            taken = admission.submit_batch(owner, rows, batch.columns, is_right)
            _explain(taken, batch, results)
            results.seqs = taken.admitted.seqs
            results.is_duplicate = taken.admitted.verdicts == Verdict.DUPLICATE
        if taken.last:
            await recorder.durable(taken.last)
        # columns say no more than that it was accepted, unless they wait
        if results.is_waiting or isinstance(batch, ObjectBatch):
            with budget.spent():
                look_up(taken, results)
        if results.is_waiting:
            await wait(taken, results)

    def act_one(batch: Batch, owner: int | None, i: int, rows: Rows, results: Results) -> bool:
        """Look at one action alone; return whether it is right after all, and its row is then written."""
        try:
            number = admission.own_agent(owner, batch.agent_id(i), or_left=True)
            rows[i : i + 1] = admission.row(number, admission.parse(batch.content(i)))
        except Problem as problem:
            results.problems[i] = problem
            return False
        return True

    async def wait(taken: Taken, results: Results) -> None:
        """Return when all that was taken is decided, or the wait was too long."""
        try:
            async with asyncio.timeout(OUTCOME_WAIT_S):
                while results.rows is not None and not results.rows["status"].all():
                    await ticker.wait_tick(published.view.tick + 1)
                    with budget.spent():
                        look_up(taken, results)
        except (TimeoutError, Frozen):
            # accepted and on disk all the same
            return

    def look_up(taken: Taken, results: Results) -> None:
        """Take in the receipts as they stand now."""
        places = np.flatnonzero(results.is_duplicate | (taken.admitted.verdicts == Verdict.ACCEPTED))
        try:
            at, results.rows = recorder.receipts.rows(taken.keys[places])
        except ReceiptDamaged:
            # what was accepted stays accepted, whatever the disk does afterwards
            at, results.rows = np.zeros(0, np.int64), np.zeros(0, RECEIPT)
        results.known = places[at]

    return {"act_batch": act_batch}


def _explain(taken: Taken, batch: Batch, results: Results) -> None:
    """Say of each action that was not taken why."""
    verdicts, problems = taken.admitted.verdicts, results.problems
    # one for all: a flood of a thousand refusals is a thousand times the same
    full = problem_of(taken.full) if taken.full is not None else None
    receipts_full = problem_of(ReceiptsFull("as many receipts are kept as may be"))
    for i in np.flatnonzero(verdicts > Verdict.DUPLICATE).tolist():
        match verdicts[i]:
            case Verdict.CONFLICT:
                name = batch.content(i)["client_action_id"]
                problems[i] = problem_of(IdReused(name, int(taken.admitted.seqs[i])))
            case Verdict.FULL:
                assert full is not None
                problems[i] = full
            case Verdict.RECEIPTS_FULL:
                problems[i] = receipts_full
            case Verdict.UNKNOWN_AGENT:
                problems[i] = unknown_agent(batch.agent_id(i))


def _answer(results: Results, tick: int, status: int) -> Response:
    refused = len(results.problems)
    head = {"tick": tick, "accepted": results.size - refused, "refused": refused}
    if isinstance(results.batch, ObjectBatch):
        return json_response(orjson.dumps(head | {"results": _objects(results)}), status, PRIVATE)
    columns = _columns(results)
    if isinstance(results.batch, BinaryBatch):
        packed = {name: column.astype(column.dtype.newbyteorder("<")).tobytes() for name, column in columns.items()}
        body = bodies.pack(head | {"columns": packed, "errors": _errors(results)})
        return Response(body, status, PRIVATE, bodies.MSGPACK)
    lists = {name: _LISTS.get(name, _plain)(column) for name, column in columns.items()}
    return json_response(orjson.dumps(head | {"columns": lists, "errors": _errors(results)}), status, PRIVATE)


# --- objects -----------------------------------------------------------------------------------------------------
def _objects(results: Results) -> list[dict[str, Any]]:
    rows = results.rows
    known = {} if rows is None else {i: entry_of(rows, k) for k, i in enumerate(results.known.tolist())}
    return [_object(i, results, known.get(i)) for i in range(results.size)]


def _object(i: int, results: Results, entry: Entry | None) -> dict[str, Any]:
    problem = results.problems.get(i)
    if problem is None and len(results.seqs):
        outcome = outcome_document(outcome_of(entry)) if entry is not None and entry.status else None
        receipt = {
            "client_action_id": results.batch.content(i)["client_action_id"],
            "status": "accepted",
            "seq": int(results.seqs[i]),
            "tick": entry.tick if entry is not None and outcome else None,
            "duplicate": bool(results.is_duplicate[i]),
            "outcome": outcome,
        }
        if not (results.is_waiting and outcome is not None and outcome["status"] == "rejected"):
            status = 200 if results.is_waiting and outcome is not None else 202
            return {"index": i, "status": status, "receipt": receipt}
        problem = world_refusal(outcome, receipt)
    if problem is not None:
        return {"index": i, "status": problem.status, "error": problem.members()}
    return {"index": i, "status": 200, "verdict": results.verdicts[i]}


# --- columns -----------------------------------------------------------------------------------------------------
def _columns(results: Results) -> dict[str, NDArray[Any]]:
    """Return what became of the actions, a column a field; money in ucr."""
    size = results.size
    status, code = np.full(size, 202, np.uint16), np.zeros(size, np.uint16)
    seq, duplicate = np.zeros(size, np.int64), np.zeros(size, np.uint8)
    if len(results.seqs):
        seq[:], duplicate[:] = results.seqs, results.is_duplicate
    for i, problem in results.problems.items():
        status[i], code[i], seq[i] = problem.status, problem.code, 0
    for i, verdict in results.verdicts.items():
        status[i], code[i] = 200, verdict["code"]
    columns: dict[str, NDArray[Any]] = {"status": status, "code": code, "seq": seq, "duplicate": duplicate}
    if results.is_waiting and results.rows is not None:
        columns |= _outcomes(results, status, code)
    return columns


def _outcomes(results: Results, status: NDArray[np.uint16], code: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    """Return the columns of outcomes; those that are decided get their status and code."""
    rows, known, size = results.rows, results.known, results.size
    assert rows is not None
    is_decided, is_refused = rows["status"] != 0, rows["status"] == Status.REJECTED
    status[known[is_decided]] = 200
    status[known[is_refused]], code[known[is_refused]] = 422, rows["code"][is_refused]
    columns: dict[str, NDArray[Any]] = {"outcome": np.zeros(size, np.uint8)}
    columns["outcome"][known] = rows["status"]
    is_coded = rows["code"] != 0
    values = {
        "outcome_tick": rows["tick"],
        "order_id": rows["order_id"],
        "filled": rows["filled"],
        "open": rows["open"],
        "price_ucr": np.where(is_coded, 0, rows["price"]),
        "value_ucr": np.where(is_coded, 0, rows["value"]),
        "needed": np.where(is_coded, rows["value"], 0),
        "available": np.where(is_coded, rows["price"], 0),
    }
    for name, value in values.items():
        columns[name] = np.zeros(size, np.int64)
        columns[name][known] = value
    return columns


def _errors(results: Results) -> list[dict[str, Any]]:
    """Return the problems, each with the places of the actions it is of."""
    places: dict[int, list[int]] = {}
    for i, problem in results.problems.items():
        places.setdefault(id(problem), []).append(i)
    problems = {id(problem): problem for problem in results.problems.values()}
    return [{"indexes": sorted(indexes), **problems[one].members()} for one, indexes in places.items()]


def _plain(column: NDArray[Any]) -> list[Any]:
    values: list[Any] = column.tolist()
    return values


_LISTS: dict[str, Callable[[NDArray[Any]], list[Any]]] = {
    "duplicate": lambda column: _plain(column.astype(np.bool_)),
    "outcome": lambda column: [_OUTCOME_NAMES[status] for status in _plain(column)],
}
