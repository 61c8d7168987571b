"""Every query of the dashboard names series a living server exposes: loadtest.dashboard asks a real Prometheus."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse

from loadtest.dashboard import queries
from tests.support.arena import run_server

WORDS = {"sum", "by", "rate", "histogram_quantile", "increase", "stddev_over_time"}


async def test_a_scrape_has_a_sample_for_every_query() -> None:
    """Of a server in which an agent acted and left, somebody subscribed and an analysis was asked for."""
    async with run_server() as arena:
        bot = await arena.register()
        order: dict[str, Any] = {
            "client_action_id": "a", "type": "limit", "market": "food", "side": "buy", "quantity": 1, "price": "1.0",
        }  # fmt: skip
        await bot.decided(order)
        async with arena.client(bot.api_key) as client:
            leaving = asyncio.ensure_future(
                client.delete(f"/api/agents/{bot.agent_id}", headers={"Prefer": "respond-async"})
            )
            assert (await leaving).status_code == 202
            await arena.step()
            await client.get("/api/analysis/forecasts")
            text = (await client.get("/metrics")).text

    found = {sample.name for family in parse(text) for sample in family.samples}
    asked = {
        name
        for _, query in queries()
        for name in re.findall(r"\b[a-z_]{3,}\b", re.sub(r"by \([^)]*\)|\[[^\]]*\]", "", query))
    }
    # counters by what happened: nothing has been sent or has happened yet
    later = {"arena_frame_bytes_total", "arena_world_events_total", "arena_subscriptions"}
    assert asked - WORDS - found <= later
