"""Thousands of faults between many clients and a server that is killed and started again, until all is calm."""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from arena_client import wire

from loadtest.faults.private import Bot, Owner, broken_entries, is_registration
from loadtest.faults.proxy import FaultProxy
from loadtest.faults.referee import EVENTS, NARROWED, STATE, Client, Narrowing, Referee
from loadtest.process import FIRST_START_S, ServerProcess, free_port

WORLD = (
    "--residents", "2000", "--tick-rate", "50", "--discovery-probability", "0.05", "--catastrophe-probability", "0.05",
    "--rate-limit", "10000000",
)  # fmt: skip
"""Small and quick, and so full of events that every fault may hit one."""
NARROWING = Narrowing(("food", "housing", "oil"), 3)
"""Of one client of each encoding, beside the others."""
RATE = 0.06
"""Share of the frames that something happens to."""
CALM_TICKS = 40
CALM_S = 60.0
START_S = 300.0
DOWN_S = 0.5
"""Longest between the end of a server and the command that starts it again."""
SEED = 1


async def run(folder: Path, faults: int, restarts: int, clients: int, seed: int = SEED) -> dict[str, Any]:
    """Inject at least so many faults and restarts, let everything become calm, and return what was seen."""
    chance, port = random.Random(seed), free_port()
    server = await _started(folder, port, FIRST_START_S)
    referee = Referee()
    async with FaultProxy(port, RATE, seed) as proxy:
        users = [
            Client(f"client {i}", proxy.port, referee, wire.SUBPROTOCOLS[i % len(wire.SUBPROTOCOLS)])
            for i in range(clients)
        ]
        users += [
            Client(f"narrowed {subprotocol}", proxy.port, referee, subprotocol, NARROWING)
            for subprotocol in wire.SUBPROTOCOLS
        ]
        bot = Bot(server.url, seed)
        key = await bot.register()
        owners = [
            Owner(f"owner {subprotocol}", proxy.port, referee, subprotocol, key) for subprotocol in wire.SUBPROTOCOLS
        ]
        streams: list[Client | Owner] = [*users, *owners]
        running = [asyncio.create_task(one.run()) for one in streams]
        try:
            for one in streams:
                await one.ready()
            running.append(asyncio.create_task(bot.run()))
            done = 0
            while (
                (injected := proxy.faults.total() + done) < faults
                or done < restarts
                # a short run may be over before there was an event to lose
                or not all(any(user.events[channel] for user in users) for channel in EVENTS)
            ):
                _raise_ended(running)
                if done < restarts and injected >= faults * (done + 1) / (restarts + 1):
                    done += 1
                    server = await _restarted(
                        server, folder, port, by_kill=done % 2 == 0, wait_s=chance.random() * DOWN_S
                    )
                    _say(f"{injected} faults, {done} restarts, {referee.seen} states compared")
                await asyncio.sleep(0.05)
            proxy.is_faulty = False
            last = await _calm(server, users)
            lists = await _event_lists(users)
            ends = await asyncio.to_thread(_ends, server, users, last)
            private = await _private(bot, running[-1], owners)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await bot.close()
            await asyncio.to_thread(server.stop)
    return {
        "faults": dict(sorted(proxy.faults.items())),
        "faults_total": proxy.faults.total() + done,
        "restarts": done,
        "clients": clients,
        "states_compared": referee.seen,
        "states_distinct_places": len(referee.states),
        "differing": referee.differing[:10],
        "checksum_misses": referee.checksum_misses[:10],
        "noticed": dict(referee.noticed.most_common(12)),
        "reconnects": sum(one.stream.reconnects for one in streams),
        "resyncs": sum(one.stream.resyncs for one in streams),
        "lagged": sum(user.lagged for user in users),
        **ends,
        **_events(lists),
        **private,
    }


async def _started(folder: Path, port: int, limit_s: float) -> ServerProcess:
    server = ServerProcess(folder / "world", *WORLD, port=port)
    try:
        await asyncio.to_thread(server.wait_ready, limit_s)
    except RuntimeError:
        await asyncio.to_thread(server.stop)
        raise
    return server


async def _restarted(server: ServerProcess, folder: Path, port: int, *, by_kill: bool, wait_s: float) -> ServerProcess:
    """End a server, in order or not, and start it again on the same world and port."""
    await asyncio.to_thread(server.kill if by_kill else server.stop)
    await asyncio.sleep(wait_s)
    return await _started(folder, port, START_S)


def _raise_ended(running: list[asyncio.Task[None]]) -> None:
    for task in running:
        if task.done():
            task.result()
            raise RuntimeError("a client's stream has ended")


async def _calm(server: ServerProcess, users: list[Client]) -> int:
    """Wait until every copy has followed for a while without faults; return the tick that all have reached."""
    tick = int((await asyncio.to_thread(server.document, "/api/time"))["tick"]) + CALM_TICKS
    async with asyncio.timeout(CALM_S):
        while not all(user.stands_at(tick) for user in users):  # noqa: ASYNC110  # copies have no event to wait for
            await asyncio.sleep(0.05)
    return tick


async def _event_lists(users: list[Client]) -> dict[str, dict[str, list[int]]]:
    """Wait until each has the newest event that any had; return the numbers of all up to it, by channel and user.

    One that was lost at the end of a log is noticed when the next one comes.
    """
    lasts = {channel: max((user.events[channel][-1:] or [0])[0] for user in users) for channel in EVENTS}
    places = [(user.events[channel], last) for user in users for channel, last in lasts.items()]
    # who never gets there is told of
    with suppress(TimeoutError):
        async with asyncio.timeout(CALM_S):
            while not all(numbers and numbers[-1] >= last for numbers, last in places):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.05)
    return {
        channel: {user.name: [number for number in user.events[channel] if number <= last] for user in users}
        for channel, last in lasts.items()
    }


async def _private(bot: Bot, acting: asyncio.Task[None], owners: list[Owner]) -> dict[str, Any]:
    """Let the bot come to its end, wait until its owners have heard of it, and hold what they heard to the engine."""
    acting.cancel()
    last = await bot.finish()
    # who never hears of it is told of
    with suppress(TimeoutError):
        async with asyncio.timeout(CALM_S):
            while not all(owner.has_seen(last) for owner in owners):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.05)
    holdings = await bot.holdings()
    broken = {owner.name: broken_entries(owner.entries, bot.told, holdings) for owner in owners}
    return {
        "private_actions": len(bot.told),
        "private_entries": {owner.name: sum(not is_registration(entry) for entry in owner.entries) for owner in owners},
        "private_order_entries": sum(entry["entry"] == "order" for entry in owners[0].entries),
        "private_lost": [told for owner in owners for told in owner.lost][:10],
        "private_entries_broken": [f"{name}: {problem}" for name, found in broken.items() for problem in found][:10],
    }


def _events(lists: dict[str, dict[str, list[int]]]) -> dict[str, Any]:
    broken = [
        f"{name}: {channel}: {problem}"
        for channel, by_user in lists.items()
        for name, numbers in by_user.items()
        if (problem := broken_list(numbers, list(by_user.values())))
    ]
    return {
        "events": {channel: min(map(len, by_user.values())) for channel, by_user in lists.items()},
        "event_lists_broken": broken[:10],
    }


def _ends(server: ServerProcess, users: list[Client], tick: int) -> dict[str, Any]:
    """Compare all copies with what the server answers of their ticks."""
    unequal = []
    documents: dict[tuple[str, int, tuple[str, ...]], dict[str, Any]] = {}
    for user in users:
        for channel in STATE:
            markets = user.narrowing.markets if user.narrowing and channel == NARROWED else ()
            mirror = user.stream.mirror(channel)
            seq, values = mirror.seq, mirror.values()
            assert seq is not None
            assert seq >= tick
            if (channel, seq, markets) not in documents:
                documents[channel, seq, markets] = _shown(server, channel, seq, markets)
            if documents[channel, seq, markets] != values:
                unequal.append(f"{user.name}: {channel} at {seq}")
    return {"compared_with_server": len(documents), "unequal_in_the_end": unequal[:10]}


def broken_list(numbers: list[int], all_lists: list[list[int]]) -> str | None:
    """Say what is wrong with the numbers of the events that came to a client, beside those of all clients.

    A log begins behind what happened before the world was opened, for everybody at the same event.
    """
    if not numbers:
        return "no events"
    first = min(some[0] for some in all_lists if some)
    last = max(some[-1] for some in all_lists if some)
    if numbers[0] != first:
        return f"begins with {numbers[0]} instead of {first}"
    for before, after in pairwise(numbers):
        if after != before + 1:
            return f"{after} after {before}"
    return None if numbers[-1] == last else f"ends with {numbers[-1]}, others with {last}"


def _shown(server: ServerProcess, channel: str, tick: int, wanted: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what GET shows of a channel at a tick, by field, as a copy has it; wanted: names of markets, () = all."""
    if channel == "psychology_update":
        values: dict[str, Any] = server.document(f"/api/psychology?tick={tick}")["values"]
        return values
    markets = server.document(f"/api/markets?tick={tick}")["markets"]
    markets = [market for market in markets if not wanted or market["name"] in wanted]
    fields = [name for name in markets[0] if name not in ("id", "name", "day")]
    return {name: [market[name] for market in markets] for name in fields}


def check(result: dict[str, Any], faults: int, restarts: int) -> dict[str, bool]:
    """Return what had to hold, and whether it did."""
    return {
        "as many faults and restarts as asked for": result["faults_total"] >= faults and result["restarts"] >= restarts,
        "no undetected gap": not result["differing"] and not result["event_lists_broken"],
        "no checksum miss": not result["checksum_misses"],
        "every copy ends equal to the server": not result["unequal_in_the_end"] and result["compared_with_server"] > 0,
        "no entry of a private channel lost": not result["private_entries_broken"] and not result["private_lost"],
        "there was something to lose": min(result["events"].values()) > 0
        and result["states_compared"] > 0
        and result["private_order_entries"] > 0,
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
