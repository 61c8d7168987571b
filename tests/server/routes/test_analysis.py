"""Analyses over real HTTP: documents of their models, figures that are the world's, answers made once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from pydantic import BaseModel

from engine.analysis import efficiency, impact
from engine.markets import ID, MARKETS, NAMES
from server import documents
from server.live.analytics import FORECASTS
from tests.support.arena import RunningServer, run_server
from tests.support.live import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANALYSES: list[tuple[str, type[BaseModel]]] = [
    ("/api/markets/food/impact", documents.Impact),
    ("/api/analysis/efficiency", documents.Efficiency),
    ("/api/analysis/arbitrage", documents.Arbitrage),
    ("/api/analysis/forecasts", documents.Forecasts),
    ("/api/analysis/anomalies", documents.Anomalies),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def arena() -> AsyncIterator[RunningServer]:
    """A world that ticks by hand, with a month behind it."""
    async with run_server(rate_limit=100_000) as arena:
        await arena.step(720)
        yield arena


async def get(arena: RunningServer, path: str) -> dict[str, Any]:
    """Return the document of a path."""
    async with arena.client() as client:
        response = await client.get(path)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def curves_of(arena: RunningServer, path: str) -> dict[str, Any]:
    """Return curves: ask, let the tick come they wait for, take the answer."""
    asking = asyncio.ensure_future(get(arena, path))
    await until(lambda: arena.parts.analytics.in_flight > 0)
    # a copy is taken within the step of the loop that starts the flight or the next, for the world stands still
    await asyncio.sleep(0)
    await arena.step()
    return await asking


@pytest.mark.parametrize(("path", "model"), ANALYSES)
async def test_analyses_are_what_the_documents_say(arena: RunningServer, path: str, model: type[BaseModel]) -> None:
    """Of their model, finite, of the published tick, with an ETag."""
    async with arena.client() as client:
        response = await client.get(path)
        again = await client.get(path, headers={"If-None-Match": response.headers["etag"]})

    document: Any = model.model_validate_json(response.content)
    assert document.tick <= arena.tick
    assert document.epoch == arena.parts.world.epoch
    assert b"NaN" not in response.content
    assert again.status_code == 304


async def test_curves_are_those_of_the_auction_that_followed(arena: RunningServer) -> None:
    """Volume, price, both surpluses and elasticities of the tick they are of."""
    found = await curves_of(arena, "/api/markets/food/curves?points=2000")
    values = (await get(arena, "/api/markets/food"))["values"]

    documents.Curves.model_validate(found)
    assert found["tick"] == arena.tick
    assert found["crossing"]["price"] == values["price"]
    assert found["crossing"]["volume"] == values["volume"]
    assert found["crossing"]["consumer_surplus"] == pytest.approx(values["consumer_surplus"], abs=1.0)
    assert found["crossing"]["producer_surplus"] == pytest.approx(values["producer_surplus"], abs=1.0)
    assert found["elasticity"]["demand"] == pytest.approx(values["elasticity_demand"], abs=1e-6)
    assert found["elasticity"]["supply"] == pytest.approx(values["elasticity_supply"], abs=1e-6)
    assert found["demand"]["lots"] == sorted(found["demand"]["lots"], reverse=True)
    assert found["supply"]["lots"] == sorted(found["supply"]["lots"])
    assert [item["market"] for item in found["marginal_cost"]["inputs"]] == ["labour", "fresh_water", "arable_land"]
    assert found["marginal_cost"]["costs"] == sorted(found["marginal_cost"]["costs"])


async def test_nobody_is_told_the_orders_of_an_auction_before_it(arena: RunningServer) -> None:
    """Asked for in a tick, curves come with the next one, not before: who saw them would know its price."""
    before = arena.tick

    asking = asyncio.ensure_future(get(arena, "/api/markets/oil/curves"))
    await until(lambda: arena.parts.analytics.in_flight > 0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asking.done()
    await arena.step()

    assert (await asking)["tick"] == before + 1 == arena.tick


async def test_a_point_more_or_less_does_not_move_a_curve(arena: RunningServer) -> None:
    """Fewer points are some of the points, both ends among them."""
    fine, coarse = await asyncio.gather(
        curves_of(arena, "/api/markets/labour/curves?points=2000"), get(arena, "/api/markets/labour/curves?points=4")
    )

    assert fine["tick"] == coarse["tick"]
    assert len(coarse["demand"]["prices"]) == 4
    points = dict(zip(fine["demand"]["prices"], fine["demand"]["lots"], strict=True))
    assert all(points[p] == n for p, n in zip(coarse["demand"]["prices"], coarse["demand"]["lots"], strict=True))
    assert coarse["marginal_cost"] is None
    assert coarse["crossing"] == fine["crossing"]


async def test_a_hundred_readers_cost_one_analysis(arena: RunningServer) -> None:
    """Of the same tick and market; the metric counts what was asked and what was made."""
    read = arena.parts.metrics.registry.get_sample_value
    made = read("arena_analysis_seconds_count", {"analysis": "curves"}) or 0.0

    async with arena.client() as client:
        readers = [asyncio.ensure_future(client.get("/api/markets/energy/curves")) for _ in range(100)]
        asked = read("arena_analyses_asked_total", {"analysis": "curves"}) or 0.0
        await until(lambda: (read("arena_analyses_asked_total", {"analysis": "curves"}) or 0.0) == asked + 100)
        await asyncio.sleep(0)
        await arena.step()
        answers = {response.content for response in await asyncio.gather(*readers)}

    assert len(answers) == 1
    assert read("arena_analysis_seconds_count", {"analysis": "curves"}) == made + 1


async def test_an_analysis_is_reused_for_cache_expiry(arena: RunningServer) -> None:
    """Five seconds are a hundred ticks here; `tick` says how old it is."""
    first = await get(arena, "/api/analysis/arbitrage")
    await arena.step(3)
    again = await get(arena, "/api/analysis/arbitrage")
    await arena.step(101)
    later = await get(arena, "/api/analysis/arbitrage")

    assert again == first
    assert later["tick"] == arena.tick


async def test_figures_are_those_of_the_history(arena: RunningServer) -> None:
    """The same numbers from the returns and imbalances that /api/history shows."""
    async with arena.client() as client:
        series = {
            name: np.array([row[2] for row in (await client.get(f"/api/history/oil.{name}")).json()["rows"]])
            for name in ("return_bp", "imbalance")
        }
        await arena.step(101)
        found = (await client.get("/api/markets/oil/impact")).json()
        tests = (await client.get("/api/analysis/efficiency")).json()["markets"][ID["oil"]]["tests"]
        series = {
            name: np.array(
                [row[2] for row in (await client.get(f"/api/history/oil.{name}?limit=10000")).json()["rows"]], float
            )
            for name in series
        }

    expected = impact.kyle_lambda(series["return_bp"], series["imbalance"])
    assert found["kyle"]["slope"] == pytest.approx(expected.slope)
    assert found["kyle"]["standard_error"] == pytest.approx(expected.standard_error)
    assert found["kyle"]["observations"] == expected.observations
    assert tests["hurst"] == pytest.approx(efficiency.hurst_exponent(series["return_bp"]))


async def test_indicators_come_with_forecasts_when_asked(arena: RunningServer) -> None:
    """A section with bands and scores, the same as that of its own path; without the wish there is none."""
    section = (await get(arena, "/api/indicators?forecast=true"))["forecast"]
    plain = await get(arena, "/api/indicators")
    own = await get(arena, "/api/analysis/forecasts")

    assert "forecast" not in plain
    assert section == own
    assert [item["name"] for item in section["indicators"]] == list(FORECASTS)
    day = section["indicators"][2]["forecasts"][0]
    assert day["days"] == 1
    assert day["low"] <= day["value"] <= day["high"]
    assert day["scored"] >= 5
    assert section["early_warning"]["score"] is not None


async def test_every_market_shows_its_last_day(arena: RunningServer) -> None:
    """Open, high, low, last, volume and mean price, in the list and alone."""
    rows = (await get(arena, "/api/markets"))["markets"]
    candle = await get(arena, f"/api/history/food?format=candles&from={arena.tick - 23}")
    food = await get(arena, "/api/markets/food")

    assert food["day"] == rows[ID["food"]]["day"]
    assert food["day"]["ticks"] == 24
    assert food["day"]["last"] == food["values"]["price"]
    assert all(row["day"]["low"] <= row["day"]["last"] <= row["day"]["high"] for row in rows)
    assert all(row["day"]["low"] <= row["day"]["vwap"] <= row["day"]["high"] for row in rows if row["day"]["volume"])
    assert candle["columns"] == ["time", "open", "high", "low", "close", "volume"]


async def test_too_little_history_is_said_in_numbers() -> None:
    """How many ticks there are and how many it takes; no figure, no NaN, status 200."""
    async with run_server() as arena:
        await arena.step(2)
        found = {path: await get(arena, path) for path, _ in ANALYSES}

        for path, model in ANALYSES:
            model.model_validate(found[path])
        assert found["/api/markets/food/impact"]["kyle"]["missing"] == {
            "reason": "there are 3 of the 100 ticks it takes", "have": 3, "need": 100,
        }  # fmt: skip
        tests = [item["tests"] for item in found["/api/analysis/efficiency"]["markets"]]
        assert [(item["missing"]["have"], item["missing"]["need"]) for item in tests] == [(3, 200)] * MARKETS
        assert found["/api/analysis/arbitrage"]["missing"]["need"] == 120
        assert found["/api/analysis/arbitrage"]["links"] == []
        forecast = found["/api/analysis/forecasts"]["indicators"][0]["forecasts"][0]
        assert forecast == {
            "days": 1, "missing": {"reason": "there are 3 of the 672 ticks it takes", "have": 3, "need": 672},
        }  # fmt: skip


async def test_without_reuse_an_answer_holds_for_its_tick() -> None:
    """cacheExpiry 0: made anew every tick, once."""
    async with run_server(cache_expiry=0) as arena:
        await arena.step(1)
        first = await get(arena, "/api/analysis/arbitrage")
        again = await get(arena, "/api/analysis/arbitrage")
        await arena.step(1)
        later = await get(arena, "/api/analysis/arbitrage")
        read = arena.parts.metrics.registry.get_sample_value
        made = read("arena_analysis_seconds_count", {"analysis": "arbitrage"})

    assert first == again
    assert later["tick"] == first["tick"] + 1
    assert made == 2


async def test_an_unknown_market_is_404_and_names_all(arena: RunningServer) -> None:
    """As for the market itself."""
    async with arena.client() as client:
        for path in ("/api/markets/gold/curves", "/api/markets/gold/impact"):
            response = await client.get(path)
            assert response.status_code == 404
            assert NAMES[3] in response.text


async def test_anomalies_are_the_same_after_a_restart(tmp_path: Any) -> None:
    """The replayed ticks are watched as the live ones were; here all of them are replayed."""
    async with run_server(tmp_path, snapshot_ticks=0) as arena:
        await arena.step(520)
        detector = arena.parts.anomalies._detector
        before = (detector._location.copy(), detector._tail.copy(), dict(detector.open))
    async with run_server(tmp_path) as arena:
        detector = arena.parts.anomalies._detector
        assert arena.tick == 47 + 520
        assert np.array_equal(detector._location, before[0])
        assert np.array_equal(detector._tail, before[1])
        assert detector.open == before[2]
