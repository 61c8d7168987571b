"""From two series to a figure and a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ScenarioInvalid
from engine.studies.scenario.expectations import COMPARISONS, TAKES, Expectation, measure

#: The start, then five days.
TREATED = np.array([100.0, 90.0, 80.0, 60.0, 90.0, 110.0])
UNTREATED = np.array([100.0, 100.0, 100.0, 120.0, 100.0, 100.0])


@pytest.mark.parametrize(
    ("keys", "figure"),
    [
        ({"day": 2}, -0.2),
        ({"day": 3}, -0.5),
        ({"day": 3, "compare": "difference"}, -60.0),
        ({"day": 3, "compare": "growth"}, -0.4),
        ({"day": 3, "compare": "absolute"}, 60.0),
        ({"take": "lowest"}, -0.5),
        ({"take": "highest"}, 0.1),
        ({"take": "lowest", "from_day": 4}, -0.1),
        ({"take": "day_of_lowest"}, 3.0),
        ({"take": "day_of_highest", "to_day": 4}, 1.0),
        ({"take": "mean"}, 430.0 / 520.0 - 1.0),
        ({"take": "mean", "compare": "growth", "from_day": 2, "to_day": 3}, -0.3),
        ({"take": "sum", "compare": "difference"}, -90.0),
        ({"take": "sum", "compare": "absolute"}, 430.0),
        ({"take": "sum", "compare": "growth"}, -0.14),
        ({"take": "recovery", "from_day": 4, "to_day": 4}, 0.8),
        ({"take": "recovery", "from_day": 4, "to_day": 5}, 1.0),
        ({"take": "recovery", "from_day": 5, "compare": "difference"}, 1.0 + 10.0 / 60.0),
    ],
)
def test_a_figure_is_taken_from_the_days_it_names(keys: dict[str, Any], figure: float) -> None:
    """Each comparison and each way of taking a figure, by hand."""
    assert measure(Expectation(series="cpi", **keys), TREATED, UNTREATED) == pytest.approx(figure)


@given(
    st.sampled_from(sorted(COMPARISONS)),
    st.sampled_from(sorted(set(TAKES) - {"recovery", "value"})),
    st.lists(st.floats(1.0, 100.0), min_size=2, max_size=20),
)
def test_the_twin_alone_deviates_by_nothing(compare: str, take: str, values: list[float]) -> None:
    """Against itself a world's ratio and difference are zero, whatever is taken of them."""
    days = np.array(values)
    figure = measure(Expectation(series="cpi", compare=compare, take=take), days, days)

    assert np.isfinite(figure)
    if compare in ("ratio", "difference") and not take.startswith("day"):
        assert figure == 0.0


def test_a_ratio_to_nothing_is_refused() -> None:
    """It says which series and what to do instead."""
    with pytest.raises(ScenarioInvalid, match=r"cpi is 0 where it is divided by, .*compare by difference"):
        measure(Expectation(series="cpi", day=1), TREATED, np.zeros(6))


def test_a_day_without_trade_does_not_spoil_a_mean() -> None:
    """Means are taken before they are compared."""
    untreated = np.array([1.0, 0.0, 4.0])

    assert measure(Expectation(series="cpi", take="mean"), np.array([1.0, 3.0, 3.0]), untreated) == 0.5


def test_nothing_recovers_from_nothing() -> None:
    """A series that never left its twin has no recovery."""
    with pytest.raises(ScenarioInvalid, match="cpi never deviates"):
        measure(Expectation(series="cpi", take="recovery"), TREATED, TREATED)


@pytest.mark.parametrize(
    ("keys", "kept", "broken", "side"),
    [
        ({"low": -0.2, "high": -0.1}, (-0.2, -0.1), (-0.21, -0.09, 0.0), -1),
        ({"low": 0.1}, (0.1, 9.0), (0.09,), 1),
        ({"low": -0.1, "high": 0.1}, (-0.1, 0.0, 0.1), (0.2,), 0),
        ({"direction": "falls"}, (-0.001, -9.0), (0.0, 0.1), -1),
        ({"direction": "rises", "high": 1.0}, (0.001, 1.0), (0.0, -0.1, 1.1), 1),
    ],
)
def test_a_band_keeps_its_ends_and_a_direction_its_side(
    keys: dict[str, Any], kept: tuple[float, ...], broken: tuple[float, ...], side: int
) -> None:
    """Ends are included; a direction alone promises a side of zero, zero itself not included."""
    expected = Expectation(series="cpi", day=1, **keys)

    assert [figure for figure in kept if not expected.keeps(figure)] == []
    assert [figure for figure in broken if expected.keeps(figure)] == []
    assert expected.side() == side


def test_nan_keeps_no_promise() -> None:
    """A figure that is no number is outside every band."""
    assert not Expectation(series="cpi", day=1, low=-1.0, high=1.0).keeps(float("nan"))
