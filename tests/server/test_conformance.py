"""The running server held to its own OpenAPI document by a tool that knows nothing else of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from engine import invariants
from tests.support.arena import run_server
from tests.support.deadlines import seconds

EXAMPLES = 20
"""Examples an operation in the fuzzing phase; the coverage phase adds its own."""
ENDLESS = "/api/stream"
"""A good request to it is answered for as long as one likes: its own tests ask it."""
LEFT_OUT = "positive_data_acceptance"
"""A validity too far from now, or a price between two levels without a side, fits any schema and is refused."""


@pytest.mark.timeout(600)
async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """No 5xx, no undeclared status, header or content type, no bad request accepted, whatever it makes up."""
    async with run_server(by_hand=False, tick_rate=50, rate_limit=10_000_000) as arena:
        async with arena.client() as client:
            key = (await client.post("/api/agents/register")).json()["api_key"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "run", f"{arena.url}/openapi.json",
            "--header", f"Authorization: Bearer {key}", "--phases", "examples,coverage,fuzzing",
            "--max-examples", str(EXAMPLES), "--exclude-checks", LEFT_OUT, "--exclude-path", ENDLESS, "--seed", "1",
            "--no-color",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(seconds(500)):
            output, _ = await process.communicate()
        async with arena.ticker.settled():
            invariants.check(arena.economy.state)

    assert process.returncode == 0, output.decode()
    assert arena.ticker.frozen is None
