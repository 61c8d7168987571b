"""The forms a batch may have, chosen by whoever sends it: objects, lists, typed arrays; and what their answers say."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import orjson
from arena_client.columns import CODES, decode_answer, encode_columns

from engine.markets import ID

JSON, MSGPACK = b"application/json", b"application/msgpack"
_NOTHING = {"market": -1, "side": 0, "quantity": 0, "price": 0, "amount": 0}


class Form(Enum):
    """How a batch is written."""

    OBJECTS = "objects"
    LISTS = "lists"
    ARRAYS = "arrays"


class Result(NamedTuple):
    """What became of one action. receipt: the whole one, where the form has it."""

    status: int
    seq: int | None
    duplicate: bool
    receipt: dict[str, Any] | None


def written(form: Form, actions: list[dict[str, Any]]) -> tuple[bytes, bytes]:
    """Return content type and body of a batch. actions: each with its agent_id."""
    if form is Form.OBJECTS:
        return JSON, orjson.dumps({"actions": actions})
    names = dict.fromkeys(name for action in actions for name in action)
    columns = {name: [action.get(name) for action in actions] for name in names}
    if form is Form.LISTS:
        return JSON, orjson.dumps({"columns": columns})
    return MSGPACK, encode_columns({name: _numbers(name, values) for name, values in columns.items()})


def results(form: Form, body: bytes) -> list[Result]:
    """Return what an answer says of each action."""
    if form is Form.OBJECTS:
        return [_of_object(result) for result in orjson.loads(body)["results"]]
    if form is Form.LISTS:
        columns = orjson.loads(body)["columns"]
        rows = zip(columns["status"], columns["seq"], columns["duplicate"], strict=True)
    else:
        outcome = decode_answer(body)
        rows = zip(outcome.status, outcome.seq, outcome.duplicate, strict=True)
    return [Result(status, seq or None, bool(duplicate), None) for status, seq, duplicate in rows]


def _of_object(result: dict[str, Any]) -> Result:
    receipt = result.get("receipt")
    if receipt is None:
        return Result(result["status"], None, False, None)
    return Result(result["status"], receipt["seq"], receipt["duplicate"], receipt)


def _numbers(name: str, values: list[Any]) -> list[Any]:
    """Return a column with what stands for no value in its place, markets as numbers."""
    if name == "market":
        values = [None if value is None else ID[value] for value in values]
    nothing = float("nan") if CODES.get(name) == "d" else _NOTHING.get(name)
    return [nothing if value is None else value for value in values]
