"""Public state over real HTTP: documents, ETags, pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel

from engine.markets import ID, NAMES
from server import documents
from tests.support.arena import RunningServer, run_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATES: list[tuple[str, type[BaseModel]]] = [
    ("/api/indicators", documents.Indicators),
    ("/api/markets", documents.Markets),
    ("/api/markets/food", documents.Market),
    ("/api/psychology", documents.Psychology),
    ("/api/monetary", documents.Monetary),
    ("/api/scarcity", documents.Scarcity),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def arena() -> AsyncIterator[RunningServer]:
    """A world that ticks by hand."""
    async with run_server() as arena:
        await arena.step(2)
        yield arena


@pytest.mark.parametrize(("path", "model"), STATES)
async def test_state_is_that_of_the_published_tick(arena: RunningServer, path: str, model: type[BaseModel]) -> None:
    """The document of its model, with tick, time, epoch and units; the same tick in the header."""
    async with arena.client() as client:
        response = await client.get(path)

    document: Any = model.model_validate_json(response.content)
    assert response.headers["content-type"] == "application/json"
    assert document.tick == arena.tick == int(response.headers["arena-tick"])
    assert document.epoch == arena.parts.world.epoch
    assert response.headers["vary"] == "Accept, Authorization, X-API-Key"


@pytest.mark.parametrize(("path", "model"), STATES)
async def test_an_etag_holds_for_one_tick_and_one_representation(
    arena: RunningServer, path: str, model: type[BaseModel]
) -> None:
    """304 while nothing changed, 200 with another ETag after the next tick."""
    async with arena.client() as client:
        first = await client.get(path)
        etag = first.headers["etag"]
        again = await client.get(path, headers={"If-None-Match": f'"other", W/{etag}'})
        anything = await client.get(path, headers={"If-None-Match": "*"})
        await arena.step()
        later = await client.get(path, headers={"If-None-Match": etag})

    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert anything.status_code == 304
    assert (later.status_code, later.headers["etag"] != etag) == (200, True)
    assert arena.parts.world.epoch in etag


async def test_etags_of_different_answers_differ(arena: RunningServer) -> None:
    """By path, by page, and by who asks."""
    bot = await arena.register()
    async with arena.client() as client, arena.client(bot.api_key) as own:
        answers = [
            await asked.get(path)
            for asked, path in (
                (client, "/api/markets"), (client, "/api/markets?limit=3"), (client, "/api/markets?limit=3&cursor=3"),
                (client, "/api/markets/food"), (client, "/api/markets/oil"), (client, "/api/indicators"),
                (own, "/api/indicators"),
            )
        ]  # fmt: skip

    etags = [answer.headers["etag"] for answer in answers]
    assert len(set(etags)) == len(etags)


async def test_markets_are_paged_by_cursor(arena: RunningServer) -> None:
    """Following next_cursor gives all 32, each once."""
    names: list[str] = []
    cursor: str | None = "0"
    async with arena.client() as client:
        while cursor is not None:
            page = (await client.get("/api/markets", params={"limit": 7, "cursor": cursor})).json()
            names += [row["name"] for row in page["markets"]]
            cursor = page["next_cursor"]

    assert names == list(NAMES)


async def test_a_market_is_found_by_name_and_by_number(arena: RunningServer) -> None:
    """The same document; price, book, depth, elasticity, surplus and volatility are in it."""
    async with arena.client() as client:
        by_name, by_number = await client.get("/api/markets/food"), await client.get(f"/api/markets/{ID['food']}")

    assert by_name.json() == by_number.json()
    wanted = {"price", "elasticity", "consumer_surplus", "producer_surplus", "volatility", "bid_depth", "ask_depth"}
    assert wanted <= by_name.json()["values"].keys()
    assert by_name.json()["book"].keys() == documents.BookTop.model_fields.keys()
    assert by_name.json()["production"]["first_input"] == "fresh_water"


@pytest.mark.parametrize("name", ["gold", "32", "-1", "007", "FOOD", "٣", "x" * 200])
async def test_an_unknown_market_is_404_with_all_that_exist(arena: RunningServer, name: str) -> None:
    """As problem+json."""
    async with arena.client() as client:
        response = await client.get(f"/api/markets/{name}")

    assert (response.status_code, response.json()["code"]) == (404, 113)
    assert "food" in response.json()["detail"]


async def test_other_methods_are_405_and_say_which_are_taken(arena: RunningServer) -> None:
    """With Allow."""
    async with arena.client() as client:
        response = await client.put("/api/indicators", json={})

    assert (response.status_code, response.json()["code"]) == (405, 112)
    assert "GET" in response.headers["allow"]


async def test_head_answers_as_get_without_the_body(arena: RunningServer) -> None:
    """For monitors."""
    async with arena.client() as client:
        head, get = await client.head("/api/indicators"), await client.get("/api/indicators")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == get.headers["etag"]


PAST = [path for path, _ in STATES if not path.startswith("/api/markets/")] + ["/api/markets?limit=3&cursor=7"]


@pytest.mark.parametrize("path", PAST)
async def test_the_state_of_an_earlier_tick_is_what_was_published_at_it(arena: RunningServer, path: str) -> None:
    """To the bit, with the same ETag, and to be kept for ever."""
    mark = "&" if "?" in path else "?"
    async with arena.client() as client:
        then, tick = await client.get(path), arena.tick
        await arena.step(3)
        later = await client.get(f"{path}{mark}tick={tick}")
        again = await client.get(f"{path}{mark}tick={tick}", headers={"If-None-Match": then.headers["etag"]})
        now = await client.get(f"{path}{mark}tick={arena.tick}")
        plain = await client.get(path)

    assert (later.status_code, later.content) == (200, then.content)
    assert later.headers["etag"] == then.headers["etag"]
    assert later.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert again.status_code == 304
    assert now.content == plain.content
    assert plain.headers["cache-control"] == "public, no-cache"


async def test_a_tick_that_is_not_hot_is_refused_with_those_that_are() -> None:
    """404 for one that is to come and may be asked for again, 410 for one that is gone."""
    async with run_server(history_limit=10) as arena:
        await arena.step(40)
        async with arena.client() as client:
            future = await client.get(f"/api/psychology?tick={arena.tick + 1}")
            gone = await client.get(f"/api/psychology?tick={arena.tick - 10}")
            oldest = await client.get(f"/api/markets?tick={arena.tick - 9}")

    assert (future.status_code, future.json()["code"], future.json()["temporary"]) == (404, 117, True)
    assert (gone.status_code, gone.json()["code"], gone.json()["temporary"]) == (410, 117, False)
    for refused in (future, gone):
        assert f"the ticks {arena.tick - 9} to {arena.tick} are there" in refused.json()["detail"]
    assert oldest.status_code == 200
    assert oldest.json()["markets"][0]["day"]["ticks"] == 24
