"""Controls: without its mechanism a world fails the fact named beside the control, with it the fact is there."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.analysis.controls import CONTROLS, Control, control, shuffled
from engine.analysis.facts import FACTS, MOST_MARKETS, asset_facts, fact_figures
from engine.analysis.figures import Verdict
from engine.analysis.macro_facts import macro_figures
from engine.analysis.recording import Recording, record
from engine.economy import Economy, warmed_up
from engine.errors import SettingError
from engine.invariants import check
from tests.support.worlds import small_config

TICKS = 4_000
SEED = 11


@cache
def settled() -> tuple[int, list[tuple[str, NDArray[Any]]]]:
    """Return the start of every world here; a control begins after it."""
    return warmed_up(small_config()).copy_arrays()


@pytest.fixture(scope="module")
def plain() -> Recording:
    """The world with everything in it."""
    return run(Control(name="none", text="", fails=""))


def run(item: Control) -> Recording:
    """Return what a small world does under a control; its books must balance to the end."""
    config = item.config(small_config())
    economy = Economy(config, SEED, start=settled())
    recording = record(economy, TICKS, each=item.each(economy, SEED))
    check(economy.state, config)
    return item.recording(recording, SEED)


def markets_with(recording: Recording, fact: str) -> int:
    """Return how many of the 15 asset markets show a fact."""
    index = [item.id for item in FACTS].index(fact)
    return sum(market.passed[index] for market in asset_facts(recording))


def test_the_world_itself_shows_what_the_controls_lose(plain: Recording) -> None:
    """The facts the controls name are there when nothing is taken away."""
    assert markets_with(plain, "clustering") >= MOST_MARKETS
    policy = next(figure for figure in macro_figures(plain) if figure.id == "policy")
    assert policy.value != "the rate does not move"


@pytest.mark.parametrize("item", [item for item in CONTROLS if item.fails == "clustering"], ids=lambda item: item.name)
def test_without_its_mechanism_clustering_is_gone(item: Control) -> None:
    """Independent orders, shuffled returns and frozen minds leave no market majority with clusters."""
    assert markets_with(run(item), item.fails) < MOST_MARKETS


def test_without_policy_the_rate_does_not_move() -> None:
    """The policy figure of a world without a central bank says so, and fails once the run is long enough."""
    recording = run(control("policy_off"))

    figure = next(figure for figure in macro_figures(recording) if figure.id == "policy")

    assert figure.value == "the rate does not move"
    assert figure.numbers == {}


def test_shuffling_keeps_the_distribution(plain: Recording) -> None:
    """Returns are the same ones in another order; volumes and the other markets stay."""
    mixed = shuffled(plain, 1)

    assert np.array_equal(np.sort(mixed.returns[:, 24]), np.sort(plain.returns[:, 24]))
    assert not np.array_equal(mixed.returns[:, 24], plain.returns[:, 24])
    assert np.array_equal(mixed.returns[:, 8], plain.returns[:, 8])
    assert np.array_equal(mixed.level[-1], plain.level[-1])


def test_every_control_names_a_figure_of_the_report(plain: Recording) -> None:
    """What a control must fail is a line that the report prints."""
    printed = {figure.id for figure in [*fact_figures(asset_facts(plain), TICKS), *macro_figures(plain)]}

    assert {item.fails for item in CONTROLS} <= printed
    assert Verdict.FAILS not in {figure.verdict for figure in macro_figures(plain)}


def test_an_unknown_control_lists_the_known() -> None:
    """The message names what there is."""
    with pytest.raises(SettingError, match=r"control must be one of iid_orders, shuffled, .*, got 'x'"):
        control("x")
