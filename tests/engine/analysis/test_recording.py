"""A recording holds what the world published, tick by tick, and nothing it did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.analysis.recording import ASSETS, DAY_FIELDS, Recorder, Recording, record, wealth
from engine.economy import Economy
from engine.events import PublicState
from engine.ladder import UCR, prices
from engine.markets import NAMES
from engine.state import CONSUMPTION_REAL
from tests.support.worlds import small_config

TICKS = 60


@pytest.fixture(scope="module")
def taken() -> tuple[Recording, list[PublicState], Economy]:
    """A recording, what the same ticks published, and the world at their end."""
    economy = Economy(small_config(), 5)
    economy.advance()
    recorder, published = Recorder(economy), []
    for _ in range(TICKS):
        published.append(economy.advance().public)
        recorder.take()
    return recorder.finish("seed 5"), published, economy


def test_ticks_are_what_was_published(taken: tuple[Recording, list[PublicState], Economy]) -> None:
    """Levels, returns, volumes, imbalances and the multiplier are those of the reports."""
    recording, published, _ = taken

    assert recording.ticks == TICKS
    assert recording.first_tick == published[0].tick == 1
    for column, name in (
        (recording.level, "level"),
        (recording.returns, "return_bp"),
        (recording.volume, "volume"),
        (recording.imbalance, "imbalance"),
        (prices()[recording.fundamental], "fundamental_price"),
    ):
        assert np.array_equal(column, [public.market[name] for public in published]), name
    assert recording.volatility_multiplier.tolist() == [p.psychology["volatility_multiplier"] for p in published]
    assert recording.panic_markets.tolist() == [p.psychology["panic_markets"] for p in published]


def test_days_are_what_was_published_at_day_end(taken: tuple[Recording, list[PublicState], Economy]) -> None:
    """Every day column is the published value of tick mod 24 = 23, amounts in credits."""
    recording, published, _ = taken
    ends = [public for public in published if public.tick % 24 == 23]
    amounts = {"consumption_nominal", "consumption_real", "wage", "money_supply", "credit", "treasury"}

    assert recording.day_tick.tolist() == [23, 47]
    assert np.array_equal(recording.reserves, [public.resource["reserves"] for public in ends])
    for name in DAY_FIELDS:
        unit = UCR if name in amounts else 1
        values = [(public.psychology | public.monetary | public.indicators)[name] / unit for public in ends]
        assert recording.day(name).tolist() == pytest.approx(values), name


def test_wealth_agrees_with_the_published_inequality(taken: tuple[Recording, list[PublicState], Economy]) -> None:
    """The Gini of the residents' wealth at a day end is the published indicator, up to its buckets."""
    economy = Economy(small_config(), 6)
    for _ in range(48):
        public = economy.advance().public
    households, residents = wealth(economy.state)
    ranks = np.arange(1, len(residents) + 1)
    gini = (2 * ranks - len(residents) - 1) @ np.sort(residents) / (len(residents) * residents.sum())

    assert gini == pytest.approx(public.indicators["gini"], abs=0.002)
    assert len(households) == economy.state.layout.households
    assert np.array_equal(residents[: len(households)], households)


def test_record_advances_and_calls_each() -> None:
    """record() runs the ticks itself, calls each after every one, and starts from where the world stands."""
    economy, seen = Economy(small_config(), 5), list[int]()
    economy.advance()

    recording = record(economy, 5, origin="here", each=lambda world: seen.append(world.tick))

    assert seen == [1, 2, 3, 4, 5]
    assert (recording.ticks, recording.first_tick, recording.origin) == (5, 1, "here")


def test_columns_and_about_make_the_same_recording(taken: tuple[Recording, list[PublicState], Economy]) -> None:
    """What a file needs is in the two together."""
    recording = taken[0]

    again = Recording(**recording.columns(), **recording.about())

    assert again.about() == recording.about()
    assert all(np.array_equal(again.columns()[name], array) for name, array in recording.columns().items())


def test_real_base_is_the_calibrated_start(taken: tuple[Recording, list[PublicState], Economy]) -> None:
    """Real output is compared with the start of the model, not with wherever the recording began."""
    start = Economy(small_config(), 5).state.macro[CONSUMPTION_REAL] / UCR

    assert taken[0].real_base == pytest.approx(start, rel=1e-12)
    assert record(Economy(small_config(), 5), 30).real_base == taken[0].real_base


def test_the_assets_are_the_fifteen() -> None:
    """Seven raw, seven shares, the consol."""
    assert len(ASSETS) == 15
    assert [NAMES[m] for m in ASSETS[6:9]] == ["intellectual_property", "eq_energy", "eq_agri"]
    assert NAMES[ASSETS[-1]] == "consol"


def test_columns_that_do_not_fit_are_refused(taken: tuple[Recording, list[PublicState], Economy]) -> None:
    """The message names the column and both shapes; an unknown day column lists those there are."""
    recording = taken[0]

    with pytest.raises(ValueError, match=r"volume must have the shape \(60, 32\), got \(59, 32\)"):
        replace(recording, volume=recording.volume[1:])
    with pytest.raises(ValueError, match="format 1, got 2"):
        replace(recording, format=2)
    with pytest.raises(ValueError, match="no day column 'gdp'; there are cpi, "):
        recording.day("gdp")
