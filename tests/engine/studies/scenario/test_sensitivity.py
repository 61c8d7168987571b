"""Each parameter of specification 004 that shapes the world moves it the way its name promises."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from engine.config import Config
from engine.studies.scenario.sensitivity import PARAMETERS, Effect, Parameter, default_of, situation, study, ticks_of
from server.config import DOCUMENT_NAMES

SHORT_DAYS = 20
#: Figures that need more than a few weeks: stocks of oil are used up first.
SLOW = {"price of oil, mean of the days, ucr"}
#: Specification 004's options that shape no economy; tests/system/test_options.py shows what they do.
SERVERS = {"maxAgents", "tickRate", "cacheExpiry", "rateLimit", "historyLimit"}


def test_every_option_that_shapes_the_world_is_moved() -> None:
    """The sixteen options are the server's five and the eleven that are moved here, each under its own name."""
    assert {parameter.spelt for parameter in PARAMETERS} | SERVERS == set(DOCUMENT_NAMES.values())
    assert all(DOCUMENT_NAMES[parameter.name] == parameter.spelt for parameter in PARAMETERS)


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.spelt)
def test_values_rise_and_are_allowed(parameter: Parameter) -> None:
    """Down and up, each within the bounds; the default is in between or one of them."""
    low, middle, high = parameter.values
    [bounds] = [field.metadata for field in fields(Config) if field.name == parameter.name]

    assert bounds["low"] <= low < middle < high <= bounds["high"]
    assert low <= default_of(parameter) <= high


@pytest.mark.parametrize(
    ("measured", "holds"),
    [
        ([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]], True),
        ([[1.0, 2.0], [2.0, 3.0], [3.0, 1.9]], False),
        ([[1.0, 2.0], [5.0, 5.0], [3.0, 4.0]], False),
        ([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], False),
    ],
    ids=["rises in both steps", "falls in a seed", "turns back", "no effect"],
)
def test_an_effect_holds_in_every_seed_and_both_steps(measured: list[list[float]], holds: bool) -> None:
    """A promise is kept by all seeds from end to end and by their mean in each step; no effect is no promise kept."""
    parameter = PARAMETERS[0]
    effect = Effect(parameter, parameter.figures[0], (1, 2), np.array(measured))

    assert effect.holds is holds
    falling = replace(parameter.figures[0], direction="falls")
    assert replace(effect, figure=falling, measured=-effect.measured).holds is holds


@pytest.mark.timeout(240)
def test_the_world_moves_the_way_the_names_promise() -> None:
    """The short form: a small world, one seed, a few weeks; every figure moves the right way from end to end."""
    told: list[int] = []

    effects = study(residents=3_000, seeds=(1,), days=SHORT_DAYS, progress=told.append)

    wrong = [
        f"{effect.parameter.spelt}: {effect.figure.text}: {effect.measured.ravel().tolist()}"
        for effect in effects
        if effect.figure.text not in SLOW and effect.sign * (effect.measured[-1] - effect.measured[0])[0] <= 0.0
    ]
    assert wrong == []
    assert 0 < sum(told) <= ticks_of(PARAMETERS, 1, SHORT_DAYS)


def test_a_situation_is_a_scenario_that_watches_its_figures() -> None:
    """What its parameters are measured by is recorded."""
    watched = {series.name for series in situation("a panic", 2_000, 1).watched}

    assert {"volatility", "events.volatility_began", "largest_move_bp.all"} <= watched
