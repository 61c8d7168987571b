"""A batch of actions as typed arrays, and what became of them: to bytes and back, no I/O.

A column is one value for each action, or a single value for all of them: a list, a tuple, an array of the standard
library, or an array of numpy, which is not needed and not imported. See docs/protocol.md for the bytes.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgpack

from arena_client.errors import ProblemError, problem

__all__ = ["BatchOutcome", "count_of", "decode_answer", "encode_columns"]

UCR: Final = 1_000_000
"""Millionths of a credit in a credit: the unit of money in a column."""
TYPES: Final = {
    "limit": 1, "market": 2, "cancel": 3, "replace": 4, "borrow": 5, "repay": 6, "produce": 7, "consume": 8,
    "set_sentiment": 9, "cancel_all": 12, "cancel_after": 13,
}  # fmt: skip
SIDES: Final = {"buy": 1, "sell": -1}
FORCES: Final = {"gtc": 1, "ioc": 2, "gtt": 3}
STATUS: Final = (None, "filled", "resting", "partial", "rejected", "cancelled", "expired", "done")
#: Type code of each column as in the module array: the same letters mean the same to struct and numpy.
CODES: Final = {
    "agent_id": "q", "type": "B", "client_action_number": "Q", "valid_until_tick": "q", "market": "b", "side": "b",
    "quantity": "q", "price_ucr": "q", "level": "i", "time_in_force": "B", "expires_tick": "q", "order_id": "q",
    "amount_ucr": "q", "ticks": "q", "sentiment": "d", "fear": "d", "greed": "d", "confidence": "d",
}  # fmt: skip
_ANSWER: Final = {"status": "H", "code": "H", "seq": "q", "duplicate": "B", "outcome": "B"}
_ID_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of a batch, one entry an action in every array.

    status: the HTTP status the action would have had alone. code: why it was refused, 0. seq: of its receipt, 0.
    duplicate: 1 for actions accepted before. errors: what was wrong, each with the places of the actions. outcomes,
    when the answer has waited: outcome (STATUS names it), outcome_tick, order_id, filled, open, price_ucr, value_ucr,
    needed, available. A numpy user wraps an array without copying: numpy.asarray(outcome.seq).
    """

    tick: int
    accepted: int
    refused: int
    status: array[int]
    code: array[int]
    seq: array[int]
    duplicate: array[int]
    outcomes: Mapping[str, array[int]]
    errors: Sequence[tuple[Sequence[int], ProblemError]] = field(default_factory=list)


def encode_columns(columns: Mapping[str, Any]) -> bytes:
    """Return the body of a batch. columns: by name; `price` and `amount` are credits, what ends in _ucr is not.

    agent_id may be 'a17' or 17, type, side and time_in_force names or numbers, market a number, client_action_id texts.
    Raises ValueError for a column that is none, a value that does not fit it, or columns of several lengths.
    """
    count = count_of(columns)
    packed = dict(_encoded(name, column, count) for name, column in columns.items() if column is not None)
    body: bytes = msgpack.packb({"columns": packed})
    return body


def count_of(columns: Mapping[str, Any]) -> int:
    """Return how many actions columns are of. Raises ValueError when that cannot be told."""
    lengths = {len(column) for column in columns.values() if _is_column(column)}
    if len(lengths) != 1:
        raise ValueError(
            f"columns have one value for each action, or one for all of them; got lengths {sorted(lengths)}"
        )
    return lengths.pop()


def decode_answer(body: bytes) -> BatchOutcome:
    """Return the answer to a batch in columns. Raises ValueError for anything else."""
    document = msgpack.unpackb(body)
    if not isinstance(document, dict) or not isinstance(document.get("columns"), dict):
        raise ValueError("not the answer to a batch in columns")
    found = {name: _array(_ANSWER.get(name, "q"), data) for name, data in document["columns"].items()}
    return BatchOutcome(
        tick=document["tick"],
        accepted=document["accepted"],
        refused=document["refused"],
        status=found.pop("status"),
        code=found.pop("code"),
        seq=found.pop("seq"),
        duplicate=found.pop("duplicate"),
        outcomes=found,
        errors=[(error["indexes"], problem(error["status"], error)) for error in document["errors"]],
    )


def _encoded(name: str, column: Any, count: int) -> tuple[str, bytes]:
    is_array = hasattr(column, "dtype") and hasattr(column, "astype")
    if name == "client_action_id":
        if is_array and column.dtype.kind == "S":
            return name, column.tobytes()
        return name, _names(_values(column, count))
    if name in ("price", "amount"):
        return f"{name}_ucr", _packed("q", [_ucr(value) for value in _values(column, count)])
    if name not in CODES:
        known = ", ".join(["client_action_id", "price", "amount", *CODES])
        raise ValueError(f"{name} is no column; columns are {known}")
    code = CODES[name]
    if is_array:
        allowed = "iuf" if code == "d" else "iu"
        if column.dtype.kind in allowed and len(column) == count:
            return name, column.astype(f"<{code}").tobytes()
    convert = _CONVERT.get(name, _as_it_is)
    try:
        return name, _packed(code, [convert(value) for value in _values(column, count)])
    except (TypeError, OverflowError, KeyError) as error:
        raise ValueError(f"{name}: a value does not fit the column ({error})") from error


def _values(column: Any, count: int) -> list[Any]:
    return list(column) if _is_column(column) else [column] * count


def _is_column(column: Any) -> bool:
    return not isinstance(column, str | bytes) and hasattr(column, "__len__")


def _packed(code: str, values: list[Any]) -> bytes:
    made = array(code, values)
    if sys.byteorder == "big":
        made.byteswap()
    return made.tobytes()


def _array(code: str, data: bytes) -> array[int]:
    made: array[int] = array(code)
    made.frombytes(data)
    if sys.byteorder == "big":
        made.byteswap()
    return made


def _names(names: list[Any]) -> bytes:
    encoded = [name.encode("ascii", "replace") for name in names]
    width = max(map(len, encoded))
    if width > _ID_SIZE:
        raise ValueError(f"a client_action_id has at most {_ID_SIZE} characters")
    return b"".join(name.ljust(width, b"\0") for name in encoded)


def _ucr(credits: Any) -> int:
    """Return credits as ucr, exactly; a float with the six decimals that money has."""
    exact = Decimal(f"{credits:.6f}" if isinstance(credits, float) else credits) * UCR
    if exact != int(exact):
        raise ValueError(f"{credits} credits have more than six decimals")
    return int(exact)


def _agent(agent_id: Any) -> int:
    return int(agent_id.removeprefix("a")) if isinstance(agent_id, str) else agent_id


def _as_it_is(value: Any) -> Any:
    return value


_CONVERT: Final[Mapping[str, Callable[[Any], Any]]] = {
    "agent_id": _agent,
    "type": lambda value: TYPES[value] if isinstance(value, str) else value,
    "side": lambda value: SIDES[value] if isinstance(value, str) else value,
    "time_in_force": lambda value: FORCES[value] if isinstance(value, str) else value,
    "order_id": int,
}
