"""The running server held to its own OpenAPI document by a tool that knows nothing else of it."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from engine import invariants
from loadtest.gateways.valkey import Valkey
from tests.support.arena import run_server
from tests.support.deadlines import seconds
from tests.support.gateways import SECRET, run_gateway

EXAMPLES = {"engine": 20, "gateway": 4, "operator": 20}
"""Examples an operation in the fuzzing phase; the coverage phase adds its own."""
OPERATORS = "^/api/admin/"
"""What another port takes than the rest of the document."""
ENDLESS = "^/api/stream$"
"""A good request to it is answered for as long as one likes: its own tests ask it."""
LEFT_OUT = "positive_data_acceptance"
"""A validity too far from now, or a price between two levels without a side, fits any schema and is refused."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("asked", list(EXAMPLES))
async def test_schemathesis_finds_nothing(asked: str, tmp_path: Path) -> None:
    """No 5xx, no undeclared status, header or content type, no bad request accepted, whatever it makes up."""
    with Valkey() as valkey:
        settings: dict[str, Any] = {"operator": asked == "operator", "tick_rate": 50, "rate_limit": 10_000_000}
        if asked == "gateway":
            settings |= {"redis": valkey.url, "gateway_secret": SECRET}
        async with AsyncExitStack() as stack:
            arena = await stack.enter_async_context(run_server(by_hand=False, **settings))
            document = await fetched(arena.url, tmp_path)
            if asked == "operator":
                # the key is shown when it is on disk
                await arena.ticker.wait_tick(arena.ticker.published_tick + 2)
                url = f"http://127.0.0.1:{arena.server.servers[1].sockets[0].getsockname()[1]}"
                await check(document, url, arena.operator_keys[0], ["--include-path-regex", OPERATORS], asked)
            else:
                url = arena.url
                if asked == "gateway":
                    gateway = await stack.enter_async_context(run_gateway(arena, valkey.url))
                    url = gateway.url
                    assert await fetched(url, tmp_path) == document
                async with httpx2.AsyncClient(base_url=url, timeout=seconds(20)) as client:
                    key = (await client.post("/api/agents/register")).json()["api_key"]
                await check(document, url, key, ["--exclude-path-regex", f"{OPERATORS}|{ENDLESS}"], asked)
            async with arena.ticker.settled():
                invariants.check(arena.economy.state)

    assert arena.ticker.frozen is None


async def fetched(url: str, folder: Path) -> Path:
    """Return the file a server's document was written to, named by what it says."""
    async with httpx2.AsyncClient(base_url=url, timeout=seconds(20)) as client:
        text = (await client.get("/openapi.json")).raise_for_status().content
    path = folder / f"{hashlib.sha256(text).hexdigest()}.json"
    path.write_bytes(text)
    return path


async def check(document: Path, url: str, key: str, which: list[str], asked: str) -> None:
    """Hold what a URL answers to a document, with a key."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", url,
        "--header", f"Authorization: Bearer {key}", "--phases", "examples,coverage,fuzzing",
        "--max-examples", str(EXAMPLES[asked]), "--exclude-checks", LEFT_OUT, *which, "--seed", "1",
        "--no-color",
        cwd=document.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(seconds(500)):
        output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
