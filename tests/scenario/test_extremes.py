"""Every resident at the same extreme of psychology, in all combinations that hurt: the world holds and stays finite."""

from __future__ import annotations

import numpy as np
import pytest

from engine.public import MARKET_FIELDS, PSYCHOLOGY_FIELDS
from engine.studies.scenario.run import run
from engine.studies.scenario.script import parse

MINDS = [field.name for field in PSYCHOLOGY_FIELDS if field.name != "volatility_multiplier"]
MARKETS = [f"{field.name}.all" for field in MARKET_FIELDS]


@pytest.mark.parametrize(
    ("sentiment", "fear", "greed", "confidence"),
    [
        (0, 1, 0, 0),
        (1, 0, 1, 1),
        (0, 0, 1, 0),
        (1, 1, 0, 1),
        (1, 1, 1, 1),
        (0, 0, 0, 0),
    ],
    ids=["despair", "euphoria", "greed without hope", "confident fear", "everything", "nothing"],
)
def test_a_world_of_extreme_minds_conserves_and_stays_finite(
    sentiment: int, fear: int, greed: int, confidence: int
) -> None:
    """All residents are pushed to the same extreme each day for ten days; every invariant is checked every tick."""
    minds = {"sentiment": sentiment, "fear": fear, "greed": greed, "confidence": confidence}
    extreme = {
        "title": "extreme minds", "shows": "extreme minds", "residents": 3_000, "run_in_days": 40, "days": 10,
        "watch": ["volatility_multiplier", "unemployment", "cpi", *MINDS, *MARKETS],
        "script": [{"do": "minds", "every": 24, "times": 10, **minds}],
    }  # fmt: skip

    days = run(parse("extreme", extreme)).treated.days

    assert [name for name, values in days.items() if not np.isfinite(values).all()] == []
    assert ((days["volatility_multiplier"] >= 1.0) & (days["volatility_multiplier"] <= 2.5)).all()
    assert ((days["unemployment"] >= 0.0) & (days["unemployment"] <= 1.0)).all()
    assert ((days["cpi"] > 0.5) & (days["cpi"] < 2.0)).all()
    assert (days["price.all"] > 0.0).all()


def test_a_panic_begins_and_ends_without_flickering() -> None:
    """A shock in all minds: panics begin, end when minds calm down, and are not announced again and again."""
    panic = {
        "title": "panic", "shows": "panic", "residents": 3_000, "run_in_days": 40, "days": 60,
        "watch": ["events.panic_began", "events.panic_ended", "is_panic.eq_energy", "is_panic.oil"],
        "script": [{"do": "shock", "size": 0.6}],
    }  # fmt: skip

    days = run(parse("panic", panic)).treated.days

    began, ended = days["events.panic_began"], days["events.panic_ended"]
    assert began[1:4].sum() > 0.0
    assert 10.0 < began.sum() < 60.0
    assert 10.0 < ended.sum() <= began.sum()
    for market in ("eq_energy", "oil"):
        assert days[f"is_panic.{market}"].max() == 1.0
        assert days[f"is_panic.{market}"][-1] == 0.0
