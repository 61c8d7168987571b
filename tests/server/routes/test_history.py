"""The past over real HTTP: series, candles, CSV, events; what has passed is answered from the cache."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from engine.events import Event
from server import documents
from server.errors import Problem
from server.routes.history import preferred
from tests.support.arena import RunningServer, run_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def arena() -> AsyncIterator[RunningServer]:
    """A world after thirty ticks, some events in its log."""
    async with run_server() as arena:
        await arena.step(30)
        arena.parts.events.add(
            Event("discovery_event", i, arena.tick, "resource_discovered", {"resource": "oil", "size": 0.1})
            for i in range(1, 6)
        )
        arena.parts.events.add([Event("world_event", 1, arena.tick, "panic_began", {"market": "food"})])
        yield arena


async def test_a_series_has_a_point_per_tick(arena: RunningServer) -> None:
    """The last one is what the state says now."""
    async with arena.client() as client:
        response = await client.get("/api/history/cpi")
        now = (await client.get("/api/indicators")).json()

    page = documents.History.model_validate_json(response.content)
    assert page.columns == ["tick", "time", "value"]
    assert [row[0] for row in page.rows] == page.ticks == list(range(arena.tick - 30, arena.tick + 1))
    assert page.rows[-1][2] == now["values"]["cpi"]
    assert (page.unit, page.next_cursor) == ("1", None)


async def test_pages_follow_their_cursor(arena: RunningServer) -> None:
    """Range and step are kept, nothing comes twice."""
    first = arena.tick - 20
    ticks: list[int] = []
    cursor: str | None = None
    async with arena.client() as client:
        while True:
            params = {"from": first, "to": arena.tick, "step": 3, "limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/api/history/food.price", params=params)).json()
            ticks += page["ticks"]
            cursor = page["next_cursor"]
            if cursor is None:
                break

    assert ticks == [tick for tick in range(first, arena.tick + 1) if tick % 3 == 0]


async def test_csv_is_the_same_page_as_a_table(arena: RunningServer) -> None:
    """By format=csv or by Accept."""
    async with arena.client() as client:
        page = (await client.get("/api/history/fear?limit=5")).json()
        by_format = await client.get("/api/history/fear?limit=5&format=csv")
        by_accept = await client.get("/api/history/fear?limit=5", headers={"Accept": "text/csv"})

    rows = list(csv.reader(io.StringIO(by_format.text)))
    assert by_format.headers["content-type"].startswith("text/csv")
    assert rows[0] == page["columns"]
    assert [[float(cell) for cell in row] for row in rows[1:]] == page["rows"]
    assert by_accept.text == by_format.text


async def test_candles_have_time_open_high_low_close_volume(arena: RunningServer) -> None:
    """Of a market by name or of its price; as JSON or CSV; a day of 24 ticks unless step says otherwise."""
    async with arena.client() as client:
        page = (await client.get("/api/history/food?format=candles&step=10")).json()
        same = (await client.get("/api/history/food.price?format=candles&step=10")).json()
        table = (await client.get("/api/history/food?format=candles.csv&step=10")).text
        daily = (await client.get("/api/history/food?format=candles")).json()

    assert page["columns"] == ["time", "open", "high", "low", "close", "volume"]
    assert page == same
    assert all(low <= min(o, c) <= max(o, c) <= high for _, o, high, low, c, _ in page["rows"])
    assert table.splitlines()[0] == "time,open,high,low,close,volume"
    assert (daily["step"], [tick % 24 for tick in daily["ticks"]]) == (24, [0] * len(daily["ticks"]))


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/api/history/cp", "cpi"),
        ("/api/history/food.prise", "food.price"),
        ("/api/history/x", "/api/info"),
        ("/api/history/cpi?format=candles", "markets"),
    ],
)
async def test_an_unknown_series_is_404_with_a_hint(arena: RunningServer, path: str, hint: str) -> None:
    """The nearest names, or where all of them are."""
    async with arena.client() as client:
        response = await client.get(path)

    assert (response.status_code, response.json()["code"]) == (404, 114)
    assert hint in response.json()["detail"]


async def test_every_series_that_info_lists_can_be_asked_for(arena: RunningServer) -> None:
    """Names in one list, answers under each; a few of every kind."""
    async with arena.client() as client:
        names = (await client.get("/api/info")).json()["series"]
        for name in names[::97]:
            assert (await client.get(f"/api/history/{name}?limit=1")).status_code == 200, name


async def test_what_has_passed_may_be_kept_for_cache_expiry(arena: RunningServer) -> None:
    """An open range changes with the tick, a closed one does not."""
    first = arena.tick - 20
    async with arena.client() as client:
        past = await client.get(f"/api/history/cpi?from={first}&to={first + 5}")
        open_range = await client.get("/api/history/cpi?limit=3")
        unchanged = await client.get(
            f"/api/history/cpi?from={first}&to={first + 5}", headers={"If-None-Match": past.headers["etag"]}
        )

    assert past.headers["cache-control"] == "public, max-age=5"
    assert open_range.headers["cache-control"] == "public, no-cache"
    assert unchanged.status_code == 304


async def test_cache_expiry_zero_lets_nobody_keep_anything() -> None:
    """The option does what its name says."""
    async with run_server(cache_expiry=0) as arena:
        await arena.step(10)
        async with arena.client() as client:
            past = await client.get(f"/api/history/cpi?from={arena.tick - 8}&to={arena.tick - 4}")

    assert past.headers["cache-control"] == "public, no-cache"


async def test_what_is_older_than_the_hot_history_comes_from_days(tmp_path: Path) -> None:
    """The answer says so; a point of a day is the value its first tick published; after a restart as well."""
    values: dict[int, float] = {}
    async with run_server(tmp_path, history_limit=10) as arena:
        for _ in range(80):
            tick = await arena.step()
            values[tick] = arena.parts.published.view.numbers["inflation_update"]["cpi"]
        first = min(values)
        async with arena.client() as client:
            before = [(await client.get(path)).json() for path in paths_of_days(first)]
    async with run_server(tmp_path, history_limit=10) as arena, arena.client() as client:
        after = [(await client.get(path)).json() for path in paths_of_days(first)]
        hot = (await client.get("/api/history/cpi")).json()

    assert after == before
    points, mean, candles = (documents.History.model_validate(page) for page in before)
    assert (points.step, points.resolution, points.aggregate) == (24, 24, "first")
    assert points.ticks == [48, 72, 96, 120]
    assert [row[2] for row in points.rows] == [values[tick] for tick in points.ticks]
    days = [[values[t] for t in range(tick, min(tick + 24, max(values) + 1))] for tick in mean.ticks]
    assert [row[2] for row in mean.rows] == pytest.approx([sum(day) / len(day) for day in days], rel=1e-12)
    assert (mean.aggregate, candles.ticks) == ("mean", points.ticks)
    assert (hot["resolution"], hot["ticks"]) == (1, list(range(max(values) - 9, max(values) + 1)))


def paths_of_days(first: int) -> list[str]:
    """Return three questions about the time since a tick."""
    return [f"/api/history/cpi?from={first}", f"/api/history/cpi?from={first}&step=24&aggregate=mean",
            f"/api/history/food?from={first}&format=candles"]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "field", "allowed"),
    [
        ("food.volume?aggregate=high", "aggregate", "'mean', 'sum' for this series"),
        ("food?format=candles&aggregate=mean", "aggregate", "points only"),
        ("cpi?aggregate=median", "aggregate", "'mean' or 'sum'"),
    ],
)
async def test_an_aggregate_that_is_not_kept_is_refused(
    arena: RunningServer, query: str, field: str, allowed: str
) -> None:
    """With those there are."""
    async with arena.client() as client:
        response = await client.get(f"/api/history/{query}")

    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == field
    assert allowed in response.json()["errors"][0]["allowed"]


async def test_parquet_and_arrow_are_the_same_page(arena: RunningServer) -> None:
    """By format or by Accept; what it is about is in the schema."""
    async with arena.client() as client:
        page = (await client.get("/api/history/food.price?limit=7&step=2")).json()
        parquet = await client.get("/api/history/food.price?limit=7&step=2&format=parquet")
        accepted = await client.get(
            "/api/history/food.price?limit=7&step=2", headers={"Accept": "application/vnd.apache.parquet"}
        )
        arrow = await client.get("/api/history/food.price?limit=7&step=2&format=arrow")
        candles = (await client.get("/api/history/food?format=candles&step=5")).json()
        columns = await client.get("/api/history/food?format=candles.arrow&step=5")
        empty = await client.get("/api/history/cpi?format=parquet&from=9999999")

    table = pq.read_table(io.BytesIO(parquet.content))
    assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
    assert [list(row.values()) for row in millis(table)] == page["rows"]
    assert {key: table.schema.metadata[key.encode()].decode() for key in ("series", "unit", "step", "resolution")} == {
        "series": "food.price", "unit": "credits", "step": "2", "resolution": "1",
    }  # fmt: skip
    assert accepted.content == parquet.content
    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert millis(pa.ipc.open_stream(arrow.content).read_all()) == millis(table)
    streamed = pa.ipc.open_stream(columns.content).read_all()
    assert [list(row.values()) for row in millis(streamed)] == candles["rows"]
    assert pq.read_table(io.BytesIO(empty.content)).num_rows == 0


def millis(table: pa.Table) -> list[dict[str, float]]:
    """Return the rows of a table, its time as the documents have it."""
    at = table.column_names.index("time")
    rows: list[dict[str, float]] = table.set_column(at, "time", table["time"].cast(pa.int64())).to_pylist()
    return rows


async def test_without_pyarrow_406_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By format and by Accept; who takes something else as well gets that."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    async with run_server() as arena, arena.client() as client:
        by_format = await client.get("/api/history/cpi?format=arrow")
        accept = {"Accept": "application/vnd.apache.parquet"}
        by_accept = await client.get("/api/history/cpi", headers=accept)
        other = await client.get("/api/history/cpi", headers={"Accept": "text/html"})
        both = await client.get("/api/history/cpi", headers={"Accept": accept["Accept"] + ", text/csv;q=0.5"})

    for response in (by_format, by_accept):
        assert (response.status_code, response.json()["code"]) == (406, 116)
        assert "needs pyarrow, which this server was installed without" in response.json()["detail"]
    assert other.json()["detail"] == "there is application/json and text/csv"
    assert both.headers["content-type"].startswith("text/csv")


async def test_history_limit_is_how_many_points_are_kept() -> None:
    """The option does what its name says."""
    async with run_server(history_limit=10) as arena:
        await arena.step(25)
        async with arena.client() as client:
            page = (await client.get("/api/history/cpi")).json()

    assert page["ticks"] == list(range(arena.tick - 9, arena.tick + 1))


async def test_events_are_listed_filtered_and_paged(arena: RunningServer) -> None:
    """By name or channel; ascending or descending; the cursor is an event's id."""
    async with arena.client() as client:
        response = await client.get("/api/events", params={"type": "discovery_event", "limit": 2})
        page = documents.Events.model_validate_json(response.content)
        rest = (await client.get("/api/events", params={"type": "discovery_event", "cursor": page.next_cursor})).json()
        newest = (await client.get("/api/events?order=desc&limit=1")).json()
        named = (await client.get("/api/events?type=panic_began")).json()

    assert [event.number for event in page.events] == [1, 2]
    assert [event["number"] for event in rest["events"]] == [3, 4, 5]
    assert newest["events"][0]["name"] == "panic_began"
    assert [event["data"] for event in named["events"]] == [{"market": "food"}]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "a/json"), ("a/json", "a/json"), ("b/csv", "b/csv"), ("a/json;q=0.1, b/csv", "b/csv"),
        ("b/*", "b/csv"), ("text/html, */*;q=0.1", "a/json"), ("b/csv;q=0, */*", "a/json"),
        ("a/json;q=x, b/csv", "b/csv"), ("a/json;q=0, */*", "b/csv"), ("a/*;q=0.2, */*", "b/csv"),
    ],
)  # fmt: skip
async def test_the_accept_header_decides(accept: str, expected: str) -> None:
    """As RFC 9110 weighs it."""
    assert preferred(accept, ("a/json", "b/csv")) == expected


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "a/json;q=0, b/csv;q=0"])
async def test_what_nobody_accepts_is_406(accept: str) -> None:
    """With what there is."""
    with pytest.raises(Problem) as caught:
        preferred(accept, ("a/json", "b/csv"))

    assert caught.value.status == 406
    assert "a/json and b/csv" in caught.value.detail
