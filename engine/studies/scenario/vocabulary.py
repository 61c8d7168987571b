"""The rules that the keys of a scenario are held to, and the reading of a table by them.

A key is a field of a dataclass with a Rule in its metadata; whatever breaks a rule is named with what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import isfinite
from typing import Any, TypeVar

from engine.errors import ScenarioInvalid
from engine.markets import CONSOL, GOOD_FIRST, GOOD_LAST, ID, LABOUR, NAMES, RAW_FIRST, RAW_LAST, SHARE_FIRST

T = TypeVar("T")

#: Names for several markets at once.
GROUPS: dict[str, tuple[int, ...]] = {
    "shares": tuple(range(SHARE_FIRST, CONSOL)),
    "financial": tuple(range(SHARE_FIRST, CONSOL + 1)),
    "raw": tuple(range(RAW_FIRST, RAW_LAST + 1)),
    "goods": tuple(range(GOOD_FIRST, GOOD_LAST + 1)),
    "assets": (*range(RAW_FIRST, RAW_LAST + 1), *range(SHARE_FIRST, CONSOL + 1)),
    "all": tuple(range(LABOUR + 1, len(NAMES))),
}


@dataclass(frozen=True)
class Rule:
    """What a key means, what it may be, and how a value of a file is read: read raises ValueError when it may not."""

    text: str
    allowed: str
    read: Callable[[Any], Any]


def key(rule: Rule, default: Any = MISSING) -> Any:
    """Return a dataclass field held to a rule; without a default it must be given."""
    if default is MISSING:
        return field(metadata={"rule": rule})
    return field(default=default, metadata={"rule": rule})


def whole(low: int, high: int, text: str) -> Rule:
    """A whole number in [low, high]."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return Rule(text, f"a whole number in [{low}, {high}]", read)


def real(low: float, high: float, text: str) -> Rule:
    """A finite number in [low, high]."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise ValueError
        if not low <= value <= high:
            raise ValueError
        return float(value)

    return Rule(text, f"a number in [{low:g}, {high:g}]", read)


def number(text: str) -> Rule:
    """Any finite number."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise ValueError
        return float(value)

    return Rule(text, "a number", read)


def flag(text: str) -> Rule:
    """True or false."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return Rule(text, "true or false", read)


def word(choices: tuple[str, ...], text: str) -> Rule:
    """One of a few words."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return Rule(text, f"one of {', '.join(choices)}", read)


def sentence(text: str) -> Rule:
    """A text that says something."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return value.strip()

    return Rule(text, "a text", read)


def name(text: str) -> Rule:
    """A word that scripts refer to."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.isidentifier():
            raise ValueError
        return value

    return Rule(text, "a name of letters, digits and _", read)


def market(text: str) -> Rule:
    """One market by name; read as its id."""

    def read(value: Any) -> int:
        if not isinstance(value, str) or value not in ID:
            raise ValueError
        return ID[value]

    return Rule(text, f"one of {', '.join(NAMES)}", read)


def resource(text: str) -> Rule:
    """One resource by name; read as its market id."""
    names = NAMES[RAW_FIRST : RAW_LAST + 1]

    def read(value: Any) -> int:
        if value not in names:
            raise ValueError
        return ID[value]

    return Rule(text, f"one of {', '.join(names)}", read)


def markets(text: str) -> Rule:
    """Markets or groups of them by name, a list or one word; read as ids, each once, in ascending order."""

    def read(value: Any) -> tuple[int, ...]:
        found: set[int] = set()
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str) or (item not in ID and item not in GROUPS):
                raise ValueError
            found.update(GROUPS.get(item, (ID.get(item, LABOUR),)))
        if not found:
            raise ValueError
        return tuple(sorted(found))

    return Rule(text, f"a market, a list of markets, or one of {', '.join(GROUPS)}", read)


def interval(text: str) -> Rule:
    """Two numbers, the lower first."""

    def read(value: Any) -> tuple[float, float]:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError
        low, high = (number("").read(item) for item in value)
        if low > high:
            raise ValueError
        return low, high

    return Rule(text, "two numbers, the lower first", read)


def listed(text: str, allowed: str) -> Rule:
    """A list; what is in it has rules of its own."""

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError
        return value

    return Rule(text, allowed, read)


def table(text: str, allowed: str) -> Rule:
    """A table; what is in it has rules of its own."""

    def read(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError
        return value

    return Rule(text, allowed, read)


def rules_of(shape: type[Any]) -> dict[str, Rule]:
    """Return the rules of a dataclass's keys, in declared order."""
    return {item.name: item.metadata["rule"] for item in fields(shape) if "rule" in item.metadata}


def required(shape: type[Any]) -> set[str]:
    """Return the keys of a dataclass that must be given."""
    return {
        item.name
        for item in fields(shape)
        if "rule" in item.metadata and item.default is MISSING and item.default_factory is MISSING
    }


def build(shape: type[T], given: Any, where: str) -> T:
    """Return a shape made of a table.

    where: what the table is, for the message. Raises ScenarioInvalid for something that is no table, an unknown or
    missing key, and a value that its rule does not allow.
    """
    rules = rules_of(shape)
    if not isinstance(given, Mapping):
        raise ScenarioInvalid(f"{where} must be a table, got {given!r}")
    for found in given:
        if found not in rules:
            raise ScenarioInvalid(f"{where}: unknown key {found!r}; allowed: {', '.join(rules)}")
    for needed in rules:
        if needed in required(shape) and needed not in given:
            raise ScenarioInvalid(f"{where}: {needed} is missing; it must be {rules[needed].allowed}")
    values = {}
    for found, value in given.items():
        try:
            values[found] = rules[found].read(value)
        except ValueError:
            allowed = rules[found].allowed
            raise ScenarioInvalid(f"{where}: {found} must be {allowed}, got {value!r}") from None
    return shape(**values)
