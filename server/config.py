"""The one door for settings: file, environment and command line, read once, the later over the earlier.

Every option has one name in three spellings: max_agents (maxAgents, as document 004 writes it) in a file,
ARENA_MAX_AGENTS in the environment, --max-agents on the command line. `python3 -m server.config` prints
docs/configuration.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from engine.config import Config, checked
from engine.errors import SettingError

#: Document 004's options in its order and spelling, by our names.
DOCUMENT_NAMES = {
    "max_agents": "maxAgents",
    "tick_rate": "tickRate",
    "market_open_hours": "marketOpenHours",
    "base_inflation_rate": "baseInflationRate",
    "volatility_threshold": "volatilityThreshold",
    "max_price_change": "maxPriceChange",
    "cache_expiry": "cacheExpiry",
    "rate_limit": "rateLimit",
    "history_limit": "historyLimit",
    "sentiment_weight": "sentimentWeight",
    "fear_weight": "fearWeight",
    "greed_weight": "greedWeight",
    "herding_threshold": "herdingThreshold",
    "depletion_rate": "depletionRate",
    "discovery_probability": "discoveryProbability",
    "catastrophe_probability": "catastropheProbability",
}
#: Variables the source documents name, and the setting each one stands for; ARENA_... wins over them.
DOCUMENT_VARIABLES = {"API_HOST": "host", "API_PORT": "port"}
#: Variables with our prefix that are no settings of the server.
OTHER_VARIABLES = {
    "ARENA_CONFIG": "path of the settings file, as --config",
    "ARENA_NO_BOOTSTRAP": "1: never make an environment, use this Python as it is",
    "ARENA_TEST_TIMEOUT_FACTOR": "tests only: every deadline times this number",
    "ARENA_URL": "clients only: address of the server",
    "ARENA_API_KEY": "clients only: key of an agent",
}
EXAMPLES = """\
examples:
  arena serve                                    100,000 residents on http://127.0.0.1:8000
  arena serve --port 9000 --data my-world        another port, another world
  arena serve --residents 20000 --seed 7         a small world anyone can repeat (its future can be predicted)
  arena serve --config arena.toml --log json     settings from a file, logs for machines
  ARENA_GATEWAY_SECRET=... arena serve --redis redis://127.0.0.1:6379/0
                                                 for gateways, which know the secret too
"""
GATEWAY_EXAMPLES = """\
examples (ARENA_GATEWAY_SECRET is set, to the same as for the engine):
  arena gateway --redis redis://127.0.0.1:6379/0 --engine 127.0.0.1:8000
                                                 beside the engine, on http://127.0.0.1:8010
  arena gateway --host 0.0.0.0 --port 80 --redis redis://:password@10.0.0.5/0 --engine 10.0.0.6:8000
                                                 on a machine of its own
"""
SECRET_MIN = 16
"""Characters of the secret that gateways and their engine share."""
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


def _whole(low: int, high: int, text: str) -> Any:
    return {"kind": int, "low": low, "high": high, "text": text}


def _choice(choices: tuple[str, ...], text: str) -> Any:
    return {"kind": str, "choices": choices, "text": text}


def _host() -> Any:
    return field(default="127.0.0.1", metadata={"kind": str, "text": "address to listen on"})


def _port(default: int) -> Any:
    return field(default=default, metadata=_whole(0, 65_535, "port to listen on, 0: any free one"))


def _log() -> Any:
    return field(default="console", metadata=_choice(("console", "json"), "log lines for people or for machines"))


def _log_level() -> Any:
    levels = ("debug", "info", "warning", "error")
    return field(default="info", metadata=_choice(levels, "least level that is logged"))


def _redis(default: str | None, text: str) -> Any:
    bound = {"kind": str, "optional": default is None, "redis": True, "text": text}
    return field(default=default, repr=False, metadata=bound)


def _gateway_secret() -> Any:
    return field(
        default=None,
        repr=False,
        metadata={
            "kind": str,
            "optional": True,
            "secret": True,
            "text": f"what gateways show the engine, at least {SECRET_MIN} characters; better in the environment than "
            "as a flag",
        },
    )


def _sockets_max() -> Any:
    text = "WebSocket connections and streams of server-sent events at a time"
    return field(default=20_000, metadata=_whole(1, 1_000_000, text))


def _sockets_per_key_max() -> Any:
    return field(default=5, metadata=_whole(1, 1_000_000, "of these, those that have shown the same key"))


def _sockets_per_address_max() -> Any:
    text = "of these, those of one address (an IPv6 one with its /64) that have shown no key"
    return field(default=50, metadata=_whole(1, 1_000_000, text))


def _client_frames_per_s() -> Any:
    text = "frames of any kind, pings too, that a client may send on one WebSocket; four times as many at once"
    return field(default=50, metadata=_whole(1, 1_000_000, text))


def _outbox_frames_max() -> Any:
    text = "frames that may wait for one subscriber before it is conflated"
    return field(default=64, metadata=_whole(2, 10_000, text))


def _resume_frames() -> Any:
    text = "frames kept a channel for subscribers that come back"
    return field(default=300, metadata=_whole(1, 100_000, text))


def _heartbeat_s() -> Any:
    text = "seconds without data after which a heartbeat is sent"
    return field(default=15.0, metadata={"kind": float, "low": 0.1, "high": 300.0, "text": text})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one server runs with; `engine` is the part that is the world's identity.

    Raises SettingError for a value of the wrong kind or out of its bounds (both ends included).
    Source: DESIGN section 3 (Configuration); specification 004, configuration options.
    """

    host: str = _host()
    port: int = _port(8000)
    operator: bool = field(
        default=True, metadata={"kind": bool, "text": "whether the operator's surface is served, on 127.0.0.1 only"}
    )
    operator_port: int = field(
        default=0, metadata=_whole(0, 65_535, "its port, 0: the one after `port`; any free one when that is 0 too")
    )
    data: Path = field(
        default=Path("arena-data"), metadata={"kind": Path, "text": "folder of the world: journal, warm state, history"}
    )
    log: str = _log()
    log_level: str = _log_level()
    seed: int | None = field(
        default=None,
        repr=False,
        metadata={
            "kind": int,
            "low": 0,
            "high": (1 << 256) - 1,
            "optional": True,
            "secret": True,
            "text": "seed of a new world, for tests: whoever knows it can predict the world",
        },
    )
    tick_rate: int = field(default=100, metadata=_whole(10, 60_000, "loop period, ms a tick"))
    cache_expiry: int = field(
        default=5_000, metadata=_whole(0, 3_600_000, "how long a computed answer may be reused, ms")
    )
    rate_limit: int = field(default=1_000, metadata=_whole(1, 10_000_000, "requests a minute and key"))
    address_rate_limit: int = field(
        default=300, metadata=_whole(1, 10_000_000, "requests without a key, a minute and address")
    )
    registration_rate_limit: int = field(
        default=5, metadata=_whole(1, 10_000_000, "registrations without a key, a minute and address")
    )
    history_limit: int = field(
        default=1_000, metadata=_whole(10, 100_000, "points of each series kept hot, about 10 KB each")
    )
    history_files: bool = field(
        default=True,
        metadata={"kind": bool, "text": "history in files, which a restart finds again; false: in memory only"},
    )
    history_days: int = field(
        default=3_600,
        metadata=_whole(30, 1_000_000, "days of 24 ticks of which it is kept what each series did, 22 KB each"),
    )
    history_months: int = field(
        default=3_600,
        metadata=_whole(1, 1_000_000, "months of 720 ticks of which it is kept what each series did, 22 KB each"),
    )
    archive_days: int = field(
        default=7, metadata=_whole(0, 36_500, "days of the calendar a file of the archive is kept, 0: no archive")
    )
    archive_megabytes: int = field(
        default=1_000, metadata=_whole(1, 1_000_000_000, "size of all files of the archive; the oldest go first")
    )
    threads: int = field(default=1, metadata=_whole(1, 64, "threads the tick's kernels are cut for"))
    queue_actions_max: int = field(
        default=65_536, metadata=_whole(16, 4_194_304, "actions that may wait for the next tick")
    )
    intake_share: float = field(
        default=0.5,
        metadata={
            "kind": float,
            "low": 0.01,
            "high": 1.0,
            "text": "share of the time in which batches of actions may be looked at; more are refused (429)",
        },
    )
    receipts_max: int = field(
        default=100_000_000,
        metadata=_whole(
            1_000, 4_000_000_000, "receipts kept: each takes 107 bytes of disk and 3 of memory once it cannot change"
        ),
    )
    sockets_max: int = _sockets_max()
    sockets_per_key_max: int = _sockets_per_key_max()
    sockets_per_address_max: int = _sockets_per_address_max()
    client_frames_per_s: int = _client_frames_per_s()
    outbox_frames_max: int = _outbox_frames_max()
    resume_frames: int = _resume_frames()
    snapshot_ticks: int = field(
        default=600, metadata=_whole(0, 10_000_000, "ticks between two snapshots of the world; 0: none are taken")
    )
    heartbeat_s: float = _heartbeat_s()
    redis: str | None = _redis(None, "address of a Redis or Valkey for gateways; none: no gateways")
    gateway_secret: str | None = _gateway_secret()
    engine: Config = field(default_factory=Config, metadata={"kind": Config})

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name != "engine":
                object.__setattr__(self, item.name, _checked(item.name, getattr(self, item.name), item.metadata))
        if self.redis is not None:
            _need_secret(self.gateway_secret)

    def value(self, name: str) -> Any:
        """Return a setting by its name, the world's own included."""
        return getattr(self.engine if name in _ENGINE else self, name)

    def describe(self) -> dict[str, int | float | bool | str | None]:
        """Return every setting by name, printable, without secrets: of those it is only said whether they are given."""
        return {option.name: _printable(self.value(option.name), option.bound) for option in OPTIONS}


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """What one gateway runs with; everything about the world comes from its engine.

    Raises SettingError for a value of the wrong kind or out of its bounds, and without the secret.
    Source: DESIGN D10.
    """

    host: str = _host()
    port: int = _port(8010)
    engine: str = field(
        default="127.0.0.1:8000",
        metadata={"kind": str, "address": True, "text": "address of the engine: HOST:PORT or http://HOST:PORT"},
    )
    redis: str = _redis("redis://127.0.0.1:6379/0", "address of the engine's Redis or Valkey")
    gateway_secret: str | None = _gateway_secret()
    log: str = _log()
    log_level: str = _log_level()
    engine_connections: int = field(
        default=256, metadata=_whole(1, 10_000, "connections to the engine at a time, each with one request")
    )
    sockets_max: int = _sockets_max()
    sockets_per_key_max: int = _sockets_per_key_max()
    sockets_per_address_max: int = _sockets_per_address_max()
    client_frames_per_s: int = _client_frames_per_s()
    outbox_frames_max: int = _outbox_frames_max()
    resume_frames: int = _resume_frames()
    heartbeat_s: float = _heartbeat_s()

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item.name, getattr(self, item.name), item.metadata))
        _need_secret(self.gateway_secret)

    @property
    def engine_address(self) -> tuple[str, int]:
        """Host and port of the engine."""
        return _address(self.engine)

    def describe(self) -> dict[str, int | float | bool | str | None]:
        """Return every setting by name, printable, without secrets."""
        return {option.name: _printable(getattr(self, option.name), option.bound) for option in GATEWAY_OPTIONS}


class Option(NamedTuple):
    """One setting: its name, default and bounds."""

    name: str
    default: Any
    bound: Mapping[str, Any]

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        kind = self.bound["kind"]
        if kind is bool:
            return "true or false"
        if "choices" in self.bound:
            return " or ".join(self.bound["choices"])
        if kind in (int, float):
            noun = "a whole number" if kind is int else "a number"
            return f"{noun} in [{_number(self.bound['low'])}, {_number(self.bound['high'])}]"
        return _allowed_text(self.bound)

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"ARENA_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"


def _options(settings: type[Any], but: tuple[str, ...] = ("engine",)) -> list[Option]:
    return [Option(item.name, item.default, item.metadata) for item in fields(settings) if item.name not in but]


_ENGINE = {option.name for option in _options(Config)}
OPTIONS: tuple[Option, ...] = (*_options(Config), *_options(Settings))
GATEWAY_OPTIONS: tuple[Option, ...] = tuple(_options(GatewaySettings, but=()))
_BY_NAME = {option.name: option for option in OPTIONS}
_GATEWAY_BY_NAME = {option.name: option for option in GATEWAY_OPTIONS}


def load(argv: Sequence[str], environ: Mapping[str, str], prog: str = "arena serve") -> Settings:
    """Return the settings of a file (--config or ARENA_CONFIG), the environment and argv, the later over the earlier.

    argv: the arguments after the command. Raises SettingError naming an unknown or wrong setting, its value and
    what is allowed; OSError when the file cannot be read. Exits like argparse for --help and unknown flags.
    """
    given = _given(parser(prog), argv, environ, _BY_NAME)
    engine = {name: value for name, value in given.items() if name in _ENGINE}
    rest = {name: value for name, value in given.items() if name not in _ENGINE}
    return Settings(engine=Config(**engine), **rest)


def load_gateway(argv: Sequence[str], environ: Mapping[str, str]) -> GatewaySettings:
    """Return the settings of a gateway, read and refused as those of `load`.

    Variables of the environment that are settings of the engine are passed over: both may run in one.
    """
    return GatewaySettings(**_given(gateway_parser(), argv, environ, _GATEWAY_BY_NAME))


def _given(
    reader: argparse.ArgumentParser, argv: Sequence[str], environ: Mapping[str, str], known: Mapping[str, Option]
) -> dict[str, Any]:
    flags = vars(reader.parse_args(argv))
    path = flags.pop("config") or environ.get("ARENA_CONFIG")
    given = _from_file(Path(path), known) if path else {}
    given |= _from_environment(environ, known)
    return given | {name: _parsed(known[name], text) for name, text in flags.items() if text is not None}


def gateway_parser() -> argparse.ArgumentParser:
    """Return the parser of a gateway's flags."""
    made = argparse.ArgumentParser(
        prog="arena gateway",
        description="Serve WebSockets and reads for an engine that runs elsewhere, and hand inputs on to it.",
        epilog=GATEWAY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--config", metavar="FILE", help="settings file, .toml or .json")
    _add_flags(made, GATEWAY_OPTIONS)
    return made


def parser(prog: str = "arena serve") -> argparse.ArgumentParser:
    """Return the parser of the flags: one per option, and --config."""
    made = argparse.ArgumentParser(
        prog=prog,
        description="Run a living economy: REST and WebSockets on one port. File < environment < flag.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--config", metavar="FILE", help="settings file, .toml or .json")
    for title, options in (("server", _options(Settings)), ("world", _options(Config))):
        _add_flags(made.add_argument_group(title), options)
    return made


def _add_flags(group: argparse._ActionsContainer, options: Sequence[Option]) -> None:
    for option in options:
        text = f"{option.bound['text']}; {option.allowed}".replace("%", "%%")
        default = "" if option.default is None else f" (default {_printable(option.default, option.bound)})"
        group.add_argument(option.flag, dest=option.name, metavar=_metavar(option), help=text + default)


def _from_file(path: Path, known: Mapping[str, Option]) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    try:
        read = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise SettingError("config", str(path), f"a readable .toml or .json file ({error})") from error
    if not isinstance(read, dict):
        raise SettingError("config", str(path), "a file with one object of settings")
    found: dict[str, Any] = {}
    ours = {spelt: name for name, spelt in DOCUMENT_NAMES.items()}
    for key, value in read.items():
        name = ours.get(key, key)
        if name not in known:
            raise _unknown(key, value, [*known, *ours])
        if name in found:
            raise SettingError(key, value, f"given once (the file also has {name} under its other spelling)")
        found[name] = value
    return found


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Option]) -> dict[str, Any]:
    every = {option.variable for option in (*OPTIONS, *GATEWAY_OPTIONS)}
    for variable in environ:
        if variable.startswith("ARENA_") and variable not in every and variable not in OTHER_VARIABLES:
            raise _unknown(variable, environ[variable], [*sorted(every), *OTHER_VARIABLES])
    # our own names come last: they win over the documents'
    named = DOCUMENT_VARIABLES | {option.variable: option.name for option in known.values()}
    return {name: _parsed(known[name], environ[variable]) for variable, name in named.items() if variable in environ}


def _unknown(name: str, value: object, known: list[str]) -> SettingError:
    near = get_close_matches(name, known, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return SettingError(name, value, f"a known setting{hint}, see docs/configuration.md")


def _parsed(option: Option, text: str) -> Any:
    """Return the value a text of environment or command line stands for; checks of range come with Settings."""
    kind = option.bound["kind"]
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise SettingError(option.name, text, option.allowed) from None
    return text


def _checked(name: str, value: Any, bound: Mapping[str, Any]) -> Any:
    kind = bound["kind"]
    if value is None and bound.get("optional"):
        return None
    if kind in (int, float, bool):
        return checked(name, value, bound)
    if not isinstance(value, (str, kind)) or not _fits(str(value), bound):
        # what is nearly a secret is one as well
        is_private = bound.get("secret") or bound.get("redis")
        raise SettingError(name, "what was given" if is_private else value, _allowed_text(bound))
    return kind(value)


def _fits(text: str, bound: Mapping[str, Any]) -> bool:
    if "choices" in bound:
        return text in bound["choices"]
    if bound.get("secret"):
        return len(text) >= SECRET_MIN and text.isascii() and text.isprintable() and " " not in text
    if bound.get("redis"):
        return text.startswith(REDIS_SCHEMES)
    if bound.get("address"):
        return _address(text)[1] > 0
    return bool(text.strip())


def _allowed_text(bound: Mapping[str, Any]) -> str:
    if "choices" in bound:
        return " or ".join(bound["choices"])
    if bound.get("secret"):
        return f"text of at least {SECRET_MIN} printable characters without spaces"
    if bound.get("redis"):
        return f"an address that begins with {', '.join(REDIS_SCHEMES)}"
    if bound.get("address"):
        return "HOST:PORT or http://HOST:PORT"
    return "text that is not empty"


def _address(text: str) -> tuple[str, int]:
    """Return host and port of an address, port 0 when it is none."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        is_address = parts.scheme == "http" and parts.path in ("", "/") and not (parts.query or parts.username)
        return (parts.hostname or "", parts.port or 80) if is_address and parts.hostname else ("", 0)
    except ValueError:
        return "", 0


def _need_secret(secret: str | None) -> None:
    if secret is None:
        raise SettingError(
            "gateway_secret", None, "given where there are gateways: the same for the engine and for each"
        )


def _metavar(option: Option) -> str:
    kind = option.bound["kind"]
    return {bool: "true|false", int: "N", float: "X", Path: "DIR"}.get(kind, "TEXT")


def _printable(value: Any, bound: Mapping[str, Any]) -> Any:
    if bound.get("secret"):
        return "secret" if value is None else "given"
    if bound.get("redis") and value is not None:
        # user and password stay out
        scheme, _, rest = value.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"
    return str(value) if isinstance(value, Path) else value


def _number(value: float) -> str:
    if value >= 1 << 64:
        return f"2^{round(value).bit_length()} - 1"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def document() -> str:
    """Return docs/configuration.md, made from the options themselves."""
    lines = [
        "# Configuration",
        "",
        "Made from `server/config.py` by `python3 -m server.config > docs/configuration.md`; a test keeps it in step.",
        "",
        "Every option can be given in a file (`--config FILE` or `ARENA_CONFIG`, TOML or JSON), in the environment",
        "and on the command line. The later wins: file, then environment, then command line. An unknown option or a",
        "value out of its range is refused at start with the option, the value and what is allowed.",
        "",
        "```toml",
        "# arena.toml: names as below, in either spelling",
        'data = "my-world"',
        "tickRate = 100",
        "max_agents = 1000",
        "```",
        "",
        "## The sixteen options of the specification",
        "",
        *_table([_BY_NAME[name] for name in DOCUMENT_NAMES], DOCUMENT_NAMES),
        "",
        "## The world",
        "",
        "Part of the world's identity: a data folder remembers them, and a replay uses what it remembers.",
        "",
        *_table([option for option in _options(Config) if option.name not in DOCUMENT_NAMES], {}),
        "",
        "## The server",
        "",
        *_table([option for option in _options(Settings) if option.name not in DOCUMENT_NAMES], {}),
        "",
        "## A gateway",
        "",
        "Of `arena gateway`, read in the same ways. It passes over variables that only the engine knows; a file is its",
        "own. [gateways.md](gateways.md) says what a gateway does.",
        "",
        *_table(GATEWAY_OPTIONS, {}),
        "",
        "## Other variables",
        "",
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{variable}` | as `ARENA_{name.upper()}`, which wins |" for variable, name in DOCUMENT_VARIABLES.items()),
        *(f"| `{variable}` | {text} |" for variable, text in OTHER_VARIABLES.items()),
        "",
    ]
    return "\n".join(lines)


def _table(options: Sequence[Option], other_names: Mapping[str, str]) -> list[str]:
    rows = ["| in a file | variable | flag | default | allowed | meaning |", "|---|---|---|---|---|---|"]
    for option in options:
        names = " ".join(f"`{name}`" for name in (other_names.get(option.name), option.name) if name)
        default = "none" if option.default is None else f"`{str(option.default).lower()}`"
        cells = (names, f"`{option.variable}`", f"`{option.flag}`", default, option.allowed, option.bound["text"])
        rows.append(f"| {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    sys.stdout.write(document())
