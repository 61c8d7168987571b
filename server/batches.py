"""A batch of actions in any of its encodings as columns of numbers, and each of its items as a plain value.

    objects   {"actions": [{"agent_id": "a1", "type": "limit", ...}, ...]}
    columns   {"columns": {"agent_id": ["a1", ...], "type": ["limit", ...], ...}}, null where an action has none
    binary    the same in msgpack with typed arrays: BINARY says which

Reading is generous: what is not surely a value of its field is marked as unsure and looked at alone, by the models of
schemas. So the fast way only has to be right where it says yes. Source: DESIGN section 3, D2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from engine.columns import AMOUNT_MAX, DIGITS, NAME_SIZE, Columns, to_rows, write_digits
from engine.ladder import LAST_LEVEL, UCR, prices
from engine.markets import ID, NAMES
from engine.messages import ACTION, Kind, TimeInForce
from server import schemas
from server.live.admission import invalid

Objects = list[Any]
Values = Sequence[Any]


class BinaryColumn(NamedTuple):
    """A column of a binary batch. dtype: of its values; absent: stands for no value, None: every action has one."""

    dtype: str
    absent: float | None
    text: str


_NAN = float("nan")
#: All but client_action_id, whose values are as wide as it says.
BINARY = {
    "agent_id": BinaryColumn("<i8", None, "the number in the agent_id"),
    "type": BinaryColumn("u1", None, ", ".join(f"{Kind[name.upper()]:d} {name}" for name in schemas.ACTION_MODELS)),
    "client_action_number": BinaryColumn("<u8", None, "its decimal digits are the client_action_id"),
    "valid_until_tick": BinaryColumn("<i8", -1, "last tick the action may be applied in"),
    "market": BinaryColumn("i1", -1, "number of the market, from 0 in the order of `/api/info`"),
    "side": BinaryColumn("i1", 0, "1 buy, -1 sell"),
    "quantity": BinaryColumn("<i8", 0, "whole lots"),
    "price_ucr": BinaryColumn("<i8", 0, "millionths of a credit a lot; not beside `level`"),
    "level": BinaryColumn("<i4", -1, "level of the ladder, instead of a price: `/api/info` says which price that is"),
    "time_in_force": BinaryColumn("u1", 0, ", ".join(f"{1 + force} {force.name.lower()}" for force in TimeInForce)),
    "expires_tick": BinaryColumn("<i8", -1, "last tick the order takes part in"),
    "order_id": BinaryColumn("<i8", 0, "id of an own order"),
    "amount_ucr": BinaryColumn("<i8", 0, "millionths of a credit"),
    "ticks": BinaryColumn("<i8", -1, "until a dead-man's switch cancels; 0 takes it back"),
    "sentiment": BinaryColumn("<f8", _NAN, "in [0, 1]"),
    "fear": BinaryColumn("<f8", _NAN, "in [0, 1]"),
    "greed": BinaryColumn("<f8", _NAN, "in [0, 1]"),
    "confidence": BinaryColumn("<f8", _NAN, "in [0, 1]"),
}
TYPES = {name: int(Kind[name.upper()]) for name in schemas.ACTION_MODELS}
SIDES = {"buy": 1, "sell": -1}
FORCES = {force.name.lower(): 1 + force for force in TimeInForce}
MOODS = ("sentiment", "fear", "greed", "confidence")
#: Every field an item may have, agent_id included.
FIELDS = tuple(
    dict.fromkeys(["agent_id", *(name for model in schemas.ACTION_MODELS.values() for name in model.model_fields)])
)
_KNOWN = frozenset(FIELDS)
#: What stands for a column that is not there.
_NOTHING = {
    name: np.full(schemas.BATCH_MAX, column.absent, np.dtype(column.dtype).newbyteorder("="))
    for name, column in BINARY.items()
    if column.absent is not None
}
_TYPE_NAMES = {code: name for name, code in TYPES.items()}
_SIDE_NAMES = {code: name for name, code in SIDES.items()}
_FORCE_NAMES = {code: name for name, code in FORCES.items()}
_ABSENT = object()
"""What stands for a field that an item does not have."""
_AGENT_DIGITS = 16


class Batch(Protocol):
    """A batch that was read."""

    @property
    def columns(self) -> Columns:
        """What of it could be read at once."""

    def agent_id(self, i: int) -> Any:
        """Return whose action it says it is."""

    def content(self, i: int) -> dict[str, Any]:
        """Return the action without its agent_id, as it would have been sent alone. Raises Problem."""


class ObjectBatch(NamedTuple):
    """A list of objects."""

    columns: Columns
    items: Objects

    def agent_id(self, i: int) -> Any:
        """Return whose action it says it is. Raises Problem when it is no object."""
        if not isinstance(self.items[i], dict):
            raise invalid([{"field": "actions", "problem": "an item is no object", "allowed": "objects with agent_id"}])
        return self.items[i].get("agent_id")

    def content(self, i: int) -> dict[str, Any]:
        """Return the action without its agent_id."""
        return {name: value for name, value in self.items[i].items() if name != "agent_id"}


class ColumnBatch(NamedTuple):
    """A list for each field."""

    columns: Columns
    lists: Mapping[str, Values]

    def agent_id(self, i: int) -> Any:
        """Return whose action it says it is."""
        return self.lists["agent_id"][i] if "agent_id" in self.lists else None

    def content(self, i: int) -> dict[str, Any]:
        """Return the action without its agent_id: what is not null."""
        found = {name: values[i] for name, values in self.lists.items() if name != "agent_id"}
        return {name: value for name, value in found.items() if value is not None}


class BinaryBatch(NamedTuple):
    """A typed array for each field."""

    columns: Columns

    def agent_id(self, i: int) -> Any:
        """Return whose action it says it is."""
        return f"a{self.columns.agent[i]}"

    def content(self, i: int) -> dict[str, Any]:
        """Return the action as it is written in JSON. Raises Problem for a level that the ladder has not."""
        one = self.columns
        found: dict[str, Any] = {
            "type": _TYPE_NAMES.get(int(one.kind[i]), int(one.kind[i])),
            "client_action_id": bytes(one.names[i]).rstrip(b"\0").decode("latin-1"),
        }
        if one.level[i] != -1:
            found["price"] = _price_of(int(one.level[i]))
        market, side, force = int(one.market[i]), int(one.side[i]), int(one.time_in_force[i])
        # what stands for no value is the same for all kinds
        given = {
            "valid_until_tick": (int(one.valid_until_tick[i]), -1),
            "market": (NAMES[market] if 0 <= market < len(NAMES) else market, -1),
            "side": (_SIDE_NAMES.get(side, side), 0),
            "quantity": (int(one.quantity[i]), 0),
            "time_in_force": (_FORCE_NAMES.get(force, force), 0),
            "expires_tick": (int(one.expires_tick[i]), -1),
            "ticks": (int(one.ticks[i]), -1),
            "order_id": (str(one.order_id[i]), "0"),
        }
        found |= {name: value for name, (value, absent) in given.items() if value != absent}
        for name, amount in (("price", one.price_below[i]), ("amount", one.amount[i])):
            if amount != 0:
                found[name] = Decimal(int(amount)).scaleb(-6)
        return found | {name: float(mood) for name, mood in zip(MOODS, one.mood[i], strict=True) if mood == mood}


def read(value: Any) -> Batch:
    """Return a batch from a decoded body. Raises BadRequest when it is none as a whole."""
    if isinstance(value, dict) and "columns" in value:
        columns = _validated(schemas.BatchColumns, value).columns
        if all(isinstance(column, bytes) for column in columns.values()):
            return _binary(columns)
        return _lists(columns)
    items = _validated(schemas.Batch, value).actions
    return ObjectBatch(_from_objects(items), items)


def _validated(model: Any, value: Any) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(schemas.mistakes(error, model)) from None


# --- objects and lists -------------------------------------------------------------------------------------------
def _from_objects(items: Objects) -> Columns:
    plain = [item if type(item) is dict else {} for item in items]
    # a field that no item has costs nothing
    names = _KNOWN.intersection(set().union(*plain))
    columns = _Reader({name: [item.get(name, _ABSENT) for item in plain] for name in names}, len(items)).columns()
    # fields that nobody knows are for the models to name
    columns.unsure[[not item or not item.keys() <= _KNOWN for item in plain]] = 1
    return columns


def _lists(columns: Mapping[str, Any]) -> ColumnBatch:
    for name, values in columns.items():
        if name not in _KNOWN:
            raise invalid([_column_mistake(name, "unknown column", "columns: " + ", ".join(FIELDS))])
        if not isinstance(values, list):
            raise invalid([_column_mistake(name, "is no list", "a list, one value or null for each action")])
    count = _count({name: len(values) for name, values in columns.items()})
    given = {name: [_ABSENT if value is None else value for value in values] for name, values in columns.items()}
    return ColumnBatch(_Reader(given, count).columns(), columns)


def _count(lengths: Mapping[str, int]) -> int:
    """Return how many actions columns of these lengths hold. Raises BadRequest when they differ, or are too many."""
    count = next(iter(lengths.values()), 0)
    if not 1 <= count <= schemas.BATCH_MAX:
        raise invalid([_column_mistake("", f"{count} actions", f"1 to {schemas.BATCH_MAX} actions")])
    for name, length in lengths.items():
        if length != count:
            allowed = f"as many values as {next(iter(lengths))} has ({count})"
            raise invalid([_column_mistake(name, f"has {length} values", allowed)])
    return count


def _column_mistake(name: str, problem: str, allowed: str) -> dict[str, Any]:
    return {"field": f"columns.{name[:40]}" if name else "columns", "problem": problem, "allowed": allowed}


class _Reader:
    """Lists of plain values, one a field that is there, become arrays; what is not surely a value is marked."""

    def __init__(self, values: Mapping[str, Values], count: int) -> None:
        self._values = values
        self._count = count
        self._unsure = np.zeros(count, np.uint8)

    def columns(self) -> Columns:
        """Return them."""
        below, above = self._prices()
        amount, _ = self._money("amount", AMOUNT_MAX)
        return Columns(
            agent=self._numbers("agent_id", _agent, 0),
            kind=self._codes("type", TYPES, 0, np.uint8),
            market=self._codes("market", ID, -1, np.int8),
            side=self._codes("side", SIDES, 0, np.int8),
            time_in_force=self._codes("time_in_force", FORCES, 0, np.uint8),
            quantity=self._numbers("quantity", _positive, 0),
            price_below=below,
            price_above=above,
            level=np.full(self._count, -1, np.int32),
            amount=amount,
            order_id=self._numbers("order_id", _order_id, 0),
            expires_tick=self._numbers("expires_tick", _tick, -1),
            valid_until_tick=self._numbers("valid_until_tick", _tick, -1),
            ticks=self._numbers("ticks", _tick, -1),
            mood=_moods([self._mood(name) for name in MOODS]),
            names=self._names(),
            unsure=self._unsure,
        )

    def _codes(self, name: str, codes: Mapping[str, int], absent: int, dtype: Any) -> NDArray[Any]:
        """Read one of a few texts."""
        if (values := self._values.get(name)) is None:
            return np.full(self._count, absent, dtype)
        found = [
            codes.get(value, _UNSURE) if type(value) is str else absent if value is _ABSENT else _UNSURE
            for value in values
        ]
        return self._sure(np.array(found, np.int64), absent).astype(dtype)

    def _numbers(self, name: str, read: Callable[[Any], int], absent: int) -> NDArray[np.int64]:
        """Read whole numbers; read gives _UNSURE for what is none."""
        if (values := self._values.get(name)) is None:
            return np.full(self._count, absent)
        found = [absent if value is _ABSENT else read(value) for value in values]
        return self._sure(np.array(found, np.int64), absent)

    def _prices(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._money("price", int(prices()[-1]))

    def _money(self, name: str, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read amounts in credits as ucr, rounded down and up; above 0 and at most `most`."""
        if (values := self._values.get(name)) is None:
            return np.zeros(self._count, np.int64), np.zeros(self._count, np.int64)
        pairs = [_NO_MONEY if value is _ABSENT else _ucr(value) for value in values]
        both = np.array(pairs, np.int64).reshape(self._count, 2)
        is_unsure = (both[:, 0] == _UNSURE) | (both[:, 1] > most)
        self._unsure[is_unsure] = 1
        both[is_unsure] = 0
        if name == "amount":
            # a loan has no fraction of a ucr
            self._unsure[both[:, 0] != both[:, 1]] = 1
        return both[:, 0].copy(), both[:, 1].copy()

    def _mood(self, name: str) -> NDArray[np.float64]:
        if (values := self._values.get(name)) is None:
            return np.full(self._count, float("nan"))
        found = [float("nan") if value is _ABSENT else _share(value) for value in values]
        column = np.array(found, np.float64)
        self._unsure[column < 0] = 1
        return column

    def _names(self) -> NDArray[np.uint8]:
        names = [
            value if type(value) is str and value.isascii() and len(value) <= NAME_SIZE and "\0" not in value else ""
            for value in self._values.get("client_action_id", [""] * self._count)
        ]
        width = max(1, *map(len, names))
        return np.array(names, f"S{width}").view(np.uint8).reshape(self._count, width)

    def _sure(self, column: NDArray[np.int64], absent: int) -> NDArray[np.int64]:
        is_unsure = column == _UNSURE
        self._unsure[is_unsure] = 1
        column[is_unsure] = absent
        return column


_UNSURE = -(1 << 62)
_NO_MONEY = (0, 0)
_CREDITS_MAX = 10_000_000_000
_NOT_SURE = (_UNSURE, _UNSURE)


def _agent(value: Any) -> int:
    if type(value) is not str or value[:1] != "a" or len(value) > 1 + _AGENT_DIGITS:
        return _UNSURE
    return _digits(value[1:])


def _order_id(value: Any) -> int:
    return _digits(value) if type(value) is str and len(value) <= _AGENT_DIGITS else _UNSURE


def _digits(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and text[0] != "0" else _UNSURE


def _positive(value: Any) -> int:
    return value if type(value) is int and value > 0 else _UNSURE


def _tick(value: Any) -> int:
    return value if type(value) is int and value >= 0 else _UNSURE


def _share(value: Any) -> float:
    """Return a number in [0, 1], -1 for anything else."""
    return float(value) if type(value) in (int, float, Decimal) and 0 <= value <= 1 else -1.0


def _ucr(value: Any) -> tuple[int, int]:
    """Return credits, above 0, as ucr rounded down and up."""
    if type(value) is str:
        whole, point, fraction = value.partition(".")
        is_plain = whole.isdecimal() and value.isascii() and len(whole) <= 10 and (whole[0] != "0" or len(whole) == 1)
        if not is_plain or (point and not (fraction.isdecimal() and len(fraction) <= 18)):
            return _NOT_SURE
        ucr = int(whole) * UCR + int(fraction[:6].ljust(6, "0") or 0)
        below, above = ucr, ucr + (fraction[6:].strip("0") != "")
    elif type(value) is int and value < _CREDITS_MAX:
        below = above = value * UCR
    elif type(value) is Decimal and value.is_finite() and -20 <= value.adjusted() <= 10:
        below, above = _rounded(value)
    else:
        return _NOT_SURE
    return (below, above) if above > 0 else _NOT_SURE


def _rounded(value: Decimal) -> tuple[int, int]:
    numerator, denominator = value.as_integer_ratio()
    below = numerator * UCR // denominator
    return below, below + (below * denominator != numerator * UCR)


# --- binary ------------------------------------------------------------------------------------------------------
def _binary(given: Mapping[str, bytes]) -> BinaryBatch:
    count = _count({"type": len(given.get("type", b""))})
    columns: dict[str, NDArray[Any]] = {}
    for name, data in given.items():
        if name == "client_action_id":
            columns[name] = _fixed_names(data, count)
            continue
        if name not in BINARY:
            raise invalid([_column_mistake(name, "unknown column", f"columns: client_action_id, {', '.join(BINARY)}")])
        dtype = np.dtype(BINARY[name].dtype)
        if len(data) != count * dtype.itemsize:
            allowed = f"{dtype.itemsize} bytes for each of {count} actions, as type has"
            raise invalid([_column_mistake(name, f"has {len(data)} bytes", allowed)])
        # copied: what is read-only is of another type to the compiler
        columns[name] = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
    for names in (("agent_id",), ("client_action_id", "client_action_number"), ("price_ucr", "level")):
        _check_choice(columns, names, is_needed=names[0] != "price_ucr")

    def column(name: str) -> NDArray[Any]:
        return columns[name] if name in columns else _NOTHING[name][:count]

    return BinaryBatch(
        Columns(
            agent=column("agent_id"),
            kind=column("type"),
            market=column("market"),
            side=column("side"),
            time_in_force=column("time_in_force"),
            quantity=column("quantity"),
            price_below=column("price_ucr"),
            price_above=column("price_ucr"),
            level=column("level"),
            amount=column("amount_ucr"),
            order_id=column("order_id"),
            expires_tick=column("expires_tick"),
            valid_until_tick=column("valid_until_tick"),
            ticks=column("ticks"),
            mood=_moods([column(name) for name in MOODS]),
            names=columns["client_action_id"] if "client_action_id" in columns else _number_names(columns),
            unsure=np.zeros(count, np.uint8),
        )
    )


def _check_choice(columns: Mapping[str, Any], names: tuple[str, ...], *, is_needed: bool) -> None:
    found = [name for name in names if name in columns]
    if len(found) > 1 or (is_needed and not found):
        problem = "both are there" if found else "missing"
        raise invalid([_column_mistake(names[0], problem, " or ".join(names) + (", one of them" if found else ""))])


def _fixed_names(data: bytes, count: int) -> NDArray[np.uint8]:
    width, rest = divmod(len(data), count)
    if rest or not 1 <= width <= NAME_SIZE:
        allowed = f"1 to {NAME_SIZE} bytes for each of {count} actions, the same for all, filled up with zero bytes"
        raise invalid([_column_mistake("client_action_id", f"has {len(data)} bytes", allowed)])
    return np.frombuffer(data, np.uint8).reshape(count, width).copy()


def _moods(columns: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return four columns side by side."""
    both = np.empty((len(columns[0]), len(columns)))
    for k, column in enumerate(columns):
        both[:, k] = column
    return both


def _number_names(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    numbers = columns["client_action_number"]
    names = np.zeros((len(numbers), DIGITS), np.uint8)
    write_digits(numbers, names)
    return names


def warm() -> None:
    """Load or compile the kernels that a batch needs."""
    columns = {"agent_id": "<i8", "type": "u1", "client_action_number": "<u8"}
    batch = _binary({name: np.ones(1, dtype).tobytes() for name, dtype in columns.items()})
    to_rows(batch.columns, prices(), 0, 1, 1, np.empty(1, ACTION), np.empty(1, np.uint8))


def _price_of(level: int) -> Decimal:
    """Return the price of a level. Raises BadRequest when the ladder has no such level."""
    if not 0 <= level <= LAST_LEVEL:
        allowed = f"a level of the ladder, 0 to {LAST_LEVEL}, or -1 for no price"
        raise invalid([{"field": "level", "problem": "is no level", "allowed": allowed}])
    return Decimal(int(prices()[level])).scaleb(-6)
