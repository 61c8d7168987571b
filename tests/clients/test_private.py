"""The client on a real server with a key: actions over the stream, its own agents, narrowed copies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from arena_client.errors import BadRequest, OutcomeUnknown, StreamError, Unreachable
from arena_client.receipt import Receipt
from arena_client.stream import AccountsReceived, ArenaStream, EntriesReceived, StateChanged, Update

from engine.state import ORDER_COUNT
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.live import soon
from tests.support.streams import until

REST = {"type": "limit", "market": "food", "side": "buy", "quantity": 1, "price": "0.05"}


def stream_of(arena: RunningServer, bot: Bot, **options: Any) -> ArenaStream:
    """Return a stream that shows a bot's key."""
    return ArenaStream(arena.url, api_key=bot.api_key, **options)


async def next_of(stream: ArenaStream, kind: type[Update]) -> Any:
    """Return the next update of a kind."""
    while not isinstance(update := await soon(anext(stream)), kind):
        pass
    return update


async def test_an_action_is_sent_decided_and_seen() -> None:
    """The receipt at once, the outcome with its tick, what the agent has afterwards."""
    async with run_server() as arena:
        bot = await arena.register()
        async with stream_of(arena, bot) as stream:
            await stream.follow("agent")
            first = await next_of(stream, AccountsReceived)
            assert (first.left, first.accounts[0]["agent_id"]) == (0, bot.agent_id)

            receipt = await stream.act(REST, client_action_id="mine")

            assert (receipt.client_action_id, receipt.outcome, receipt.duplicate) == ("mine", None, False)
            await arena.step()
            told = await next_of(stream, EntriesReceived)
            assert [entry["client_action_id"] for entry in told.entries] == ["mine"]
            assert told.entries[0]["outcome"]["status"] == "resting"
            account = await bot.account()
            for key in ("cash", "escrow", "holdings", "tick"):
                assert stream.accounts[bot.agent_id][key] == account[key]


async def test_names_are_made_and_actions_may_be_under_way_together() -> None:
    """Each gets its own receipt; agent_id is needed only where there are several."""
    async with run_server() as arena:
        bot = await arena.register()
        await arena.register(bot.api_key)
        async with stream_of(arena, bot) as stream:
            receipts = await asyncio.gather(*(stream.act(REST, agent_id=bot.agent_id) for _ in range(10)))

            assert len({receipt.client_action_id for receipt in receipts}) == 10
            assert [receipt.seq for receipt in receipts] == sorted(receipt.seq for receipt in receipts)
            with pytest.raises(ValueError, match="2 agents"):
                await stream.act(REST)


async def test_a_refusal_is_the_error_of_rest() -> None:
    """Same tree, same code, same mistakes."""
    async with run_server() as arena:
        bot = await arena.register()
        async with stream_of(arena, bot) as stream:
            with pytest.raises(BadRequest) as refused:
                await stream.act({**REST, "quantity": 0})

            assert (refused.value.status, refused.value.code) == (400, 101)
            assert refused.value.errors[0]["field"] == "quantity"


async def test_a_connection_that_ends_leaves_it_open_what_became_of_an_action() -> None:
    """OutcomeUnknown names the action; sent again it has one effect."""
    async with run_server() as arena:
        bot = await arena.register()
        async with stream_of(arena, bot) as stream:
            await stream.follow("agent")
            waiting = asyncio.create_task(stream.act(REST, client_action_id="a"))
            await until(lambda: len(arena.recorder.queue) == 1)
            for subscriber in arena.hub.subscribers:
                subscriber.cut()

            (result,) = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(result, Receipt | OutcomeUnknown), "the answer may have been faster than the cut"
            assert result.client_action_id == "a"

            again = await stream.act(REST, client_action_id="a")
            assert again.duplicate is True
            assert len(arena.recorder.queue) == 1


async def test_without_a_key_or_a_server_there_is_no_action() -> None:
    """Said before anything is sent."""
    async with run_server() as arena:
        async with ArenaStream(arena.url) as stream:
            with pytest.raises(StreamError, match="api_key"):
                await stream.act(REST)
        bot = await arena.register()
    async with stream_of(arena, bot) as stream:
        with pytest.raises(Unreachable):
            await stream.act(REST, timeout_s=0.2)
    with pytest.raises(ValueError, match="api_key"):
        ArenaStream(arena.url, cancel_on_disconnect=True)


async def test_the_private_channel_survives_lost_connections() -> None:
    """Every entry once, in order, whatever happens to the connections."""
    async with run_server() as arena:
        bot = await arena.register()
        names: list[str] = []
        async with stream_of(arena, bot) as stream:
            await stream.follow("agent")
            for i in range(6):
                await bot.act({"client_action_id": f"a-{i}", **REST})
                if i % 2:
                    for subscriber in arena.hub.subscribers:
                        subscriber.cut()
                await arena.step()
            while len(names) < 6:
                told = await next_of(stream, EntriesReceived)
                names += [entry["client_action_id"] for entry in told.entries]

            assert names == [f"a-{i}" for i in range(6)]
            assert stream.reconnects > 0


async def test_orders_end_with_a_stream_that_asked_for_it() -> None:
    """Leaving the block is a disconnect."""
    async with run_server() as arena:
        bot = await arena.register()
        async with stream_of(arena, bot, cancel_on_disconnect=True) as stream:
            await stream.act(REST)
            await arena.step()
            assert int(arena.economy.state.counters[ORDER_COUNT]) == 1
        await until(lambda: not arena.hub.subscribers)
        await arena.step()

        assert int(arena.economy.state.counters[ORDER_COUNT]) == 0


async def test_a_narrowed_mirror_shows_what_the_whole_one_does() -> None:
    """Same numbers of the markets asked for, in the order of the ids; the book beside."""
    async with run_server() as arena, ArenaStream(arena.url) as whole, ArenaStream(arena.url) as part:
        waiting = asyncio.create_task(part.subscribe("market_tick", markets=["food", "oil"], depth=3))
        everything = await whole.subscribe("market_tick")
        await until(lambda: len(arena.hub.subscribers) == 2)
        while not waiting.done():
            await arena.step()
        narrowed = await waiting
        tick = await arena.step(2)
        for stream in (whole, part):
            while (await next_of(stream, StateChanged)).tick < tick:
                pass

        places = [whole.markets.index(name) for name in ("oil", "food")]
        assert narrowed.markets == ("oil", "food")
        assert everything.markets == tuple(whole.markets)
        for field, values in everything.values().items():
            assert isinstance(values, list)
            assert narrowed.series(field) == [values[place] for place in places]
        assert set(narrowed.values()) == set(everything.values())
        book = narrowed.book("food")
        best_bid, best_ask = narrowed.series("best_bid")[1], narrowed.series("best_ask")[1]
        assert (book.bids[0][0] if book.bids else 0) == best_bid
        assert (book.asks[0][0] if book.asks else 0) == best_ask
        assert [price for price, _ in book.bids] == sorted((price for price, _ in book.bids), reverse=True)
        assert [price for price, _ in book.asks] == sorted(price for price, _ in book.asks)


async def test_a_narrowed_subscription_outlives_its_connection() -> None:
    """It asks for the same again and goes on where it stood."""
    async with run_server() as arena, ArenaStream(arena.url) as stream:
        mirror = await stream.subscribe("market_tick", markets=["consol"], every=2)
        await arena.step(4)
        for subscriber in arena.hub.subscribers:
            subscriber.cut()
        tick = await arena.step(4)
        tick -= tick % 2

        while (mirror.tick or 0) < tick:
            update = await soon(anext(stream))
            assert not (isinstance(update, StateChanged) and update.is_snapshot and update.reason != "subscribed")

        assert mirror.stale is None
        assert stream.reconnects == 1
        assert mirror.markets == ("consol",)
