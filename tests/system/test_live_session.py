"""A short live session, whole: bots trade, mirrors follow, one keeps losing its connection; then replay and restart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from arena_client import ArenaClient, ArenaStream, Credentials, Receipt, StateChanged, wire
from arena_client.backoff import Backoff
from arena_client.wire import EVENT_CHANNELS, STATE_CHANNELS

from engine.events import TickReport
from engine.journal import Mark
from engine.markets import FINAL, NAMES
from engine.replay import Watch
from server.live.accounts import AccountReader
from server.live.frames import quantise
from server.live.journal import read_segments, segment_paths
from server.live.world import WARM_NAME, read_genesis, run_replay, start_economy
from tests.support.arena import RunningServer, run_server
from tests.support.deadlines import seconds
from tests.support.streams import until
from tests.support.watching import Follower
from tests.support.worlds import small_config

TICKS = 300
TICK_RATE_MS = 50
BOTS = 4
ACTIONS_A_TICK = 2
DROPS = 5
LONG_S = 120.0
DOCUMENTS = {
    "/api/markets": "market_tick",
    "/api/psychology": "psychology_update",
    "/api/indicators": "inflation_update",
    "/api/monetary": "inflation_update",
    "/api/scarcity": "scarcity_update",
}
BUSY = small_config(discovery_probability=0.1, catastrophe_probability=0.05)


@dataclass
class Played:
    """What a session left behind.

    hashes: of the live world, by tick. documents: path and answer of every GET. early: the follower that left before
    the end. mirrored: states by channel and tick, as the SDK's streams showed them. actions: whose, and under which
    id. started: the tick before the first; seen: the tick that everybody had seen when the server was stopped.
    """

    folder: Path
    arena: RunningServer
    hashes: dict[int, bytes]
    documents: list[tuple[str, dict[str, Any]]]
    followers: list[Follower]
    early: Follower
    streams: list[ArenaStream]
    mirrored: list[dict[str, dict[int, Mapping[str, wire.Value]]]]
    credentials: list[Credentials]
    actions: list[tuple[Credentials, str]] = field(default_factory=list)
    started: int = 0
    seen: int = 0


@dataclass
class Replay(Watch):
    """What a replay shows of every tick: the states of all channels and the hash."""

    hashes: dict[int, bytes] = field(default_factory=dict)
    states: dict[str, dict[int, wire.State]] = field(default_factory=lambda: {name: {} for name in STATE_CHANNELS})
    events: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in EVENT_CHANNELS})
    economy: Any = None

    def tick(self, report: TickReport, mark: Mark) -> None:
        """Remember a tick."""
        self.hashes[report.tick] = self.economy.state_hash()
        for channel, state in quantise(report.public).items():
            self.states[channel][report.tick] = state
        for event in report.events:
            if event.channel in self.events:
                self.events[event.channel].append(event.number)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play the session once for all tests of this file."""
    return asyncio.run(play(tmp_path_factory.mktemp("session") / "world"))


@pytest.fixture(scope="module")
def replayed(played: Played) -> Replay:
    """Replay its journal, every stored hash checked."""
    return replay(played.folder)


def test_no_tick_is_missing(played: Played, replayed: Replay) -> None:
    """The journal has a mark for every tick, and every follower got each of them on every channel."""
    last = played.arena.ticker.published_tick

    assert sorted(replayed.hashes) == list(range(played.started + 1, last + 1))
    for follower in played.followers:
        for channel in STATE_CHANNELS:
            ticks = list(follower.states[channel])
            assert ticks == list(range(ticks[0], ticks[-1] + 1))
            assert ticks[-1] >= played.seen >= played.started + TICKS
        assert follower.close_code == 1012


def test_every_mirror_equals_the_get_with_the_same_tick(played: Played) -> None:
    """Every number of five documents, at every tick that was asked for, in all ten mirrors."""
    mirrors = [follower.states for follower in played.followers] + played.mirrored
    compared = [0] * len(mirrors)
    for path, document in played.documents:
        channel, shown = DOCUMENTS[path], values_of(document)
        scales = played.followers[0].mirrors[channel].scales
        for number, seen in enumerate(mirrors):
            state = seen[channel].get(document["tick"])
            if state is not None:
                assert {name: scaled(state[name], scales[name]) for name in shown} == shown
                compared[number] += 1

    assert len(played.documents) >= 5 * TICKS / 20
    # a follower has every tick since it came; the SDK passes over a tick when two came at once, or while it was away
    assert min(compared[: len(played.followers)]) > 0.9 * len(played.documents)
    assert min(compared) > 0


def test_every_mirror_equals_the_replayed_world_at_every_tick(played: Played, replayed: Replay) -> None:
    """What was streamed is what the journal leads to, value by value, in both encodings."""
    for seen in [follower.states for follower in played.followers] + played.mirrored:
        for channel in STATE_CHANNELS:
            for tick, state in seen[channel].items():
                if tick in replayed.states[channel]:
                    assert state == replayed.states[channel][tick], f"{channel} of tick {tick}"


def test_events_come_numbered_without_a_gap(played: Played, replayed: Replay) -> None:
    """Each follower saw a run of the numbers the world gave, up to the end."""
    for follower in played.followers:
        for channel, numbers in follower.events.items():
            assert numbers
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            assert set(numbers) <= set(replayed.events[channel])


def test_a_stream_that_loses_its_connection_resumes_without_a_gap(played: Played) -> None:
    """The server cut it again and again; it came back each time, never out of step."""
    *others, dropped = played.streams

    assert dropped.reconnects == DROPS
    assert [stream.reconnects for stream in others] == [0] * len(others)
    for stream in played.streams:
        assert stream.resyncs == 0
        for channel in STATE_CHANNELS:
            assert stream.mirror(channel).verified_seq is not None


def test_the_bots_did_something(played: Played, replayed: Replay) -> None:
    """Hundreds of actions, of every kind of outcome but the rare ones."""
    receipts = [kept(played.arena, credentials, action_id) for credentials, action_id in played.actions]
    outcomes = {receipt["outcome"]["status"] for receipt in receipts}

    assert len(played.actions) >= TICKS
    assert {"filled", "resting", "rejected", "done"} <= outcomes


def test_the_replay_gives_the_same_hash_at_every_mark(played: Played, replayed: Replay) -> None:
    """The state hash after every tick of the live world is that of the replayed one, down to the last."""
    assert len(played.hashes) >= TICKS
    assert {tick: replayed.hashes[tick] for tick in played.hashes} == played.hashes
    assert max(played.hashes) == played.arena.ticker.published_tick
    assert played.hashes[max(played.hashes)] == played.arena.economy.state_hash()


async def test_the_world_goes_on_where_it_stood(played: Played, replayed: Replay) -> None:
    """Started again on the folder: tick, hash, epoch, agents, keys and receipts are there, streams resume."""
    live, last = played.arena, played.arena.ticker.published_tick
    async with run_server(played.folder, engine=BUSY) as arena:
        assert arena.tick == last
        assert arena.parts.world.epoch == live.parts.world.epoch
        assert arena.economy.state_hash() == live.economy.state_hash()
        for credentials in played.credentials:
            await check_account(played, arena, credentials)
        await check_receipts(played, arena)
        resumed = await resume(played, arena)
        await arena.step(24)
        after = arena.economy.state_hash(), arena.tick

    again = replay(played.folder)
    assert after == (again.hashes[last + 24], last + 24)
    assert {tick: again.hashes[tick] for tick in replayed.hashes} == replayed.hashes
    assert {channel: ack["resumed"] for channel, ack in resumed.acks.items()} == dict.fromkeys(resumed.acks, True)
    for channel in STATE_CHANNELS:
        ticks = list(resumed.states[channel])
        assert ticks == list(range(ticks[0], last + 1))
        assert {tick: resumed.states[channel][tick] for tick in ticks[1:]} == {
            tick: replayed.states[channel][tick] for tick in ticks[1:]
        }
    for channel, numbers in resumed.events.items():
        assert numbers == list(range(numbers[0], replayed.events[channel][-1] + 1))


# --- the session -------------------------------------------------------------------------------------------------
async def play(folder: Path) -> Played:
    """Run the session and return what was seen."""
    async with asyncio.timeout(seconds(LONG_S)):
        async with run_server(
            folder, by_hand=False, engine=BUSY, tick_rate=TICK_RATE_MS, rate_limit=1_000_000
        ) as arena:
            hashes = hashed(arena)
            backoff = Backoff(base_s=0.01, cap_s=0.05)
            streams = [ArenaStream(arena.url, subprotocol=name) for name in (*wire.SUBPROTOCOLS, wire.SUBPROTOCOLS[0])]
            # known to the server by its key, so that it can be told from the others
            key = await registered(arena)
            streams.append(ArenaStream(arena.url, api_key=key, subprotocol=wire.SUBPROTOCOLS[1], backoff=backoff))
            followers = [Follower(arena.ws_url, name) for name in wire.SUBPROTOCOLS * 3]
            early = Follower(arena.ws_url, wire.SUBPROTOCOL_MSGPACK)
            played = Played(folder, arena, hashes, [], followers, early, streams, [], [])
            played.started = arena.parts.world.start_tick
            end = arena.tick + TICKS
            following = [asyncio.create_task(follower.run()) for follower in followers]
            leaving = asyncio.create_task(early.run())
            mirroring = []
            for stream in streams:
                played.mirrored.append({channel: {} for channel in STATE_CHANNELS})
                mirroring.append(asyncio.create_task(mirror(stream, played.mirrored[-1])))
                await until_tick(arena, arena.tick + 2)
            clients = [ArenaClient(arena.url) for _ in range(BOTS)]
            async with asyncio.TaskGroup() as tasks:
                for seed, client in enumerate(clients):
                    tasks.create_task(trade(played, client, random.Random(seed), end))
                tasks.create_task(read(played, end))
                tasks.create_task(drop(arena, streams[-1], end))
                tasks.create_task(leave_early(arena, early, leaving, end - 20))
            # what was sent last is decided, and everybody has seen it
            await until_tick(arena, arena.tick + 5)
            played.seen = arena.tick
            await until(lambda: all(follower.tick >= played.seen for follower in followers) or ended(following), 20)
            assert not ended(following), [task for task in following if task.done()]
            await asyncio.gather(*(settle(played, client) for client in clients))
            for task in mirroring:
                task.cancel()
            await asyncio.gather(*mirroring, return_exceptions=True)
        await asyncio.gather(*following)
    return played


def hashed(arena: RunningServer) -> dict[int, bytes]:
    """Have the hash of the live world taken after every tick from now on, in the thread that ran it."""
    hashes: dict[int, bytes] = {}
    economy, advance = arena.economy, arena.economy.advance

    def advance_and_hash(*given: Any) -> TickReport:
        report = advance(*given)
        hashes[report.tick] = economy.state_hash()
        return report

    economy.advance = advance_and_hash  # type: ignore[method-assign]  # the thing itself, and a look at it
    return hashes


async def until_tick(arena: RunningServer, tick: int) -> None:
    """Return when that tick is published."""
    await arena.ticker.wait_tick(tick)


async def mirror(stream: ArenaStream, kept: dict[str, dict[int, Mapping[str, wire.Value]]]) -> None:
    """Follow all channels with the SDK until cancelled, and keep the states it shows."""
    async with stream:
        for channel in STATE_CHANNELS:
            await stream.subscribe(channel)
        for channel in EVENT_CHANNELS:
            await stream.follow(channel)
        async for update in stream:
            if isinstance(update, StateChanged):
                kept[update.channel][update.tick] = update.mirror.state


def ended(tasks: list[asyncio.Task[None]]) -> bool:
    """Return whether any of them is over."""
    return any(task.done() for task in tasks)


async def registered(arena: RunningServer) -> str:
    """Register an agent that does nothing, and return its key."""
    async with arena.client() as client:
        key: str = (await client.post("/api/agents/register")).json()["api_key"]
        return key


async def drop(arena: RunningServer, stream: ArenaStream, end: int) -> None:
    """Cut the connection of the stream with a key several times, evenly over the session."""
    gap = (end - arena.tick) // (DROPS + 1)
    for count in range(DROPS):
        await until_tick(arena, arena.tick + gap)
        await until(lambda: stream.is_connected and stream.reconnects == count, 20)  # noqa: B023 - awaited at once
        (subscriber,) = [one for one in arena.hub.subscribers if one.key_hash is not None]
        subscriber.cut()


async def leave_early(arena: RunningServer, early: Follower, leaving: asyncio.Task[None], tick: int) -> None:
    """Let one follower go before the end: it will resume after the restart."""
    await until_tick(arena, tick)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving


async def read(played: Played, end: int) -> None:
    """Get every document now and then."""
    async with httpx2.AsyncClient(base_url=played.arena.url, timeout=seconds(20)) as client:
        while played.arena.tick < end:
            for path in DOCUMENTS:
                played.documents.append((path, (await client.get(path)).json()))
            await until_tick(played.arena, played.arena.tick + 10)


async def trade(played: Played, client: ArenaClient, chance: random.Random, end: int) -> None:
    """Register and do anything an agent may do, well or badly, some of it in batches, until the end."""
    credentials = await client.register()
    while (tick := played.arena.tick) < end:
        prices = [row["price"] for row in await client.markets()]
        actions = [wish(chance, prices) for _ in range(ACTIONS_A_TICK)]
        if chance.random() < 0.2:
            accepted = await client.batch(actions)
        else:
            accepted = [await client.act(action) for action in actions]
        for receipt in accepted:
            assert isinstance(receipt, Receipt)
            played.actions.append((credentials, receipt.client_action_id))
        await until_tick(played.arena, tick + 1)


def wish(chance: random.Random, prices: list[float]) -> dict[str, Any]:
    """Return a random action."""
    market = chance.randrange(len(NAMES))
    quantity = chance.randint(1, 5)
    kind = chance.choice(["limit"] * 8 + ["market"] * 4 + ["borrow", "repay", "produce", "consume", "set_sentiment"])
    action: dict[str, Any] = {"type": kind}
    if kind in ("limit", "market"):
        side = chance.choice(["buy", "buy", "sell"])
        action |= {"market": NAMES[market], "side": side, "quantity": quantity}
    if kind == "limit":
        action["price"] = f"{prices[market] * chance.uniform(0.9, 1.1):.6f}"
        action["time_in_force"] = chance.choice(["gtc", "ioc"])
    elif kind in ("borrow", "repay"):
        action["amount"] = chance.randint(1, 50)
    elif kind in ("produce", "consume"):
        action |= {"market": chance.choice(FINAL), "quantity": quantity}
    elif kind == "set_sentiment":
        action |= {mood: round(chance.random(), 3) for mood in ("sentiment", "fear", "greed", "confidence")}
    return action


async def settle(played: Played, client: ArenaClient) -> None:
    """Note whose agent it was, and close."""
    assert client.credentials is not None
    played.credentials.append(client.credentials)
    await client.close()


# --- afterwards --------------------------------------------------------------------------------------------------
def replay(folder: Path) -> Replay:
    """Compute a world again from its journal. Raises when a stored hash differs."""
    records = read_segments(segment_paths(folder))
    economy = start_economy(read_genesis(folder), folder / WARM_NAME)
    watch = Replay(economy=economy)
    done = run_replay(economy, records, watch)
    assert records.is_clean
    assert records.torn is None
    assert done.hashes_checked >= TICKS // 10 - 2
    return watch


def values_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a document as a mirror holds them: by field, or by field and market."""
    rows = document.get("markets") or document.get("resources")
    if rows is None:
        return dict(document["values"])
    return {name: [row[name] for row in rows] for name in rows[0] if name not in ("id", "name", "day")}


def scaled(value: wire.Value, scale: int) -> Any:
    """Return a value of a mirror in its unit."""
    if scale == 1:
        return value
    return [entry / scale for entry in value] if isinstance(value, list) else value / scale


def kept(arena: RunningServer, credentials: Credentials, action_id: str) -> dict[str, Any]:
    """Return the receipt of an action as a server holds it."""
    receipt = arena.recorder.receipts.get(int(credentials.agent_id[1:]), action_id)
    assert receipt is not None
    return receipt.document(False)


async def check_account(played: Played, arena: RunningServer, credentials: Credentials) -> None:
    """See that an agent is there, opened by its key, with all it had."""
    async with arena.client(credentials.api_key) as client:
        account = (await client.get(f"/api/agents/{credentials.agent_id}")).json()

    assert account == AccountReader(played.arena.economy).document(int(credentials.agent_id[1:]))


async def check_receipts(played: Played, arena: RunningServer) -> None:
    """See that every receipt is there with its outcome; some are asked for with the keys of before."""
    for number, (credentials, action_id) in enumerate(played.actions):
        document = kept(played.arena, credentials, action_id)
        assert document["outcome"] is not None
        assert kept(arena, credentials, action_id) == document
        if number % 50 == 0:
            async with arena.client(credentials.api_key) as client:
                path = f"/api/agents/{credentials.agent_id}/actions/{action_id}"
                assert (await client.get(path)).json() == document


async def resume(played: Played, arena: RunningServer) -> Follower:
    """Let the follower that left early come back to the restarted server, and return it when it is in step."""
    early = played.early
    early.ws_url, early.acks = arena.ws_url, {}
    following = asyncio.create_task(early.run())
    await until(lambda: following.done() or (early.tick >= arena.tick and len(early.acks) == 6), 20)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    return early
