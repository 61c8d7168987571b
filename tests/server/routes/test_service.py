"""The service over real HTTP: information, clock, health, metrics, documents, pages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.markets import NAMES
from server import documents
from server.pages import HEADERS
from server.registry import OPERATIONS
from tests.support.arena import RunningServer, run_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def arena() -> AsyncIterator[RunningServer]:
    """A world that ticks by hand."""
    async with run_server(rate_limit=12_345, client_frames_per_s=77) as arena:
        await arena.step(2)
        yield arena


async def test_every_route_that_takes_nothing_answers(arena: RunningServer) -> None:
    """With one of the statuses and content types that are declared for it."""
    async with arena.client() as client:
        for operation in OPERATIONS:
            needs_more = "{" in operation.path or operation.is_operators or operation.name == "stream"
            if operation.method != "GET" or needs_more:
                continue
            response = await client.get(operation.path)
            media = response.headers["content-type"].split(";")[0]
            declared = {(answer.status, kind) for answer in operation.answers for kind in answer.media}
            assert (response.status_code, media) in declared, operation.path
            assert response.headers["x-request-id"]
            assert response.headers["arena-tick"] == str(arena.tick)


async def test_info_tells_markets_ladder_limits_and_channels(arena: RunningServer) -> None:
    """Everything a client must know before it acts."""
    async with arena.client() as client:
        response = await client.get("/api/info")

    info = documents.Info.model_validate_json(response.content)
    assert [market["name"] for market in info.markets] == list(NAMES)
    assert info.ladder["lowest"] == "0.010000"
    assert info.limits["requests_per_minute"] == 12_345
    assert info.limits["requests_burst"] == 1_234
    assert arena.parts.hub.hello()["limits"].items() <= info.limits.items()
    assert info.limits["client_frames_per_s"] == 77
    assert info.limits["client_frames_burst"] == 308
    named = {"head_within_s": 5, "body_within_s": 10, "narrowed_forms": 128, "actions_unanswered": 128}
    assert named.items() <= info.limits.items()
    assert info.limits["agents"] == info.config["max_agents"] == 64
    assert len(info.channels) == 7
    assert info.rejects["201"] == "not enough free cash"
    assert info.epoch == arena.parts.world.epoch
    assert set(info.actions) >= {"limit", "cancel", "set_sentiment"}


async def test_the_seed_is_bound_but_not_told(arena: RunningServer) -> None:
    """Its commitment is public, it is nowhere."""
    seed = arena.economy.seed.hex()
    async with arena.client() as client:
        info = (await client.get("/api/info")).text
        everything = [(await client.get(path)).text for path in ("/", "/docs", "/metrics", "/api/status", "/api/time")]

    assert arena.parts.world.seed_commitment in info
    assert all(seed not in text for text in [info, *everything])


async def test_time_tells_tick_day_hour_and_both_clocks(arena: RunningServer) -> None:
    """24 ticks a simulated day."""
    async with arena.client() as client:
        response = await client.get("/api/time")

    time = documents.Time.model_validate_json(response.content)
    assert (time.tick, time.day, time.hour) == (arena.tick, arena.tick // 24, arena.tick % 24)
    assert time.now_unix_ms == arena.clock.unix_ns() // 1_000_000
    assert time.published == arena.parts.published.view.time


async def test_status_tells_how_the_server_is(arena: RunningServer) -> None:
    """Counts of what it holds."""
    await arena.register()
    async with arena.client() as client:
        response = await client.get("/api/status")

    status = documents.Status.model_validate_json(response.content)
    assert (status.status, status.tick, status.agents) == ("running", arena.tick, len(arena.recorder.registry))
    assert status.durable_seq == arena.recorder.journal.durable_seq


async def test_metrics_come_as_text_and_as_openmetrics(arena: RunningServer) -> None:
    """By Accept; requests are in them under their route."""
    async with arena.client() as client:
        await client.get("/api/markets/food")
        text = await client.get("/metrics")
        open_metrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert text.headers["content-type"].startswith("text/plain")
    assert 'arena_http_requests_total{method="GET",route="/api/markets/{id}",status="200"}' in text.text
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


async def test_pages_are_served_under_their_policy_with_their_files(arena: RunningServer) -> None:
    """Each file a page names is there, with its type."""
    async with arena.client() as client:
        for path in ("/", "/docs"):
            page = await client.get(path)
            assert page.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        style, script = await client.get("/assets/arena.css"), await client.get("/assets/live.js")
        missing = await client.get("/assets/other.js")

    assert style.headers["content-type"].startswith("text/css")
    assert script.headers["content-type"].startswith("text/javascript")
    assert (missing.status_code, "arena.css" in missing.json()["detail"]) == (404, True)


async def test_an_unknown_path_is_404_and_says_where_the_known_ones_are(arena: RunningServer) -> None:
    """As problem+json, counted under one label however many paths are tried."""
    async with arena.client() as client:
        response = await client.get("/api/nothing/here")
        traversal = await client.get("/assets/..%2f..%2fetc%2fpasswd")
        metrics = (await client.get("/metrics")).text

    assert (response.status_code, response.json()["code"]) == (404, 111)
    assert "/docs" in response.json()["detail"]
    assert traversal.status_code == 404
    assert "nothing/here" not in metrics
