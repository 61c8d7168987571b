"""What a script can do to a world: a closed vocabulary, one class a word.

A step acts before the tick it is due in. What touches the residents keeps the books: money that households get is
owed by the treasury, a find or disaster goes through the engine's own event. Outside agents only send actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from engine.economy import Economy
from engine.errors import ScenarioInvalid
from engine.ladder import UCR
from engine.markets import HOURS
from engine.phases.emission import CATASTROPHE_STRUCK, NATURAL, POLITICAL, RESOURCE_DISCOVERED, inject_event
from engine.state import Q15_ONE, SHOCK, TREASURY
from engine.studies.scenario import vocabulary as v
from engine.studies.scenario.outside import Outside

#: Most repetitions of a step, and ticks between two: three years.
REPEATS_MAX = 3 * 8_640
MINDS = ("sentiment", "fear", "greed", "confidence", "memory")
TIMES_IN_FORCE = ("gtc", "ioc", "gtt")


@dataclass(frozen=True)
class Stage:
    """What steps act on: a world and the outside agents that take part in it."""

    economy: Economy
    outside: Outside


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """When a step is due; the words of the vocabulary add what it does."""

    day: int = v.key(v.whole(0, 1_080, "days since the start at which the step is due first"), 0)
    hour: int = v.key(v.whole(0, HOURS - 1, "hours (ticks) later"), 0)
    times: int = v.key(v.whole(1, REPEATS_MAX, "how often it is done"), 1)
    every: int = v.key(v.whole(1, REPEATS_MAX, "ticks from one time to the next; 24 are a day"), 1)
    twin: bool = v.key(v.flag("whether it is done to the twin as well, so that its effect is in both worlds"), False)

    @property
    def first_tick(self) -> int:
        """Ticks since the start before the step is done first."""
        return self.day * HOURS + self.hour

    @property
    def last_tick(self) -> int:
        """Ticks since the start before the step is done last."""
        return self.first_tick + (self.times - 1) * self.every

    def is_due(self, tick: int) -> bool:
        """Return whether the step is done before the tick that many ticks after the start."""
        return self.first_tick <= tick <= self.last_tick and (tick - self.first_tick) % self.every == 0

    @abstractmethod
    def apply(self, stage: Stage) -> None:
        """Do it."""


@dataclass(frozen=True, kw_only=True)
class Shock(Step):
    """All minds feel an event: it frightens and saddens at once and decays by .5 % a tick."""

    size: float = v.key(v.real(0.0, 1.0, "added to the event shock of the minds"))

    def apply(self, stage: Stage) -> None:
        """Add to the shock that targets are set with."""
        stage.economy.state.macro[SHOCK] += self.size


@dataclass(frozen=True, kw_only=True)
class News(Step):
    """News moves what traders believe assets or resources are worth; it fades by itself."""

    markets: tuple[int, ...] = v.key(v.markets("where it is about"))
    bp: float = v.key(v.real(-10_000, 10_000, "change of the fundamental value, in basis points (log)"))

    def apply(self, stage: Stage) -> None:
        """Add to the markets' news."""
        stage.economy.state.news[list(self.markets)] += self.bp


@dataclass(frozen=True, kw_only=True)
class Discovery(Step):
    """A resource is found; a find that would lift reserves above 1.2 x their base is dropped whole."""

    resource: int = v.key(v.resource("which"))
    size: float = v.key(v.real(0.001, 1.0, "share of the base reserves that is found"))

    def apply(self, stage: Stage) -> None:
        """Inject the engine's event. Raises ScenarioInvalid when the find is dropped."""
        economy = stage.economy
        if inject_event(economy.state, economy.config, RESOURCE_DISCOVERED, self.resource, self.size) is None:
            raise ScenarioInvalid(f"discovery: a find of {self.size:g} would lift reserves above 1.2 x their base")


@dataclass(frozen=True, kw_only=True)
class Catastrophe(Step):
    """Reserves are lost, assets lose value, all minds are shocked."""

    resource: int = v.key(v.resource("which"))
    size: float = v.key(v.real(0.001, 1.0, "share of the reserves that is lost"))
    kind: str = v.key(v.word((NATURAL, POLITICAL), "what the event is called"), NATURAL)

    def apply(self, stage: Stage) -> None:
        """Inject the engine's event."""
        economy = stage.economy
        inject_event(economy.state, economy.config, CATASTROPHE_STRUCK, self.resource, self.size, self.kind)


@dataclass(frozen=True, kw_only=True)
class Money(Step):
    """Every household's cash grows or shrinks by a share of itself, paid by or to the treasury.

    What a household's standing order is covered with stays.
    """

    share: float = v.key(v.real(-0.9, 10.0, "of the cash: .5 gives half as much again, -.1 takes a tenth"))

    def apply(self, stage: Stage) -> None:
        """Change the cash of the households and the account of the treasury by the same sum."""
        state = stage.economy.state
        households = state.layout.households
        cash = state.cash[:households]
        change = (cash * self.share).astype(np.int64)
        if self.share < 0.0:
            orders = state.ord_qty[:households].clip(min=0) * state.ladder[state.ord_level[:households]]
            change = np.maximum(change, np.minimum(orders - cash, 0))
        cash += change
        state.ledger[TREASURY] -= int(change.sum())


@dataclass(frozen=True, kw_only=True)
class Policy(Step):
    """The central bank's switch: off, the rate stays, consumption and credit are not steered, no easing."""

    active: bool = v.key(v.flag("whether it acts from now on"))

    def apply(self, stage: Stage) -> None:
        """Change the world's config."""
        stage.economy.config = replace(stage.economy.config, policy_active=self.active)


@dataclass(frozen=True, kw_only=True)
class Minds(Step):
    """Every resident's mind is set to the same; what is not given stays."""

    sentiment: float | None = v.key(v.real(0.0, 1.0, "0 gloomy, .5 neutral, 1 cheerful"), None)
    fear: float | None = v.key(v.real(0.0, 1.0, "0 none, 1 all there is"), None)
    greed: float | None = v.key(v.real(0.0, 1.0, "0 none, 1 all there is"), None)
    confidence: float | None = v.key(v.real(0.0, 1.0, "0 none, 1 all there is"), None)
    memory: float | None = v.key(v.real(0.0, 1.0, "the slow memory of one's own sentiment"), None)

    def apply(self, stage: Stage) -> None:
        """Write the arrays of all residents."""
        for mind in MINDS:
            if (value := getattr(self, mind)) is not None:
                getattr(stage.economy.state, mind)[:] = round(value * Q15_ONE)


@dataclass(frozen=True, kw_only=True)
class Join(Step):
    """A group of outside agents registers, each as an owner of its own, and gets its endowment."""

    agents: str = v.key(v.name("name of the group; other steps refer to it"))
    count: int = v.key(v.whole(1, 1_000_000, "agents in the group"))
    endowment_credits: int = v.key(v.whole(0, 1_000_000_000, "interest-free advance of each, credits"), 1_000)

    def apply(self, stage: Stage) -> None:
        """Queue one registration each and set the endowment that the world gives."""
        economy = stage.economy
        economy.config = replace(economy.config, endowment_credits=self.endowment_credits)
        stage.outside.join(self.agents, self.count)


@dataclass(frozen=True, kw_only=True)
class Order(Step):
    """Each agent of a group sends an order: a market order, or a limit when a price is given."""

    agents: str = v.key(v.name("the group"))
    market: int = v.key(v.market("where"))
    side: str = v.key(v.word(("buy", "sell"), "what for"))
    quantity: int | None = v.key(v.whole(1, 1_000_000_000, "lots of each agent's order"), None)
    part: float | None = v.key(
        v.real(1e-6, 1_000.0, "lots of the whole group instead, as a part of the market's size"),
        None,
    )
    offset_bp: int | None = v.key(v.whole(-100_000, 100_000, "limit, basis points from the reference price"), None)
    price_credits: float | None = v.key(v.real(0.01, 1_000_000.0, "limit, credits a lot, instead"), None)
    time_in_force: str | None = v.key(v.word(TIMES_IN_FORCE, "of a limit: gtc when nothing is said"), None)
    order_ticks: int | None = v.key(v.whole(1, REPEATS_MAX, "auctions a gtt order takes part in"), None)

    def apply(self, stage: Stage) -> None:
        """Queue one action each."""
        outside, state = stage.outside, stage.economy.state
        lots = self.quantity
        if self.part is not None:
            lots = outside.share_out(self.agents, self.part, state, self.market)
        level = None
        if self.offset_bp is not None:
            level = int(state.level[self.market]) + self.offset_bp
        elif self.price_credits is not None:
            level = outside.level_of(state, round(self.price_credits * UCR), self.side)
        outside.order(
            self.agents, state, self.market, self.side, lots or 0, level, self.time_in_force, self.order_ticks
        )


@dataclass(frozen=True, kw_only=True)
class Leave(Step):
    """All agents of a group unregister at once: orders are cancelled, holdings go to the estate, which sells them."""

    agents: str = v.key(v.name("the group"))

    def apply(self, stage: Stage) -> None:
        """Queue one action each."""
        stage.outside.leave(self.agents)


#: The vocabulary by the word that stands in a script's `do`.
WORDS: dict[str, type[Step]] = {
    "shock": Shock,
    "news": News,
    "discovery": Discovery,
    "catastrophe": Catastrophe,
    "money": Money,
    "policy": Policy,
    "minds": Minds,
    "join": Join,
    "order": Order,
    "leave": Leave,
}
