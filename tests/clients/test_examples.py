"""The example bots join a live server as any user's bot would, and do what their first lines say."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from arena_client import ArenaStream
from arena_client.rest import ArenaClient
from examples import market_maker, momentum_trader, producer, watcher

from tests.support.arena import RunningServer, run_server
from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[2]
RUN_S = 5.0


one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arena() -> AsyncIterator[RunningServer]:
    """One server for all: it ticks by itself, fast, and does not mind busy bots."""
    async with run_server(by_hand=False, tick_rate=50, rate_limit=1_000_000) as running:
        yield running


class Done(NamedTuple):
    """What the bots returned, and what the watcher printed."""

    maker: market_maker.MarketMaker
    trader: momentum_trader.MomentumTrader
    producer: producer.Producer
    watcher: watcher.Watcher
    printed: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def done(arena: RunningServer) -> Done:
    """All four at once on the same server, as in life."""
    out = io.StringIO()
    maker, trader, maker_of_goods, seen = await asyncio.gather(
        market_maker.run(arena.url, RUN_S, "oil"),
        momentum_trader.run(arena.url, RUN_S),
        producer.run(arena.url, RUN_S),
        watcher.run(arena.url, RUN_S, out),
    )
    return Done(maker, trader, maker_of_goods, seen, out.getvalue())


@one_loop
async def test_the_market_maker_quotes_both_sides_and_leaves_nothing_behind(arena: RunningServer, done: Done) -> None:
    """It places and moves quotes, keeps its stock within bounds, and takes the quotes back at the end."""
    async with ArenaClient(arena.url, done.maker.arena.credentials) as client:
        me = await client.agent()

    assert done.maker.orders > 2
    assert 0 <= done.maker.stock <= market_maker.STOCK_MAX
    assert done.maker.quotes == {}
    assert me["orders"] == []
    assert me["holdings"].get("oil", {}).get("quantity", 0) == done.maker.stock
    assert Decimal(done.maker.wealth).is_finite()


@one_loop
async def test_the_momentum_trader_keeps_its_own_history_and_knows_what_it_holds(
    arena: RunningServer, done: Done
) -> None:
    """Every resource has a full history, and the books agree with the server's."""
    async with ArenaClient(arena.url, done.trader.arena.credentials) as client:
        me = await client.agent()

    assert len(done.trader.history) == 7
    assert all(len(prices) == momentum_trader.LONG for prices in done.trader.history.values())
    assert done.trader.orders > 0
    assert len(done.trader.positions) <= momentum_trader.POSITIONS_MAX
    assert done.trader.positions == {name: held["quantity"] for name, held in me["holdings"].items()}


def test_the_momentum_trader_follows_the_trend() -> None:
    """Momentum is positive when prices rise, negative when they fall, nothing before there is enough history."""
    bot = momentum_trader.MomentumTrader(ArenaClient("http://127.0.0.1:1"))

    rising = [bot.remember("oil", 1 + i / 100) for i in range(momentum_trader.LONG)]
    falling = [bot.remember("food", 2 - i / 100) for i in range(momentum_trader.LONG)]

    assert set(rising[:-1]) == {0.0}
    assert rising[-1] > momentum_trader.SIGNAL
    assert falling[-1] < -momentum_trader.SIGNAL


@one_loop
async def test_the_producer_buys_makes_and_sells(done: Done) -> None:
    """The whole chain: inputs and hours bought, a good made of them, the good sold."""
    assert done.producer.bought > 0
    assert done.producer.made > 0
    assert done.producer.sold > 0
    assert done.producer.made % done.producer.recipe.lots(producer.BATCH_HOURS) == 0


@one_loop
async def test_the_producer_reads_the_recipe_again_each_day(arena: RunningServer) -> None:
    """Inputs a lot takes change at the end of a day; with yesterday's recipe a batch would fall short by a lot."""
    async with ArenaClient(arena.url) as client:
        await client.register()
        old = producer.Recipe("food", {"fresh_water": 9.0, "arable_land": 9.0}, hours=9.0)
        bot = producer.Producer(client, old)

        await bot.step(23, dict.fromkeys([*old.inputs, "food", "labour"], 1e9))

        assert bot.day == 1
        assert bot.recipe == await producer.read_recipe(client, "food")
        assert await producer.read_recipe(client, "oil") is None


def test_a_day_ends_with_its_last_tick() -> None:
    """What is sent after tick 23 is decided in tick 24, which is of the next day."""
    assert [producer.day_of(tick) for tick in (-1, 0, 22, 23, 46, 47)] == [0, 0, 0, 1, 1, 2]


def test_a_recipe_rounds_up_as_the_world_does() -> None:
    """Part of an hour or of an input lot costs a whole one."""
    recipe = producer.Recipe("food", {"fresh_water": 0.2, "arable_land": 0.1}, hours=0.03)

    assert recipe.lots(3) == 100
    assert recipe.needs(101) == {"fresh_water": 21, "arable_land": 11, "labour": 4}
    assert recipe.margin({"fresh_water": 1.0, "arable_land": 1.0, "labour": 20.0, "food": 1.0}) == pytest.approx(
        133 / (27 + 14 + 80) - 1
    )


@one_loop
async def test_the_watcher_misses_no_tick(done: Done) -> None:
    """Piped, it prints a line a second; every tick from the first to the last was seen."""
    seen = done.watcher

    assert seen.first_tick is not None
    assert seen.last_tick is not None
    assert seen.frames == seen.last_tick - seen.first_tick + 1 > 20
    assert (seen.lagged, seen.out_of_step) == (0, 0)
    lines = done.printed.splitlines()
    assert len(lines) >= 2
    assert all("CPI" in line or "resource" in line for line in lines)
    assert "\x1b" not in done.printed


class Terminal(io.StringIO):
    """A terminal that remembers what was drawn."""

    def isatty(self) -> bool:
        return True


@one_loop
async def test_the_watcher_draws_a_table_on_a_terminal(arena: RunningServer) -> None:
    """Every market has its line, and the table is drawn over itself."""
    out = Terminal()

    await watcher.run(arena.url, 1.0, out)

    drawn = out.getvalue()
    async with ArenaStream(arena.url) as stream:
        await stream.subscribe("market_tick")
        assert all(f"\n{name} " in drawn for name in stream.markets)
    assert drawn.startswith(watcher.CLEAR)
    assert drawn.count(watcher.HOME) > 5


@one_loop
async def test_each_runs_from_the_command_line_and_ends_with_a_summary(arena: RunningServer) -> None:
    """As the README says it: the file, a url, some seconds; exit code 0 and figures at the end."""
    names = ("market_maker", "momentum_trader", "producer", "watcher")

    results = await asyncio.gather(*(run_as_user(name, arena.url) for name in names))

    for name, (code, out, err) in zip(names, results, strict=True):
        assert (code, err) == (0, ""), name
        assert "frames" in out if name == "watcher" else "orders" in out and "wealth" in out, name


async def run_as_user(name: str, url: str) -> tuple[int | None, str, str]:
    """Run an example in a process of its own and return its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", f"clients/python/examples/{name}.py", "--url", url, "--seconds", "0.5"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "clients/python"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(seconds(60)):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
