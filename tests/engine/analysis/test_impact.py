"""Price impact: what was put into synthetic data comes out, with an error that is as large as it says."""

from __future__ import annotations

import numpy as np
import pytest

from engine.analysis.impact import BINS, POINTS_MIN, impact_curve, kyle_lambda
from engine.analysis.needs import TooFew


def test_lambda_is_recovered_on_synthetic_data() -> None:
    """dp = a + lambda x flow + noise gives lambda back within three standard errors, and all else with it."""
    random = np.random.default_rng(1)
    flows = 500.0 * random.standard_t(4, 5_000)
    changes = 0.3 + 0.02 * flows + 10.0 * random.standard_normal(5_000)

    found = kyle_lambda(changes, flows)

    assert abs(found.slope - 0.02) < 3.0 * found.standard_error
    assert found.standard_error < 0.0005
    assert found.intercept == pytest.approx(0.3, abs=0.5)
    assert found.r_squared == pytest.approx(np.corrcoef(flows, changes)[0, 1] ** 2)
    assert found.observations == 5_000


def test_the_standard_error_covers_when_variance_follows_the_flow() -> None:
    """95 % intervals hold the truth in about 95 % of samples although the noise grows with the flow."""
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        flows = random.standard_normal(400)
        changes = 2.0 * flows + np.abs(flows) * random.standard_normal(400)
        found = kyle_lambda(changes, flows)
        hits += abs(found.slope - 2.0) < 1.96 * found.standard_error

    assert 0.91 <= hits / 400 <= 0.98


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_the_exponent_of_the_impact_curve_is_recovered(exponent: float) -> None:
    """Square-root and linear impact are told from each other."""
    random = np.random.default_rng(3)
    sizes = np.exp(random.uniform(0.0, 7.0, 20_000))
    flows = sizes * random.choice([-1.0, 1.0], 20_000)
    changes = np.sign(flows) * 0.5 * sizes**exponent + random.standard_normal(20_000)

    curve = impact_curve(changes, flows)

    assert curve.exponent is not None
    assert curve.exponent_error is not None
    assert curve.exponent == pytest.approx(exponent, abs=0.03)
    assert curve.exponent_error < 0.03
    assert len(curve.flow) == len(curve.impact) == BINS
    assert curve.counts.sum() == 20_000
    assert (np.diff(curve.flow) > 0.0).all()


def test_impact_against_the_flow_has_no_exponent() -> None:
    """No power law goes through negative numbers."""
    flows = np.tile([1.0, -1.0, 2.0, -3.0], 100)

    curve = impact_curve(-flows, flows)

    assert (curve.exponent, curve.exponent_error) == (None, None)


def test_too_little_is_said_in_numbers() -> None:
    """How many there are, how many it takes, and of what."""
    few = np.ones(POINTS_MIN - 1)
    with pytest.raises(TooFew, match="99 of the 100 ticks") as error:
        kyle_lambda(few, few)
    assert (error.value.have, error.value.need) == (99, 100)
    with pytest.raises(TooFew, match="0 of the 100 ticks with flow"):
        impact_curve(np.ones(500), np.zeros(500))
    with pytest.raises(ValueError, match="never changes"):
        kyle_lambda(np.ones(500), np.ones(500))
