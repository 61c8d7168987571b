"""A file of interventions (TOML) and options of the command line into what the engine's fork takes.

Everything is checked before a tick is run: an unknown key, agent, setting or market, a tick outside the fork, an
action the door would refuse. The error says where, what was given and what is allowed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from engine.commands import CHANGEABLE, EVENT_NAMES, KINDS, RESOURCE_NAMES
from engine.config import Config, checked
from engine.errors import SettingError
from engine.fork import ADDED_AGENTS, Addition, Change, Injection, Interventions
from engine.markets import ID
from engine.messages import ACTION, Kind
from engine.phases.emission import CATASTROPHE_STRUCK, NATURAL, RESOURCE_DISCOVERED
from server import schemas
from server.errors import BadRequest
from server.live.admission import agent_number, to_row
from server.live.receipts import VALIDITY_TICKS

TABLES = ("without_agents", "without_commands", "set", "event", "agent", "action")
SET_KEYS = ("at", "name", "value", "until")
EVENT_KEYS = ("at", "name", "resource", "size", "kind")
AGENT_KEYS = ("name", "at")
ADDITIONS_MAX = 1_000_000
"""Actions that a file may add, repetitions counted."""

Document = dict[str, Any]


def read_file(path: Path) -> Document:
    """Return the tables of a file of interventions. Raises SettingError for what is not TOML, OSError."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(str(path), str(error), "a file in TOML") from error


def build(
    document: Mapping[str, Any], config: Config, known_agents: Collection[int], first_tick: int, last_tick: int
) -> Interventions:
    """Return the interventions of a document (a file's tables, without_agents of the command line among them).

    config: of the recorded world. known_agents: numbers registered at the fork or later in the record. first_tick,
    last_tick: those the fork runs. Raises SettingError that says where, what, and what is allowed.
    """
    for key in document:
        _one_of("the file's key", key, TABLES)
    reader = _Reader(config, frozenset(known_agents), first_tick, last_tick)
    without = _list("without_agents", document.get("without_agents", []), "a list of agent ids such as 'a17'")
    reader.without = frozenset(reader.recorded_agent("without_agents", one) for one in without)
    without_commands = document.get("without_commands", False)
    if not isinstance(without_commands, bool):
        raise SettingError("without_commands", without_commands, "true or false")
    changes = [change for place, table in _tables(document, "set") for change in reader.changes(place, table)]
    injections = [reader.injection(place, table) for place, table in _tables(document, "event")]
    # agents first: an action may come in the tick its agent registers in
    additions = [reader.registration(place, table) for place, table in _tables(document, "agent")]
    for place, table in _tables(document, "action"):
        reader.add_actions(place, table, additions)
    return Interventions(
        without=reader.without,
        without_commands=without_commands,
        changes=tuple(changes),
        injections=tuple(injections),
        additions=tuple(additions),
    )


class _Reader:
    """Turns tables into interventions, remembering the agents and orders that the file names."""

    def __init__(self, config: Config, known: frozenset[int], first_tick: int, last_tick: int) -> None:
        self._config = config
        self._known = known
        self._first = first_tick
        self._last = last_tick
        self._new: dict[str, tuple[int, int]] = {}
        """Number and first tick of each new agent, by its name in the file."""
        self._orders: dict[tuple[int, str], int] = {}
        """Place of the addition that places an order, by agent and client_action_id."""
        self._ids: set[tuple[int, str]] = set()
        self.without: frozenset[int] = frozenset()

    def recorded_agent(self, place: str, value: Any) -> int:
        number = agent_number(value)
        if number is None or number not in self._known:
            raise SettingError(place, value, _agents(self._known))
        return number

    def changes(self, place: str, table: Document) -> list[Change]:
        _keys(place, table, SET_KEYS, needed=("at", "name", "value"))
        name = _one_of(f"{place}: name", table["name"], CHANGEABLE)
        bounds = {item.name: item.metadata for item in fields(Config)}[name]
        at = self._tick(f"{place}: at", table["at"])
        try:
            value = checked(name, _plain(table["value"]), bounds)
        except SettingError as error:
            raise SettingError(f"{place}: value of {name}", error.value, error.allowed) from None
        found = [Change(at, name, value)]
        if "until" in table:
            # the first tick that has the recorded value again
            until = self._tick(f"{place}: until", table["until"], after=at)
            found.append(Change(until, name, getattr(self._config, name)))
        return found

    def injection(self, place: str, table: Document) -> Injection:
        _keys(place, table, EVENT_KEYS, needed=("at", "name", "resource", "size"))
        name = _one_of(f"{place}: name", table["name"], EVENT_NAMES)
        resource = _one_of(f"{place}: resource", table["resource"], RESOURCE_NAMES)
        size = _plain(table["size"])
        if isinstance(size, bool) or not isinstance(size, (int, float)) or not 0.0 < size <= 1.0:
            raise SettingError(f"{place}: size", size, "a number in (0, 1]: of the base found, or of the reserves lost")
        kind = NATURAL
        if "kind" in table:
            if name == RESOURCE_DISCOVERED:
                raise SettingError(f"{place}: kind", table["kind"], f"left out: only {CATASTROPHE_STRUCK} has one")
            kind = _one_of(f"{place}: kind", table["kind"], KINDS)
        return Injection(self._tick(f"{place}: at", table["at"]), name, ID[resource], float(size), kind)

    def registration(self, place: str, table: Document) -> Addition:
        _keys(place, table, AGENT_KEYS, needed=AGENT_KEYS)
        name, at = table["name"], self._tick(f"{place}: at", table["at"])
        if not isinstance(name, str) or not name or agent_number(name) is not None or name in self._new:
            raise SettingError(f"{place}: name", name, "a text of its own that is not an agent id such as 'a17'")
        number = ADDED_AGENTS + len(self._new)
        self._new[name] = (number, at)
        return Addition(at, _row(number, Kind.REGISTER))

    def add_actions(self, place: str, table: Document, additions: list[Addition]) -> None:
        given = dict(table)
        for key in ("at", "agent", "type"):
            if key not in given:
                raise SettingError(place, sorted(given), f"a table with {key}")
        ours: Document = {key: given.pop(key) for key in ("at", "agent", "every", "until") if key in given}
        at = self._tick(f"{place}: at", ours["at"])
        agent = self._actor(place, ours["agent"], at)
        ticks = self._repeated(place, ours, at)
        if len(additions) + len(ticks) > ADDITIONS_MAX:
            raise SettingError(place, f"{len(ticks)} repetitions", f"at most {ADDITIONS_MAX} added actions in all")
        row = self._action(place, given, agent, len(additions), repeated=len(ticks) > 1)
        for tick in ticks:
            dated = row.copy()
            dated["valid_until"] = row["valid_until"] or tick + VALIDITY_TICKS
            additions.append(Addition(tick, dated))

    def _actor(self, place: str, value: Any, at: int) -> int:
        if isinstance(value, str) and value in self._new:
            number, since = self._new[value]
            if at < since:
                raise SettingError(f"{place}: at", at, f"{since} or later: {value!r} registers at tick {since}")
            return number
        number = agent_number(value) or 0
        if number in self.without:
            raise SettingError(f"{place}: agent", value, "an agent that is not left out")
        if number not in self._known:
            raise SettingError(f"{place}: agent", value, _agents(self._known, tuple(self._new)))
        return number

    def _repeated(self, place: str, ours: Document, at: int) -> Sequence[int]:
        if "every" not in ours:
            if "until" in ours:
                raise SettingError(f"{place}: until", ours["until"], "left out, or given with every")
            return [at]
        every = ours["every"]
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise SettingError(f"{place}: every", every, "a whole number of ticks, 1 or more")
        until = self._tick(f"{place}: until", ours["until"], after=at - 1) if "until" in ours else self._last
        return range(at, until + 1, every)

    def _action(self, place: str, given: Document, agent: int, index: int, *, repeated: bool) -> NDArray[np.void]:
        """Return an action's row, valid_until 0 unless it was given."""
        if given["type"] == "unregister":
            _keys(place, given, ("type",), needed=())
            return _row(agent, Kind.UNREGISTER)
        name = given.setdefault("client_action_id", f"fork-{index}")
        placed_by = self._orders.get((agent, str(given.get("order_id"))))
        if placed_by is not None:
            given["order_id"] = "1"  # in the shape of an order id; replaced below
        row = _shaped(place, given, agent)
        if (agent, name) in self._ids:
            raise SettingError(f"{place}: client_action_id", name, "one that this agent has not used in the file")
        self._ids.add((agent, name))
        if placed_by is not None:
            row["order_id"] = -1 - placed_by
        if row["kind"] == Kind.LIMIT and not repeated:
            self._orders[agent, name] = index
        row["valid_until"] = given.get("valid_until_tick") or 0
        return row

    def _tick(self, place: str, value: Any, after: int | None = None) -> int:
        first = self._first if after is None else after + 1
        if isinstance(value, bool) or not isinstance(value, int) or not first <= value <= self._last:
            allowed = (
                f"a tick from {first} to {self._last}" if first <= self._last else "left out: the fork ends before"
            )
            raise SettingError(place, value, allowed)
        return value


def _shaped(place: str, given: Document, agent: int) -> NDArray[np.void]:
    """Return what the API would have made of an action. Raises SettingError for what it would have refused."""
    try:
        return to_row(agent, schemas.parse_action(given))
    except ValidationError as error:
        mistake = schemas.mistakes(error)[0]
    except BadRequest as error:
        mistake = dict(error.errors[0])
    value = given.get(mistake["field"].split(".")[0], "nothing")
    allowed = mistake["allowed"].removeprefix("type is ")
    if allowed.startswith("fields: "):
        allowed = f"one of the {allowed}"
    raise SettingError(f"{place}: {mistake['field']} ({mistake['problem']})", _plain(value), allowed)


def _row(agent: int, kind: Kind) -> NDArray[np.void]:
    row = np.zeros(1, ACTION)
    row["agent_id"], row["kind"], row["market"] = agent, kind, -1
    return row


def _tables(document: Mapping[str, Any], name: str) -> list[tuple[str, Document]]:
    """Return the tables of a kind with what to call them in an error."""
    tables = _list(name, document.get(name, []), f"tables that begin with [[{name}]]")
    for table in tables:
        if not isinstance(table, dict):
            raise SettingError(name, table, f"tables that begin with [[{name}]]")
    return [(f"[[{name}]] number {number}", table) for number, table in enumerate(tables, 1)]


def _list(name: str, value: Any, allowed: str) -> list[Any]:
    if not isinstance(value, list):
        raise SettingError(name, value, allowed)
    return value


def _keys(place: str, table: Document, allowed: Sequence[str], *, needed: Sequence[str]) -> None:
    for key in table:
        _one_of(f"{place}: a key", key, allowed)
    for key in needed:
        if key not in table:
            raise SettingError(place, ", ".join(table) or "nothing", f"a table with {key}")


def _one_of(place: str, value: Any, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise SettingError(place, _plain(value), f"one of {', '.join(allowed)}")
    return value


def _agents(known: Collection[int], named: Sequence[str] = ()) -> str:
    """Return in words which agents there are: the first ten are enough to see the form."""
    ids = [*named, *(f"a{number}" for number in sorted(known))]
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return f"one of {', '.join(ids[:10])}{more}" if ids else "left out: nobody registered up to the end of the record"


def _plain(value: Any) -> Any:
    """Return a number of the file as Python's own kind, as errors and settings want it."""
    return float(value) if isinstance(value, Decimal) else value


def as_json(value: Any) -> Any:
    """Return a document of interventions in JSON's types, numbers with a fraction as text: exact."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return str(value) if not isinstance(value, (str, int, float, bool)) and value is not None else value
