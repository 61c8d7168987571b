"""Named scenarios on small worlds: each is compared with the same world left alone, same seed, no random events."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import state as at
from engine.config import Config
from engine.economy import Economy
from engine.markets import HOURS
from engine.phases.emission import CATASTROPHE_STRUCK, RESOURCE_DISCOVERED, inject_event
from engine.state import State

SMALL = Config(
    residents=3_000, max_agents=8, order_book_max=1_024, discovery_probability=0.0, catastrophe_probability=0.0
)
NO_POLICY = Config(
    residents=3_000, max_agents=8, order_book_max=1_024, discovery_probability=0.0, catastrophe_probability=0.0,
    policy_active=False,
)  # fmt: skip
OIL, FINANCIAL = 1, slice(24, 31)
Treatment = Callable[[State, int], None]


class History:
    """Day-end values of a run: index, multiplier, unemployment, oil price, CPI, trend inflation, policy rate."""

    def __init__(self, rows: list[tuple[float, ...]]) -> None:
        table = np.array(rows)
        self.index, self.multiplier, self.unemployment, self.oil, self.cpi, self.trend, self.rate = table.T


@pytest.fixture(scope="module")
def settled() -> Economy:
    """Return a world that has lived for 40 days."""
    economy = Economy(SMALL, 1)
    for _ in range(40 * HOURS):
        economy.advance()
    return economy


def live(settled: Economy, days: int, treat: Treatment | None = None, config: Config = SMALL) -> History:
    """Let a copy of the world live for so many days, treated before each of its days."""
    tick, arrays = settled.copy_arrays()
    economy = Economy(config, 1, start=(tick, arrays))
    rows = []
    for day in range(days):
        if treat is not None:
            treat(economy.state, day)
        for _ in range(HOURS):
            economy.advance()
        macro = economy.state.macro
        rows.append(
            (
                float(macro[at.EQUITY_INDEX]), float(macro[at.VOLATILITY_MULTIPLIER]), float(macro[at.UNEMPLOYMENT]),
                float(economy.state.price[OIL]), float(macro[at.CPI]), float(macro[at.INFLATION_TREND]),
                float(macro[at.POLICY_RATE]),
            )
        )  # fmt: skip
    return History(rows)


@pytest.fixture(scope="module")
def untreated(settled: Economy) -> History:
    return live(settled, 60)


def crash(state: State, day: int) -> None:
    """A shock of .6 in all minds and 15 % off the value of all shares."""
    if day == 0:
        state.macro[at.SHOCK] += 0.6
        state.news[FINANCIAL] -= 1_500.0


def test_a_market_crash_falls_below_its_values_and_recovers_part(settled: Economy, untreated: History) -> None:
    treated = live(settled, 60, crash)

    fall = treated.index / untreated.index - 1.0
    assert fall[0] < -0.005
    assert -0.45 < fall.min() < -0.12
    assert 3 <= fall.argmin() <= 25
    assert fall[-1] > fall.min() + 0.03
    assert treated.multiplier.max() > 1.7 > untreated.multiplier.max() + 0.1
    assert treated.multiplier[-1] < treated.multiplier.max() - 0.3
    assert treated.unemployment.max() > untreated.unemployment.max() + 0.02
    assert treated.rate[30] < untreated.rate[30]


def test_a_discovery_makes_oil_cheaper(settled: Economy, untreated: History) -> None:
    def find(state: State, day: int) -> None:
        if day == 0:
            assert inject_event(state, SMALL, RESOURCE_DISCOVERED, OIL, 0.15) is not None

    treated = live(settled, 20, find)

    change = treated.oil / untreated.oil[:20] - 1.0
    assert change[0] < -0.005
    assert -0.45 < change[10:].mean() < -0.10


def test_a_catastrophe_makes_oil_dear_and_people_lose_work(settled: Economy, untreated: History) -> None:
    def strike(state: State, day: int) -> None:
        if day == 0:
            inject_event(state, SMALL, CATASTROPHE_STRUCK, OIL, 0.4)

    treated = live(settled, 30, strike)

    assert treated.oil[20] / untreated.oil[20] > 1.25
    assert treated.index[10] < untreated.index[10]
    assert treated.unemployment.max() > untreated.unemployment[:30].max() + 0.02
    assert treated.multiplier.max() > untreated.multiplier[:30].max() + 0.1


def print_money(state: State, day: int) -> None:
    """.6 % of every household's cash, paid by the treasury."""
    households = state.layout.households
    printed = state.cash[:households] * 6 // 1_000
    state.cash[:households] += printed
    state.ledger[at.TREASURY] -= int(printed.sum())


def test_printed_money_starts_an_inflation_spiral(settled: Economy, untreated: History) -> None:
    treated = live(settled, 60, print_money)

    assert treated.cpi[-1] > untreated.cpi[-1] + 0.004
    assert treated.trend[40:].mean() > untreated.trend[40:].mean() + 0.01
    assert treated.rate[-1] > untreated.rate[-1] + 0.02


def test_monetary_policy_tames_the_spiral(settled: Economy) -> None:
    """With the switch off the rate stays where it is and prices rise faster."""
    tamed = live(settled, 60, print_money)
    wild = live(settled, 60, print_money, NO_POLICY)

    assert np.ptp(wild.rate) == 0.0
    assert wild.cpi[-1] > tamed.cpi[-1] + 0.003
    assert wild.trend[-10:].mean() > tamed.trend[-10:].mean() + 0.02


@pytest.mark.parametrize(
    ("sentiment", "fear", "greed", "confidence"),
    [
        (0, 32_767, 0, 0),
        (32_767, 0, 32_767, 32_767),
        (0, 0, 32_767, 0),
        (32_767, 32_767, 0, 32_767),
        (32_767, 32_767, 32_767, 32_767),
        (0, 0, 0, 0),
    ],
    ids=["despair", "euphoria", "greed without hope", "confident fear", "everything", "nothing"],
)
def test_a_world_of_extreme_minds_conserves_and_stays_finite(
    settled: Economy, sentiment: int, fear: int, greed: int, confidence: int
) -> None:
    """Every resident is pushed to the same extreme each day for ten days; checks run every tick."""
    tick, arrays = settled.copy_arrays()
    economy = Economy(SMALL, 1, start=(tick, arrays), checks=1)
    state = economy.state
    for _ in range(10):
        for name, value in (("sentiment", sentiment), ("fear", fear), ("greed", greed), ("confidence", confidence)):
            array: NDArray[np.int16] = getattr(state, name)
            array[:] = value
        for _ in range(HOURS):
            report = economy.advance()
            assert_sane(report.public.market)
            assert np.isfinite(state.macro).all()
            assert 1.0 <= state.macro[at.VOLATILITY_MULTIPLIER] <= 2.5

    assert 0.0 <= state.macro[at.UNEMPLOYMENT] <= 1.0
    assert 0.5 < state.macro[at.CPI] < 2.0


def assert_sane(market: dict[str, NDArray[np.generic]]) -> None:
    for name, values in market.items():
        assert np.isfinite(values).all(), name
    for name in ("sentiment", "fear", "greed", "confidence", "memory", "extremity"):
        assert ((market[name] >= 0.0) & (market[name] <= 1.0)).all(), name
    assert (market["price"] > 0).all()


def test_a_panic_begins_and_ends_as_events(settled: Economy) -> None:
    """A shock in all minds: panics begin, and end when the minds calm down, without flickering."""
    tick, arrays = settled.copy_arrays()
    economy = Economy(SMALL, 1, start=(tick, arrays))
    economy.state.macro[at.SHOCK] += 0.6

    names = []
    for _ in range(60 * HOURS):
        names += [(event.name, event.data["market"]) for event in economy.advance().events if "panic" in event.name]

    began = [market for name, market in names if name == "panic_began"]
    ended = [market for name, market in names if name == "panic_ended"]
    assert {"eq_energy", "eq_finance", "oil"} <= set(began)
    assert {"eq_energy", "eq_finance", "oil"} <= set(ended)
    assert names[0][0] == "panic_began"
    assert len(names) < 120
