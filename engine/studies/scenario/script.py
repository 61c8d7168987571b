"""A scenario as it is written, and how it is read: from plain tables to a Scenario that can be run, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from engine.config import Config
from engine.errors import ScenarioInvalid, SettingError
from engine.markets import HOURS
from engine.studies.scenario import vocabulary as v
from engine.studies.scenario.expectations import Expectation, check
from engine.studies.scenario.series import Series, series_of
from engine.studies.scenario.steps import WORDS, Join, Leave, Order, Step

#: Settings that the scenario's own keys decide, not its settings.
OWN_SETTINGS = ("residents", "endowment_credits")
SMALLEST_BOOK = 1_024


@dataclass(frozen=True, kw_only=True)
class Document:
    """The keys of a scenario file."""

    title: str = v.key(v.sentence("a line for people"))
    shows: str = v.key(v.sentence("what the scenario shows, a few lines"))
    residents: int = v.key(v.whole(2_000, 20_000_000, "population inside"), 20_000)
    seed: int = v.key(v.whole(0, (1 << 63) - 1, "of all chance"), 1)
    run_in_days: int = v.key(v.whole(1, 1_080, "days the calibrated start lives before the script begins"), 125)
    days: int = v.key(v.whole(1, 1_080, "days the script and its effects last"))
    watch: list[Any] = v.key(v.listed("series that are shown beside the expected ones", "a list of series"), ())
    settings: Mapping[str, Any] = v.key(
        v.table("settings of the world that differ from the defaults, by name", "a table of settings"), ()
    )
    script: list[Any] = v.key(v.listed("what is done, in the order of the file", "a list of [[script]] tables"))
    expect: list[Any] = v.key(v.listed("what is promised", "a list of [[expect]] tables"), ())


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario that can be run: every key is valid, every group of agents joins before it acts."""

    name: str
    title: str
    shows: str
    seed: int
    run_in_days: int
    days: int
    config: Config
    steps: tuple[Step, ...]
    expectations: tuple[Expectation, ...]
    watched: tuple[Series, ...]
    script: tuple[Mapping[str, Any], ...]
    """The steps as they were written, for the record."""


def parse(name: str, document: Any, *, residents: int | None = None, seed: int | None = None) -> Scenario:
    """Return the scenario that a document (plain tables, as a TOML file gives them) describes.

    residents, seed: instead of the document's. Raises ScenarioInvalid, naming the place, what was wrong and what is
    allowed.
    """
    changes = {key: value for key, value in (("residents", residents), ("seed", seed)) if value is not None}
    if isinstance(document, Mapping):
        document = {**document, **changes}
    given = v.build(Document, document, name)
    steps = tuple(_step(table, f"{name}: script {k}") for k, table in enumerate(given.script, 1))
    _check_order(steps, name, given.days)
    expectations = []
    for k, table in enumerate(given.expect, 1):
        where = f"{name}: expect {k}"
        expectations.append(v.build(Expectation, table, where))
        check(expectations[-1], where, given.days)
    return Scenario(
        name=name,
        title=given.title,
        shows=given.shows,
        seed=given.seed,
        run_in_days=given.run_in_days,
        days=given.days,
        config=_config(given, steps, name),
        steps=steps,
        expectations=tuple(expectations),
        watched=_watched(given, expectations, name),
        script=tuple(given.script),
    )


def _step(table: Any, where: str) -> Step:
    """Return one step; the word in `do` says which keys it has."""
    if not isinstance(table, Mapping):
        raise ScenarioInvalid(f"{where} must be a table, got {table!r}")
    word = table.get("do")
    if word not in WORDS:
        raise ScenarioInvalid(f"{where}: do must be one of {', '.join(WORDS)}, got {word!r}")
    where = f"{where} ({word})"
    step = v.build(WORDS[word], {key: value for key, value in table.items() if key != "do"}, where)
    if isinstance(step, Order):
        _check_quantity(step, where)
    return step


def _check_quantity(step: Order, where: str) -> None:
    if (step.quantity is None) == (step.part is None):
        raise ScenarioInvalid(f"{where}: give one of quantity and part")
    if step.offset_bp is not None and step.price_credits is not None:
        raise ScenarioInvalid(f"{where}: give one of offset_bp and price_credits, or neither for a market order")
    is_market = step.offset_bp is None and step.price_credits is None
    if is_market and step.time_in_force is not None:
        raise ScenarioInvalid(f"{where}: time_in_force is for a limit: give offset_bp or price_credits")
    if (step.time_in_force == "gtt") != (step.order_ticks is not None):
        raise ScenarioInvalid(f"{where}: time_in_force gtt and order_ticks go together")


def _check_order(steps: tuple[Step, ...], name: str, days: int) -> None:
    """Raise ScenarioInvalid for a step after the end, and for agents that act before they join or after they left."""
    for k, step in enumerate(steps, 1):
        if step.last_tick >= days * HOURS:
            raise ScenarioInvalid(
                f"{name}: script {k}: its last time is tick {step.last_tick} after the start, the scenario has"
                f" {days * HOURS}"
            )
    here: set[str] = set()
    there: set[str] = set()
    known: dict[str, bool] = {}
    endowments: dict[int, int] = {}
    for tick, k, step in _moments(steps):
        where = f"{name}: script {k}"
        worlds = (here, there) if step.twin else (here,)
        if isinstance(step, Join):
            if step.agents in known:
                raise ScenarioInvalid(f"{where}: {step.agents} joins a second time at tick {tick}: use another name")
            if endowments.setdefault(tick, step.endowment_credits) != step.endowment_credits:
                raise ScenarioInvalid(f"{where}: endowments differ in tick {tick}: let one group join an hour later")
            known[step.agents] = step.twin
            for world in worlds:
                world.add(step.agents)
            continue
        if not any(step.agents in world for world in worlds):
            raise ScenarioInvalid(f"{where}: {step.agents} does not take part at tick {tick}: join comes first")
        if step.twin and not known[step.agents]:
            raise ScenarioInvalid(f"{where}: {step.agents} does not take part in the twin: join with twin = true")
        if isinstance(step, Leave):
            for world in worlds:
                world.discard(step.agents)


def _moments(steps: tuple[Step, ...]) -> Iterator[tuple[int, int, Join | Order | Leave]]:
    """Yield (tick, number in the file, step) of the first and last time of what agents do, as it will happen."""
    moments: list[tuple[int, int, Join | Order | Leave]] = []
    for k, step in enumerate(steps, 1):
        if isinstance(step, (Join, Order, Leave)):
            moments.append((step.first_tick, k, step))
            if step.times > 1:
                moments.append((step.last_tick, k, step))
    return iter(sorted(moments, key=lambda moment: moment[:2]))


def _config(given: Document, steps: tuple[Step, ...], name: str) -> Config:
    settings = dict(given.settings)
    allowed = [item.name for item in fields(Config) if item.name not in OWN_SETTINGS]
    for found in settings:
        if found not in allowed:
            raise ScenarioInvalid(f"{name}: settings: unknown setting {found!r}; allowed: {', '.join(allowed)}")
    agents = sum(step.count for step in steps if isinstance(step, Join))
    settings.setdefault("max_agents", max(1, agents))
    # gtc orders that pile up are the script's own affair; a group's one round of orders always has room
    settings.setdefault("order_book_max", max(SMALLEST_BOOK, 16 * agents))
    try:
        return Config(residents=given.residents, **settings)
    except SettingError as error:
        raise ScenarioInvalid(f"{name}: settings: {error}") from None


def _watched(given: Document, expectations: list[Expectation], name: str) -> tuple[Series, ...]:
    names = [expected.series for expected in expectations]
    for item in given.watch:
        if not isinstance(item, str):
            raise ScenarioInvalid(f"{name}: watch must be a list of series, got {item!r} in it")
        names.append(item)
    try:
        return tuple(series_of(item) for item in dict.fromkeys(names))
    except ScenarioInvalid as error:
        raise ScenarioInvalid(f"{name}: {error}") from None
