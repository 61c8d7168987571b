"""What an operator may do to a world while it runs, as bytes and as values: shape it, hold it, let it go on.

A command belongs to tick n if its record precedes mark n. Those that shape the world (SHAPING) take effect when the
tick begins, in the order of their records, before its actions and phases; the others change nothing in it.
Source: DESIGN D8, section 3; ECONOMY A12.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from engine.config import Config, checked
from engine.errors import SettingError
from engine.markets import ID, NAMES, RAW_FIRST, RESOURCES
from engine.phases.emission import CATASTROPHE_STRUCK, NATURAL, POLITICAL, RESOURCE_DISCOVERED
from engine.tick import Strike

FIXED = frozenset({"residents", "max_agents", "order_book_max"})
"""Settings that no running world can change: the arrays have these sizes."""
CHANGEABLE = tuple(item.name for item in fields(Config) if item.name not in FIXED)
"""Settings that may change at any tick."""
RESOURCE_NAMES = NAMES[RAW_FIRST : RAW_FIRST + RESOURCES]
EVENT_NAMES = (RESOURCE_DISCOVERED, CATASTROPHE_STRUCK)
KINDS = (NATURAL, POLITICAL)
STEP_TICKS_MAX = 1_000


class SetParameter(NamedTuple):
    """A setting of CHANGEABLE takes a value."""

    name: str
    value: float | int | bool


class InjectEvent(NamedTuple):
    """A discovery or catastrophe happens. size, kind: as inject_event takes them; kind is of catastrophes only."""

    name: str
    resource: str
    size: float
    kind: str = NATURAL


class Pause(NamedTuple):
    """No tick begins until Resume, but for those of Step."""


class Resume(NamedTuple):
    """Ticks begin again."""


class Step(NamedTuple):
    """So many ticks happen while the world is paused."""

    ticks: int


Command = SetParameter | InjectEvent | Pause | Resume | Step
SHAPING = (SetParameter, InjectEvent)
_KINDS: dict[str, type[Command]] = {
    "set": SetParameter, "event": InjectEvent, "pause": Pause, "resume": Resume, "step": Step,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}


def check_command(command: Command) -> Command:
    """Return a command with its values as their kinds. Raises SettingError that says what is allowed."""
    match command:
        case SetParameter(name, value):
            if name not in CHANGEABLE:
                raise SettingError("name", name, f"one of {', '.join(CHANGEABLE)}")
            bounds = {item.name: item.metadata for item in fields(Config)}
            return SetParameter(name, checked(name, value, bounds[name]))
        case InjectEvent(name, resource, size, kind):
            _one_of("name", name, EVENT_NAMES)
            _one_of("resource", resource, RESOURCE_NAMES)
            _one_of("kind", kind, KINDS)
            return InjectEvent(name, resource, _size(size), kind)
        case Step(ticks):
            bound = {"kind": int, "low": 1, "high": STEP_TICKS_MAX}
            return Step(checked("ticks", ticks, bound))
        case _:
            return command


def encode_command(command: Command) -> bytes:
    """Return the payload of a COMMAND record: canonical JSON."""
    values = {"command": _NAMES[type(command)], **command._asdict()}
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def decode_command(payload: bytes | memoryview) -> Command:
    """Return what encode_command was given. Raises ValueError when it is something else."""
    try:
        values = json.loads(bytes(payload))
        return check_command(_KINDS[values.pop("command")](**values))
    except (TypeError, KeyError, AttributeError, SettingError) as error:
        raise ValueError(f"not a command: {error}") from error


def configured(config: Config, commands: Sequence[Command]) -> Config:
    """Return a config with the parameters that commands set."""
    values: dict[str, Any] = {one.name: one.value for one in commands if isinstance(one, SetParameter)}
    return replace(config, **values) if values else config


def strikes(commands: Sequence[Command]) -> list[Strike]:
    """Return the events that commands inject."""
    return [Strike(one.name, ID[one.resource], one.size, one.kind) for one in commands if isinstance(one, InjectEvent)]


def describe(command: Command) -> str:
    """Return a command in words."""
    match command:
        case SetParameter(name, value):
            return f"set {name} to {value}"
        case InjectEvent(name, resource, size, kind):
            what = f"{name} of {resource}, size {size:g}"
            return f"inject {what}, {kind}" if name == CATASTROPHE_STRUCK else f"inject {what}"
        case Step(ticks):
            return f"step {ticks} ticks"
        case Pause():
            return "pause"
        case Resume():
            return "resume"


def _one_of(field: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SettingError(field, value, f"one of {', '.join(allowed)}")


def _size(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value <= 1.0:
        raise SettingError("size", value, "a number in (0, 1]: of the base reserves found, or of the reserves lost")
    return float(value)
