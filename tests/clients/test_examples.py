"""The example bots join a live server as any user's bot would, and do what their first lines say."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from arena_client import ArenaStream
from arena_client.rest import ArenaClient
from examples import market_maker, momentum_trader, producer, watcher

from tests.support.arena import RunningServer, run_server
from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[2]
RUN_S = 5.0


@pytest.fixture
async def arena() -> AsyncIterator[RunningServer]:
    """A server that ticks by itself, fast, and does not mind busy bots."""
    async with run_server(by_hand=False, tick_rate=50, rate_limit=1_000_000) as running:
        yield running


async def test_the_market_maker_quotes_both_sides_and_leaves_nothing_behind(arena: RunningServer) -> None:
    """It places and moves quotes, and takes them back at the end."""
    done = await market_maker.run(arena.url, seconds(RUN_S), "oil")

    assert done.orders > 2
    assert 0 <= done.stock <= market_maker.STOCK_MAX
    assert done.quotes == {}
    assert done.arena.credentials is not None
    async with ArenaClient(arena.url, done.arena.credentials) as client:
        me = await client.agent()
    assert me["orders"] == []
    assert Decimal(done.wealth).is_finite()


async def test_the_momentum_trader_keeps_its_own_history_and_knows_what_it_holds(arena: RunningServer) -> None:
    """Every resource has a full history, and the books agree with the server's."""
    done = await momentum_trader.run(arena.url, seconds(RUN_S))

    assert len(done.history) == 7
    assert all(len(prices) == momentum_trader.LONG for prices in done.history.values())
    assert done.orders > 0
    assert len(done.positions) <= momentum_trader.POSITIONS_MAX
    assert all(lots > 0 for lots in done.positions.values())


def test_the_momentum_trader_follows_the_trend() -> None:
    """Momentum is positive when prices rise, negative when they fall, nothing before there is enough history."""
    bot = momentum_trader.MomentumTrader(ArenaClient("http://127.0.0.1:1"))

    rising = [bot.remember("oil", 1 + i / 100) for i in range(momentum_trader.LONG)]
    falling = [bot.remember("food", 2 - i / 100) for i in range(momentum_trader.LONG)]

    assert set(rising[:-1]) == {0.0}
    assert rising[-1] > momentum_trader.SIGNAL
    assert falling[-1] < -momentum_trader.SIGNAL


async def test_the_producer_buys_makes_and_sells(arena: RunningServer) -> None:
    """The whole chain: inputs and hours bought, a good made of them, the good sold."""
    done = await producer.run(arena.url, seconds(RUN_S))

    assert done.bought > 0
    assert done.made > 0
    assert done.sold > 0
    assert done.made % done.recipe.lots(producer.BATCH_HOURS) == 0


def test_a_recipe_rounds_up_as_the_world_does() -> None:
    """Part of an hour or of an input lot costs a whole one."""
    recipe = producer.Recipe("food", {"fresh_water": 0.2, "arable_land": 0.1}, hours=0.03)

    assert recipe.lots(3) == 100
    assert recipe.needs(101) == {"fresh_water": 21, "arable_land": 11, "labour": 4}
    assert recipe.margin({"fresh_water": 1.0, "arable_land": 1.0, "labour": 20.0, "food": 1.0}) == pytest.approx(
        133 / (27 + 14 + 80) - 1
    )


async def test_the_watcher_misses_no_tick(arena: RunningServer) -> None:
    """Piped, it prints a line a second; every tick from the first to the last was seen."""
    out = io.StringIO()

    seen = await watcher.run(arena.url, seconds(RUN_S), out)

    assert seen.first_tick is not None
    assert seen.last_tick is not None
    assert seen.frames == seen.last_tick - seen.first_tick + 1 > 20
    assert (seen.lagged, seen.out_of_step) == (0, 0)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 2
    assert all("CPI" in line or "resource" in line for line in lines)
    assert "\x1b" not in out.getvalue()


class Terminal(io.StringIO):
    """A terminal that remembers what was drawn."""

    def isatty(self) -> bool:
        return True


async def test_the_watcher_draws_a_table_on_a_terminal(arena: RunningServer) -> None:
    """Every market has its line, and the table is drawn over itself."""
    out = Terminal()

    await watcher.run(arena.url, seconds(1.0), out)

    drawn = out.getvalue()
    async with ArenaStream(arena.url) as stream:
        await stream.subscribe("market_tick")
        assert all(f"\n{name} " in drawn for name in stream.markets)
    assert drawn.startswith(watcher.CLEAR)
    assert drawn.count(watcher.HOME) > 5


@pytest.mark.parametrize("name", ["market_maker", "momentum_trader", "producer", "watcher"])
async def test_each_runs_from_the_command_line_and_ends_with_a_summary(name: str, arena: RunningServer) -> None:
    """As the README says it: the file, a url, some seconds; exit code 0 and figures at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        f"clients/python/examples/{name}.py",
        "--url",
        arena.url,
        "--seconds",
        "0.5",
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "clients/python"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    async with asyncio.timeout(seconds(60)):
        out, err = await process.communicate()

    assert (process.returncode, err.decode()) == (0, "")
    assert ("wealth" in out.decode()) == (name != "watcher")
    assert "orders" in out.decode() or "frames" in out.decode()
