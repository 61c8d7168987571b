"""The running server held to its own OpenAPI document by a tool that knows nothing else of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx2
import pytest

from engine import invariants
from loadtest.gateways.valkey import Valkey
from tests.support.arena import run_server
from tests.support.deadlines import seconds
from tests.support.gateways import SECRET, run_gateway

EXAMPLES = {"engine": 20, "gateway": 4}
"""Examples an operation in the fuzzing phase; the coverage phase adds its own."""
ENDLESS = "/api/stream"
"""A good request to it is answered for as long as one likes: its own tests ask it."""
LEFT_OUT = "positive_data_acceptance"
"""A validity too far from now, or a price between two levels without a side, fits any schema and is refused."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("asked", list(EXAMPLES))
async def test_schemathesis_finds_nothing(asked: str, tmp_path: Path) -> None:
    """No 5xx, no undeclared status, header or content type, no bad request accepted, whatever it makes up."""
    with Valkey() as valkey:
        settings = {"redis": valkey.url, "gateway_secret": SECRET} if asked == "gateway" else {}
        async with run_server(by_hand=False, tick_rate=50, rate_limit=10_000_000, **settings) as arena:
            if asked == "gateway":
                async with run_gateway(arena, valkey.url) as gateway:
                    await check(gateway.url, tmp_path, EXAMPLES[asked])
            else:
                await check(arena.url, tmp_path, EXAMPLES[asked])
            async with arena.ticker.settled():
                invariants.check(arena.economy.state)

    assert arena.ticker.frozen is None


async def check(url: str, folder: Path, examples: int) -> None:
    """Hold a server to its document, with a key of an agent's."""
    async with httpx2.AsyncClient(base_url=url, timeout=seconds(20)) as client:
        key = (await client.post("/api/agents/register")).json()["api_key"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--phases", "examples,coverage,fuzzing",
        "--max-examples", str(examples), "--exclude-checks", LEFT_OUT, "--exclude-path", ENDLESS, "--seed", "1",
        "--no-color",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(seconds(500)):
        output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
