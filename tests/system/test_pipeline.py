"""The pipelines of document 004 on a running server: one action through all stages, and one tick to all readers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import numpy as np
import pytest
from arena_client import wire
from arena_client.wire import EVENT_CHANNELS, STATE_CHANNELS, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from numpy.typing import NDArray

from engine.commands import Command
from engine.events import TickReport
from engine.journal import Mark, RecordKind, decode_actions, decode_mark, is_input
from engine.markets import ID
from engine.messages import ACTION
from engine.phases.psychology import volatility_multiplier
from engine.tick import PHASES
from server.clock import ManualClock
from server.live import topics
from server.live.journal import scan_segment, segment_paths
from server.live.recorder import Input, Submitted
from server.live.view import View
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.deadlines import seconds
from tests.support.disks import Disk
from tests.support.streams import Watcher, until
from tests.support.watching import watch
from tests.support.worlds import small_config

TWINS = pytest.mark.parametrize("subprotocol", wire.SUBPROTOCOLS)
BUY: dict[str, Any] = {"type": "limit", "market": "food", "side": "buy", "quantity": 3, "price": "1.5"}


# --- row 4.65a: Agent Action -> Validation -> Market Queue -> Processing -> Price Update -> Event Emission -------
async def test_one_action_passes_all_stages_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sequence number is seen at each stage in turn, and at the end by a subscriber at the price it moved."""
    async with run_server() as arena:
        bot = await arena.register()
        trace = Trace(arena, monkeypatch)
        async with watch(arena.ws_url) as watcher:
            await watcher.ask(op="subscribe", id=1, channel="market_tick")
            before = (await watcher.next())["state"]
            response = await submit(bot, {"client_action_id": "followed", **BUY}, "request-1")
            await arena.step()
            frame = await watcher.next()
        receipt = await bot.receipt("followed")

    seq = response.json()["seq"]
    assert response.headers["x-request-id"] == "request-1"
    assert trace.stages(seq, "followed") == [
        "validation", "market queue", "processing", "price update", "event emission",
    ]  # fmt: skip
    assert trace.phases == ["intake", *(name for name, _ in PHASES)]
    assert (receipt["seq"], receipt["tick"]) == (seq, frame["tick"])
    after = wire.apply(before, frame)
    outcome, food = receipt["outcome"], ID["food"]
    assert (outcome["order_id"], outcome["status"], outcome["filled"]) == (str(seq), "filled", 3)
    assert round(float(outcome["price"]) * 1e6) == at(after, "price", food)
    assert at(after, "volume", food) >= 3


async def test_an_action_refused_at_validation_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told why, and no stage behind ever sees it."""
    async with run_server() as arena:
        bot = await arena.register()
        trace = Trace(arena, monkeypatch)

        response = await submit(bot, {"client_action_id": "refused", **BUY, "quantity": 0}, "request-2")
        await arena.step()

    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "quantity")
    assert response.json()["request_id"] == "request-2"
    assert trace.seen == []


async def test_actions_are_processed_in_the_order_of_their_sequence() -> None:
    """What came first gets the last free credit, whatever its id or agent."""
    async with run_server() as arena:
        bot = await arena.register()
        orders = [{"client_action_id": name, **BUY, "quantity": 1_000, "price": "0.6"} for name in ("z", "a", "m")]

        accepted = [(await bot.act(order)).json()["seq"] for order in orders]
        await arena.step()
        codes = [(await bot.receipt(name))["outcome"]["code"] for name in ("z", "a", "m")]
        outcomes = arena.parts.published.view.report.outcomes["seq"].tolist()

    assert accepted == sorted(accepted) == outcomes
    assert codes == [0, 201, 201]


# --- row 4.65b: Psychology Update -> Volatility Calculation -> Real-time Broadcast -------------------------------
async def test_psychology_volatility_and_broadcast_are_of_the_same_tick() -> None:
    """Minds that change before a tick show in that tick's frames: the moods, and the multiplier made of them."""
    async with run_server() as arena, watch(arena.ws_url) as watcher:
        states: dict[str, wire.State] = {}
        for channel in ("psychology_update", "market_tick"):
            await watcher.ask(op="subscribe", id=channel, channel=channel)
            states[channel] = (await watcher.next())["state"]
        calm = dict(states)
        # the world stands still between two ticks
        arena.economy.state.fear[:] = 30_000
        tick = await arena.step()
        for _ in states:
            frame = await watcher.next()
            assert (frame["tick"], frame["base"]) == (tick, tick - 1)
            states[frame["channel"]] = wire.apply(states[frame["channel"]], frame)

    minds, weights = states["psychology_update"], arena.parts.settings.engine
    moods = [one(minds, name) / 1e6 for name in ("fear", "greed", "herding", "extremity")]
    expected = volatility_multiplier(*moods, weights.fear_weight, weights.greed_weight, weights.sentiment_weight)
    assert one(minds, "fear") > 800_000 > one(calm["psychology_update"], "fear")
    assert one(minds, "volatility_multiplier") / 1e6 == pytest.approx(expected, abs=3e-6)
    assert one(minds, "volatility_multiplier") > one(calm["psychology_update"], "volatility_multiplier") + 200_000
    oil = ID["oil"]
    grown = at(states["market_tick"], "volatility_multiplier", oil)
    assert grown > at(calm["market_tick"], "volatility_multiplier", oil) + 200_000


# --- row 4.67: Core Engines -> Aggregation -> Caching Layer -> WebSocket Broadcasting ----------------------------
async def test_a_frame_is_encoded_once_for_all_who_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighteen subscribers of two encodings, five ticks: one encoding and one framing a channel, tick and encoding."""
    encoded: Counter[tuple[str, int, str]] = Counter()
    framed: Counter[bytes | str] = Counter()
    encode, prebuilt = wire.encode, topics.prebuilt

    def counting_encode(message: Any, subprotocol: str) -> bytes | str:
        if message.get("type") == "delta":
            encoded[message["channel"], message["seq"], subprotocol] += 1
        return encode(message, subprotocol)

    def counting_prebuilt(payload: bytes | str) -> bytes:
        framed[payload] += 1
        return prebuilt(payload)

    async with run_server() as arena, AsyncExitStack() as stack:
        watchers = [
            await stack.enter_async_context(watch(arena.ws_url, subprotocol))
            for subprotocol in (SUBPROTOCOL_MSGPACK,) * 12 + (SUBPROTOCOL_JSON,) * 6
        ]
        for watcher in watchers:
            for channel in STATE_CHANNELS:
                await watcher.ask(op="subscribe", id=channel, channel=channel)
                await watcher.next()
        monkeypatch.setattr(wire, "encode", counting_encode)
        monkeypatch.setattr(topics, "prebuilt", counting_prebuilt)
        first = arena.tick + 1
        last = await arena.step(5)
        received = {
            subprotocol: [
                [await raw(watcher) for _ in range(20)] for watcher in watchers if watcher.subprotocol == subprotocol
            ]
            for subprotocol in wire.SUBPROTOCOLS
        }

    assert encoded == {
        (channel, tick, subprotocol): 1
        for channel in STATE_CHANNELS
        for tick in range(first, last + 1)
        for subprotocol in wire.SUBPROTOCOLS
    }
    assert set(framed.values()) == {1}
    assert len(framed) == 2 * 20
    for rows in received.values():
        assert rows == [rows[0]] * len(rows)
        assert set(rows[0]) <= set(framed)


# --- rows 4.70: the six channels ---------------------------------------------------------------------------------
@TWINS
async def test_all_six_channels_arrive_complete_and_in_order(subprotocol: str) -> None:
    """A world of endless finds and disasters: each channel counts on by one, and ticks come one after another."""
    busy = small_config(discovery_probability=1.0, catastrophe_probability=1.0)
    async with run_server(engine=busy) as arena, watch(arena.ws_url, subprotocol) as watcher:
        at_start: dict[str, int] = {}
        for channel in (*STATE_CHANNELS, *EVENT_CHANNELS):
            ack = await watcher.ask(op="subscribe", id=channel, channel=channel)
            at_start[channel] = ack["seq"]
            if channel in STATE_CHANNELS:
                assert (await watcher.next())["type"] == "snapshot"
        first = arena.tick + 1
        last = await arena.step(12)
        frames = [await watcher.next() for _ in range(6 * 12)]

    assert [frame["tick"] for frame in frames] == sorted(frame["tick"] for frame in frames)
    for channel, start in at_start.items():
        mine = [frame for frame in frames if frame["channel"] == channel]
        assert [frame["seq"] for frame in mine] == list(range(start + 1, start + 13))
        assert [frame["base"] for frame in mine] == list(range(start, start + 12))
        assert [frame["tick"] for frame in mine] == list(range(first, last + 1))
    names = {frame["channel"]: frame["event"]["name"] for frame in frames if frame["type"] == "event"}
    assert names == {"discovery_event": "resource_discovered", "catastrophic_event": "catastrophe_struck"}


# --- D19: what is on disk before what is said --------------------------------------------------------------------
async def test_an_action_is_acknowledged_only_when_it_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk does not answer, neither action, registration, leaving nor receipt is answered; reads are."""
    disk = Disk(monkeypatch)
    async with run_server() as arena:
        bot = await arena.register()
        with disk.shut():
            waiting = [
                asyncio.create_task(bot.act({"client_action_id": "one", **BUY})),
                asyncio.create_task(request(arena, None, "POST", "/api/agents/register")),
                asyncio.create_task(leave_at_once(bot)),
            ]
            await until(lambda: disk.is_busy and len(arena.parts.world.queue) == 3)
            waiting.append(
                asyncio.create_task(request(arena, bot, "GET", f"/api/agents/{bot.agent_id}/actions/one")),
            )
            read = [(await request(arena, bot, "GET", "/api/indicators")).status_code for _ in range(5)]
            answered = [task.done() for task in waiting]
        async with asyncio.timeout(seconds(20)):
            answers = [(await task).status_code for task in waiting]

    assert read == [200] * 5
    assert answered == [False] * 4
    assert answers == [202, 201, 202, 200]


async def test_a_tick_is_shown_only_when_its_mark_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are done, the disk is not: GET, receipt and stream still show the tick before, then all the next."""
    disk = Disk(monkeypatch)
    async with run_server() as arena, watch(arena.ws_url) as watcher:
        bot = await arena.register()
        await watcher.ask(op="subscribe", id=1, channel="market_tick")
        shown = (await watcher.next())["seq"]
        assert (await bot.act({"client_action_id": "one", **BUY})).status_code == 202
        clock = arena.clock
        assert isinstance(clock, ManualClock)
        with disk.shut():
            clock.advance(arena.parts.settings.tick_rate / 1_000)
            await until(lambda: disk.is_busy and arena.economy.tick == shown + 1)
            indicators = await request(arena, None, "GET", "/api/indicators")
            receipt = await bot.receipt("one")
            pong = await watcher.ask(op="ping", id=2)
        async with asyncio.timeout(seconds(20)):
            await arena.ticker.wait_tick(shown + 1)
        frame = await watcher.next()
        later = await request(arena, None, "GET", "/api/indicators")
        decided = await bot.receipt("one")

    assert (indicators.json()["tick"], indicators.headers["arena-tick"]) == (shown, str(shown))
    assert (receipt["tick"], receipt["outcome"]) == (None, None)
    assert (pong["type"], pong["tick"]) == ("ack", shown)
    assert (frame["type"], frame["seq"], later.json()["tick"]) == ("delta", shown + 1, shown + 1)
    assert (decided["tick"], decided["outcome"]["status"]) == (shown + 1, "filled")


async def test_an_action_stands_in_the_journal_before_the_mark_of_its_tick() -> None:
    """Behind the mark before, ahead of its own; each mark says how many actions it ended."""
    async with run_server() as arena:
        bot = await arena.register()
        for number in range(9):
            accepted = await bot.act({"client_action_id": f"n{number}", **BUY, "quantity": 1})
            assert accepted.status_code == 202
            if number % 3 == 2:
                await arena.step()
        receipts = [await bot.receipt(f"n{number}") for number in range(9)]
        path = segment_paths(arena.parts.world.folder)[0]
        # read while the world is open: everything shown is on disk
        marks: dict[int, tuple[int, Mark]] = {}
        actions: dict[int, str] = {}
        for record in scan_segment(path):
            if record.kind is RecordKind.MARK:
                mark = decode_mark(record.payload)
                marks[mark.tick] = (record.sequence, mark)
            elif is_input(record):
                actions.update(enumerate(decode_actions(record).client_action_ids, record.sequence))

    assert [receipt["tick"] - receipts[0]["tick"] for receipt in receipts] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for number, receipt in enumerate(receipts):
        mark_seq, mark = marks[receipt["tick"]]
        assert marks[receipt["tick"] - 1][0] < receipt["seq"] < mark_seq
        assert (actions[receipt["seq"]], mark.actions) == (f"n{number}", 3)


# --- helpers -----------------------------------------------------------------------------------------------------
class Trace:
    """What each stage of a running server saw, in the order in which it happened; every stage does its work as ever.

    seen: stage, and the sequences or client_action_ids it saw. phases: of the last tick, in order.
    """

    def __init__(self, arena: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, list[Any]]] = []
        self.phases: list[str] = []
        parts, economy = arena.parts, arena.economy
        take, add = parts.recorder.take, parts.world.queue.add
        advance, publish = economy.advance, parts.hub.publish

        def watched_take(given: Input) -> Submitted:
            # what validation has let pass
            self._note("validation", [given.client_action_id])
            return take(given)

        def watched_add(row: bytes) -> None:
            self._note("market queue", np.frombuffer(row, ACTION)["seq"].tolist())
            add(row)

        def watched_advance(
            actions: NDArray[np.void], observe: Callable[[str], None], commands: Sequence[Command]
        ) -> TickReport:
            def observe_too(name: str) -> None:
                self.phases.append(name)
                outcomes = economy.state.outcomes
                if name == "intake":
                    # an order has no outcome yet: it waits for the auction in a row of its own
                    orders = economy.state.new_order["id"][: economy.state.new_order_count[0]]
                    self._note("processing", outcomes["seq"].tolist() + orders.tolist())
                elif name == "prices":
                    self._note("price update", outcomes["seq"][outcomes["filled"] > 0].tolist())
                observe(name)

            return advance(actions, observe_too, commands)

        def watched_publish(view: View) -> None:
            self._note("event emission", view.report.outcomes["seq"].tolist())
            publish(view)

        monkeypatch.setattr(parts.recorder, "take", watched_take)
        monkeypatch.setattr(parts.world.queue, "add", watched_add)
        monkeypatch.setattr(economy, "advance", watched_advance)
        told = arena.ticker._on_publish
        assert publish in told
        watched = tuple(watched_publish if callback == publish else callback for callback in told)
        monkeypatch.setattr(arena.ticker, "_on_publish", watched)

    def stages(self, seq: int, client_action_id: str) -> list[str]:
        """Return the stages that saw an action, in order."""
        return [stage for stage, what in self.seen if seq in what or client_action_id in what]

    def _note(self, stage: str, what: list[Any]) -> None:
        if what:
            self.seen.append((stage, what))


async def raw(watcher: Watcher) -> bytes | str:
    """Return the next message as it came."""
    return await asyncio.wait_for(watcher.connection.recv(), seconds(5))


async def request(arena: RunningServer, bot: Bot | None, method: str, path: str, **headers: str) -> httpx2.Response:
    """Send a request without a body."""
    async with arena.client(bot.api_key if bot else None) as client:
        return await client.request(method, path, headers=headers)


async def submit(bot: Bot, action: dict[str, Any], request_id: str) -> httpx2.Response:
    """Post an action under a request id of one's own."""
    async with bot.arena.client(bot.api_key) as client:
        return await client.post(
            f"/api/agents/{bot.agent_id}/action", json=action, headers={"X-Request-Id": request_id}
        )


async def leave_at_once(bot: Bot) -> httpx2.Response:
    """Unregister without waiting for the tick."""
    return await request(bot.arena, bot, "DELETE", f"/api/agents/{bot.agent_id}", Prefer="respond-async")


def at(state: wire.State, field: str, index: int) -> int:
    """Return one entry of a list."""
    column = state[field]
    assert isinstance(column, list)
    return column[index]


def one(state: wire.State, field: str) -> int:
    """Return a single value."""
    value = state[field]
    assert isinstance(value, int)
    return value
