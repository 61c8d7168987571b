"""The private side of the stream on a real server: one's own agents, their actions, the end of a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_MSGPACK
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from engine.state import ORDER_COUNT
from server import documents, keys
from server.live.agent_records import end_of
from server.live.registry import KEYS_KEPT
from tests.support.arena import FORMS, Bot, RunningServer, run_server
from tests.support.live import soon
from tests.support.streams import until
from tests.support.worlds import small_config

TWINS = pytest.mark.parametrize("subprotocol", wire.SUBPROTOCOLS)
REST = {"type": "limit", "market": "food", "side": "buy", "quantity": 1, "price": "0.05"}


@dataclass
class Line:
    """A connection that keeps what came."""

    socket: Any
    subprotocol: str
    frames: list[dict[str, Any]] = field(default_factory=list)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def send(self, **message: Any) -> None:
        """Send a message."""
        await self.socket.send(wire.encode(message, self.subprotocol))

    async def next(self) -> dict[str, Any]:
        """Return the next message, and keep it when it is data."""
        message = wire.decode(await soon(self.socket.recv()), self.subprotocol)
        if message["type"] == "entries":
            documents.Entries.model_validate(message)
            self.frames.append(message)
        elif message["type"] == "accounts":
            documents.Accounts.model_validate(message)
            self.accounts |= {account["agent_id"]: account for account in message["accounts"]}
        return message

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and return its answer."""
        await self.send(**message)
        while (answer := await self.next())["type"] not in ("ack", "error"):
            pass
        assert answer["id"] == message["id"]
        return answer

    async def auth(self, bot: Bot, **options: Any) -> dict[str, Any]:
        """Show a bot's key."""
        return await self.ask(op="auth", id="auth", api_key=bot.api_key, **options)

    async def follow(self, **position: Any) -> dict[str, Any]:
        """Subscribe to the private channel."""
        return await self.ask(op="subscribe", id="agent", channel="agent", **position)

    async def act(self, bot: Bot, name: str, **action: Any) -> dict[str, Any]:
        """Send an action and return its answer."""
        content = {"client_action_id": name, **(action or REST)}
        return await self.ask(op="action", id=name, agent_id=bot.agent_id, action=content)

    async def reach(self, tick: int) -> list[dict[str, Any]]:
        """Read until a frame of a tick came, and return all entries so far."""
        while not self.frames or self.frames[-1]["tick"] < tick:
            await self.next()
        return [entry for frame in self.frames for entry in frame["entries"]]

    async def closed(self) -> int:
        """Return the code with which the server closes."""
        with suppress(ConnectionClosed):
            while True:
                await self.next()
        assert self.socket.close_code is not None
        return int(self.socket.close_code)


@asynccontextmanager
async def line(arena: RunningServer, subprotocol: str = SUBPROTOCOL_MSGPACK) -> AsyncIterator[Line]:
    """Connect and read the hello."""
    async with connect(arena.ws_url, subprotocols=[subprotocol], compression=None) as socket:  # type: ignore[list-item]
        connected = Line(socket, subprotocol)
        assert (await connected.next())["type"] == "hello"
        yield connected


def check_chain(frames: list[dict[str, Any]], seq: int) -> None:
    """Check the rule of the channel: every frame begins at or before where the one before it ended."""
    for frame in frames:
        assert frame["base"] <= seq < frame["seq"], frame
        seq = frame["seq"]


@TWINS
async def test_a_bot_sees_its_actions_fills_and_balance(subprotocol: str) -> None:
    """Outcomes by their names, changes of older orders, what it has afterwards; equal to receipts and account."""
    async with run_server() as arena, line(arena, subprotocol) as stream:
        bot, other = await arena.register(), await arena.register()
        await stream.auth(bot)
        ack = await stream.follow()
        assert ack == ack | {"seq": end_of(arena.tick), "resumed": False, "epoch": arena.hub.epoch}
        while bot.agent_id not in stream.accounts:
            await stream.next()
        assert stream.accounts[bot.agent_id] == await bot.account()

        for one in (bot, other):
            await one.act({"client_action_id": "rest", **REST})
        tick = await arena.step()
        (entry,) = await stream.reach(tick)

        receipt = await bot.receipt("rest")
        assert entry == {
            "entry": "outcome",
            "agent_id": bot.agent_id,
            "client_action_id": "rest",
            "seq": receipt["seq"],
            "type": "limit",
            "outcome": receipt["outcome"],
        }
        account = await bot.account()
        (balance,) = stream.frames[-1]["balances"]
        assert balance == {key: account[key] for key in balance}
        assert {"cash", "escrow", "debt", "advance", "holdings", "tick", "agent_id"} == set(balance)

        await bot.act({"client_action_id": "all", "type": "cancel_all"})
        tick = await arena.step()
        entries = await stream.reach(tick)

        assert [one["entry"] for one in entries[1:]] == ["outcome", "order"]
        assert entries[2]["order_id"] == str(receipt["seq"])
        assert (entries[2]["status"], entries[2]["market"], entries[2]["side"]) == ("cancelled", "food", "buy")
        check_chain(stream.frames, ack["seq"])
        assert {one["agent_id"] for one in entries} == {bot.agent_id}


async def test_several_connections_of_an_owner_each_get_everything() -> None:
    """Accounts and entries, whoever joined when, and whoever leaves."""
    async with run_server() as arena:
        bot = await arena.register()
        async with line(arena) as stays:
            await stays.auth(bot)
            await stays.follow()
            await arena.step()
            async with line(arena) as goes:
                await goes.auth(bot)
                await goes.follow()
                await arena.step(3)
                second = await arena.register(bot.api_key)
                for stream in (stays, goes):
                    await stream.reach(arena.tick)
                assert [one.group for one in arena.hub.subscribers] == [None, None], "each is told of its own accounts"
                await goes.ask(op="unsubscribe", id=1, channel="agent")
                await goes.follow()
                while second.agent_id not in goes.accounts:
                    await goes.next()
            assert second.agent_id not in stays.accounts, "what one asked for is not told to the other"
            await until(lambda: len(arena.hub.subscribers) == 1)
            await bot.act({"client_action_id": "late", **REST})
            entries = await stays.reach(await arena.step())

            assert [entry["client_action_id"] for entry in entries] == [None, "late"]


async def test_nobody_without_a_key_gets_in() -> None:
    """The channel and actions need one; the key of another owner shows another owner's agents."""
    async with run_server() as arena, line(arena) as stream:
        bot, other = await arena.register(), await arena.register()

        refused = await stream.follow()
        assert (refused["type"], refused["code"], refused["temporary"]) == ("error", 161, False)
        assert (await stream.act(bot, "a"))["code"] == 161
        await stream.auth(other)
        assert (await stream.act(bot, "a"))["code"] == 110, "not one of its agents"
        await stream.follow()
        await bot.act({"client_action_id": "b", **REST})
        await other.act({"client_action_id": "c", **REST})
        entries = await stream.reach(await arena.step())
        assert [entry["client_action_id"] for entry in entries] == ["c"]
        again = await stream.auth(bot)
        assert (again["type"], again["code"]) == ("error", 158), "a connection speaks for one owner"


@TWINS
async def test_an_action_is_acknowledged_when_it_is_on_disk(subprotocol: str) -> None:
    """With the receipt REST would give; the same action is recognised over every way in."""
    async with run_server() as arena, line(arena, subprotocol) as stream:
        bot = await arena.register()
        await stream.auth(bot)

        ack = await stream.act(bot, "a", type="limit", market="food", side="buy", quantity=2, price=0.05)

        receipt = ack["receipt"]
        assert ack == {"type": "ack", "op": "action", "id": "a", "receipt": receipt}
        assert receipt == await bot.receipt("a")
        assert arena.recorder.journal.durable_seq >= receipt["seq"]
        spelled = {"client_action_id": "a", **REST, "quantity": 2, "price": "0.050"}
        assert (await bot.act(spelled)).json() == {**receipt, "duplicate": True}
        again = await stream.act(
            bot, "a", **{key: value for key, value in spelled.items() if key != "client_action_id"}
        )
        assert again["receipt"] == {**receipt, "duplicate": True}
        conflict = await stream.act(bot, "a")
        assert (conflict["code"], conflict["status"], conflict["temporary"]) == (140, 409, False)
        await arena.step()
        assert int(arena.economy.state.counters[ORDER_COUNT]) == 1


async def test_what_rest_refuses_the_socket_refuses_with_the_same_words() -> None:
    """Code, status, errors and what is allowed; nothing is journaled."""
    async with run_server() as arena, line(arena) as stream:
        bot = await arena.register()
        await stream.auth(bot)
        before = arena.recorder.journal.next_seq
        for name, action in (
            ("quantity", {**REST, "quantity": 0}),
            ("unknown", {**REST, "color": "red"}),
            ("type", {"type": "dance"}),
            ("far", {**REST, "valid_until_tick": 10**9}),
        ):
            told = await stream.act(bot, name, **action)
            problem = (await bot.act({"client_action_id": name, **action})).json()

            assert told["type"] == "error"
            for key in ("code", "title", "detail", "temporary", "status", "errors"):
                assert told[key] == problem[key], key
            assert told["allowed"] == [error["allowed"] for error in problem["errors"]]
        assert arena.recorder.journal.next_seq == before


@pytest.mark.parametrize(
    "message",
    [
        {"agent_id": "a1"},
        {"agent_id": 1, "action": REST},
        {"agent_id": "a1", "action": "limit"},
        {"agent_id": "a1", "action": REST, "wait": True},
    ],
)
async def test_a_malformed_op_is_an_error_of_the_stream(message: dict[str, Any]) -> None:
    """A field that is missing, of another kind, or unknown."""
    async with run_server() as arena, line(arena) as stream:
        await stream.auth(await arena.register())

        assert (await stream.ask(op="action", id=1, **message))["code"] in (152, 153)


async def test_actions_count_for_the_key_and_not_as_control_messages() -> None:
    """More at once than control messages may come; beyond the key's rate they are refused, and may come again."""
    async with run_server(rate_limit=300) as arena, line(arena) as stream:
        bot = await arena.register()
        await stream.auth(bot)

        for i in range(40):
            await stream.send(op="action", id=i, agent_id=bot.agent_id, action={"client_action_id": f"a-{i}", **REST})
        answers = [await stream.next() for _ in range(40)]

        accepted = [answer["id"] for answer in answers if answer["type"] == "ack"]
        refused = [answer for answer in answers if answer["type"] == "error"]
        assert len(accepted) == 30, "a tenth of its requests a minute at once"
        assert accepted == sorted(accepted)
        assert {(one["code"], one["status"], one["temporary"], one["retry_after_s"]) for one in refused} == {
            (410, 429, True, 1)
        }


async def test_a_bot_may_act_as_often_over_its_socket_as_the_settings_say() -> None:
    """Far more actions at once than frames by default: none of them is a flood where both limits are raised."""
    async with run_server(rate_limit=60_000, client_frames_per_s=1_000) as arena, line(arena) as stream:
        bot = await arena.register()
        await stream.auth(bot)
        kinds = []
        for first in range(0, 500, 100):
            for i in range(first, first + 100):
                action = {"client_action_id": f"a-{i}", **REST}
                await stream.send(op="action", id=i, agent_id=bot.agent_id, action=action)
            kinds += [(await stream.next())["type"] for _ in range(100)]

        assert set(kinds) <= {"ack", "error"}
        assert len(kinds) == 500


async def test_one_key_has_so_many_connections() -> None:
    """One more is refused the key and goes on without it; what counts for a key counts for no address any more."""
    async with run_server(sockets_per_key_max=2, sockets_per_address_max=2) as arena, AsyncExitStack() as stack:
        bot, other = await arena.register(), await arena.register()
        lines = []
        for _ in range(2):
            lines.append(await stack.enter_async_context(line(arena)))
            assert (await lines[-1].auth(bot))["type"] == "ack"
        assert (await lines[0].auth(bot))["type"] == "ack", "the same key again takes no further place"
        third = await stack.enter_async_context(line(arena))

        refused = await third.auth(bot)

        assert (refused["type"], refused["code"], refused["temporary"]) == ("error", 163, True)
        assert "2 are open" in refused["detail"]
        assert (await third.follow())["code"] == 161
        assert (await third.auth(other))["type"] == "ack"
        await lines[0].socket.close()
        await until(lambda: len(arena.hub.subscribers) == 2)
        fourth = await stack.enter_async_context(line(arena))
        assert (await fourth.auth(bot))["type"] == "ack"


async def test_a_key_that_is_refused_for_another_reason_takes_no_place() -> None:
    """A connection speaks for one owner; asked to speak for another it counts as before."""
    async with run_server(sockets_per_key_max=1) as arena, line(arena) as stream, line(arena) as second:
        bot, other = await arena.register(), await arena.register()
        await stream.auth(bot)

        assert (await stream.auth(other))["code"] == 158
        assert (await second.auth(bot))["code"] == 163
        assert (await second.auth(other))["type"] == "ack"


async def test_a_lost_connection_resumes_without_a_gap() -> None:
    """What happened meanwhile comes first, nothing twice, then the accounts as they stand."""
    async with run_server() as arena:
        bot = await arena.register()
        async with line(arena) as stream:
            await stream.auth(bot)
            ack = await stream.follow()
            await stream.act(bot, "a")
            await stream.reach(await arena.step())
            first = stream.frames
        for name in "bcd":
            await bot.act({"client_action_id": name, **REST})
            await arena.step()
        async with line(arena) as stream:
            await stream.auth(bot)

            again = await stream.follow(epoch=arena.hub.epoch, seq=first[-1]["seq"])

            assert again["resumed"] is True
            assert "missed_from" not in again
            entries = await stream.reach(arena.tick)
            assert [entry["client_action_id"] for entry in entries] == ["b", "c", "d"]
            check_chain([*first, *stream.frames], ack["seq"])
            while bot.agent_id not in stream.accounts:
                await stream.next()
            assert len(stream.accounts[bot.agent_id]["orders"]) == 4


@pytest.mark.parametrize("form", FORMS)
async def test_each_action_of_a_batch_is_told_by_its_name(form: str) -> None:
    """In its order and under its sequence, in whatever form it came; what was refused is not."""
    async with run_server() as arena, line(arena) as stream:
        bot = await arena.register()
        mate = await arena.register(bot.api_key)
        await stream.auth(bot)
        await stream.follow()
        names = ["a", "a-longer-name", "refused", "b"]
        batch = [
            {"agent_id": one.agent_id, "client_action_id": name, **REST, "quantity": 0 if name == "refused" else 1}
            for one, name in zip((bot, mate, bot, mate), names, strict=True)
        ]

        response = await bot.act_all(batch, form)
        await bot.act({"client_action_id": "alone", **REST})
        entries = await stream.reach(await arena.step())

        assert response.status_code == 202, response.text
        told = [(entry["agent_id"], entry["client_action_id"]) for entry in entries]
        assert told == [
            (bot.agent_id, "a"), (mate.agent_id, "a-longer-name"), (mate.agent_id, "b"), (bot.agent_id, "alone"),
        ]  # fmt: skip
        for agent, entry in zip((bot, mate, mate, bot), entries, strict=True):
            receipt = await Bot(arena, agent.agent_id, bot.api_key).receipt(entry["client_action_id"])
            assert (entry["seq"], entry["outcome"]) == (receipt["seq"], receipt["outcome"])


@pytest.mark.parametrize("has_snapshot", [True, False], ids=["snapshot", "replay"])
async def test_it_resumes_across_a_restart(tmp_path: Path, has_snapshot: bool) -> None:
    """From the replay or the snapshot; a client sees the same frames it would have seen."""
    async with run_server(tmp_path, snapshot_ticks=4 if has_snapshot else 0) as arena:
        bot = await arena.register()
        async with line(arena) as stream:
            await stream.auth(bot)
            ack = await stream.follow()
            for name in ("a", "b", "c", "d", "e"):
                batch = [{"agent_id": bot.agent_id, "client_action_id": one, **REST} for one in (name, f"{name}-2")]
                assert (await bot.act_all(batch, "binary")).status_code == 202
                await stream.act(bot, f"{name}-3")
                await stream.reach(await arena.step())
        told = stream.frames

    async with run_server(tmp_path) as arena, line(arena) as stream:
        bot = Bot(arena, bot.agent_id, bot.api_key)
        await stream.auth(bot)
        again = await stream.follow(epoch=ack["epoch"], seq=told[1]["seq"])
        assert again["resumed"] is True
        assert "missed_from" not in again
        await stream.act(bot, "f")
        await stream.reach(await arena.step())

        for old, new in zip(told[2:], stream.frames, strict=False):
            assert [new[key] for key in ("seq", "base", "tick", "entries")] == [
                old[key] for key in ("seq", "base", "tick", "entries")
            ]
        names = [entry["client_action_id"] for frame in stream.frames for entry in frame["entries"]]
        assert names == [f"{name}{more}" for name in "cde" for more in ("", "-2", "-3")] + ["f"]
        check_chain(stream.frames, told[1]["seq"])


async def test_what_is_kept_no_longer_is_told() -> None:
    """From where on, up to where, and where it can be read."""
    async with run_server(resume_frames=5) as arena:
        bot = await arena.register()
        async with line(arena) as stream:
            await stream.auth(bot)
            ack = await stream.follow()
        await bot.act({"client_action_id": "a", **REST})
        await arena.step(12)
        async with line(arena) as stream:
            await stream.auth(bot)

            again = await stream.follow(epoch=ack["epoch"], seq=ack["seq"])

            assert again["resumed"] is True
            assert again["missed_from"] == ack["seq"] + 1
            assert again["missed_to"] >= ack["seq"]
            assert again["missed_at"] == "GET /api/agents/{agent_id}/actions/{client_action_id}"
            await stream.act(bot, "b")
            await stream.reach(await arena.step())
            check_chain(stream.frames, again["missed_to"])
        other = await stream_reason(arena, bot, epoch="another", seq=ack["seq"])
        assert other == {"resumed": False, "reason": "epoch"}
        ahead = await stream_reason(arena, bot, epoch=ack["epoch"], seq=2**50)
        assert ahead == {"resumed": False, "reason": "ahead"}


async def stream_reason(arena: RunningServer, bot: Bot, **position: Any) -> dict[str, Any]:
    """Return what the ack of a subscription from there says of it."""
    async with line(arena) as stream:
        await stream.auth(bot)
        ack = await stream.follow(**position)
        return {key: ack[key] for key in ("resumed", "reason")}


async def test_a_quiet_owner_is_told_that_nothing_happened() -> None:
    """So that its place to resume from does not grow old."""
    async with run_server() as arena, line(arena) as stream:
        bot = await arena.register()
        await stream.auth(bot)
        ack = await stream.follow()

        await arena.step(101)
        while not stream.frames:
            await stream.next()

        assert stream.frames[0]["entries"] == []
        assert stream.frames[0]["base"] == ack["seq"]
        assert stream.frames[0]["tick"] >= (ack["seq"] >> 12) + 100


async def test_a_revoked_key_closes_its_connections() -> None:
    """Within a second of the key's end."""
    async with run_server(by_hand=False) as arena, arena.client() as client:
        key = {"Idempotency-Key": "a-secret-name-of-mine"}
        made = (await client.post("/api/agents/register", json={}, headers=key)).json()
        bot = Bot(arena, made["agent_id"], made["api_key"])
        async with line(arena) as stream:
            await stream.auth(bot)
            await stream.follow()
            await client.post("/api/agents/register", json={}, headers=key)

            assert await stream.closed() == 4500


async def test_a_key_that_its_owner_has_too_many_closes_its_connections() -> None:
    """One whose agent left longest ago, when the owner registers once more."""
    async with run_server(engine=small_config(agents_per_owner_max=1)) as arena:
        first = await arena.register()
        await first.leave()
        old = await arena.register(first.api_key)
        await old.leave()
        async with line(arena) as stream:
            await stream.auth(old)
            for _ in range(KEYS_KEPT):
                await (await arena.register(first.api_key)).leave()
            assert arena.recorder.registry.owner_of_key(keys.digest(old.api_key)) is not None
            await arena.register(first.api_key)

            assert await stream.closed() == 4500


async def test_cancel_on_disconnect_ends_the_orders_with_the_last_connection() -> None:
    """Over REST placed ones too, alone or in a batch; a connection that did not ask changes nothing."""
    async with run_server() as arena:
        bot = await arena.register()
        counters = arena.economy.state.counters
        async with line(arena) as stream:
            assert (await stream.auth(bot))["cancel_on_disconnect"] is False
            await stream.act(bot, "a")
        await arena.step(2)
        assert int(counters[ORDER_COUNT]) == 1
        async with line(arena) as stream:
            assert (await stream.auth(bot, cancel_on_disconnect=True))["cancel_on_disconnect"] is True
            await stream.act(bot, "b")
            await bot.act({"client_action_id": "c", **REST})
            batch = [{"agent_id": bot.agent_id, "client_action_id": name, **REST} for name in "de"]
            assert (await bot.act_all(batch, "columns")).status_code == 202
            await arena.step()
            assert int(counters[ORDER_COUNT]) == 5
            assert int(arena.economy.state.agent_deadline.max()) > arena.tick
        await until(lambda: not arena.hub.subscribers)
        await arena.step()

        assert int(counters[ORDER_COUNT]) == 0
        assert not arena.economy.state.agent_deadline.any()


async def test_a_client_that_closes_as_a_server_would_has_its_orders_cancelled_too() -> None:
    """1012 is what our own server says when it stops; from a client it means no more than any other code."""
    async with run_server() as arena:
        bot = await arena.register()
        async with line(arena) as stream:
            await stream.auth(bot, cancel_on_disconnect=True)
            await stream.act(bot, "a")
            await arena.step()
            assert int(arena.economy.state.counters[ORDER_COUNT]) == 1
            await stream.socket.close(1012)
        await until(lambda: not arena.hub.subscribers)
        await arena.step()

        assert int(arena.economy.state.counters[ORDER_COUNT]) == 0


async def test_a_server_that_stops_leaves_the_orders_to_the_switch(tmp_path: Path) -> None:
    """Its clients are told to come back; who does finds its orders."""
    async with run_server(tmp_path) as arena:
        bot = await arena.register()
        stream = line(arena)
        connected = await stream.__aenter__()
        await connected.auth(bot, cancel_on_disconnect=True)
        await connected.act(bot, "a")
        await arena.step()
    await stream.__aexit__(None, None, None)

    async with run_server(tmp_path) as arena:
        await arena.step()

        assert int(arena.economy.state.counters[ORDER_COUNT]) == 1
        assert int(arena.economy.state.agent_deadline.max()) > arena.tick
