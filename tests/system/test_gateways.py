"""An engine, two gateways and a Valkey, each a process of its own, and each of them ended."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from arena_client import ArenaStream, wire
from arena_client.wire import SUBPROTOCOL_MSGPACK
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from loadtest.gateways.exchanges import MOMENTS, VICTIMS, Exchanges
from loadtest.gateways.outages import Outages
from loadtest.gateways.processes import Processes, Server
from loadtest.gateways.valkey import Valkey
from loadtest.parts import total
from loadtest.process import ROOT, environment
from tests.support.deadlines import seconds

pytestmark = pytest.mark.timeout(400)
MARKETS, MOODS = "market_tick", "psychology_update"


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own."""
    with Valkey() as running:
        yield running


@asynccontextmanager
async def processes(folder: Path, valkey: Valkey) -> AsyncIterator[Processes]:
    """Make processes until the block ends, then end all of them."""
    made = Processes(folder, valkey.url)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def engine_and_two(folder: Path, valkey: Valkey) -> AsyncIterator[tuple[Server, Server, Server]]:
    """Run an engine and two gateways."""
    async with processes(folder, valkey) as made:
        engine = Server(made, "engine", made.engine_flags)
        gateways = [Server(made, "gateway", lambda port: made.gateway_flags(port, engine.port)) for _ in range(2)]
        for server in (engine, *gateways):
            await server.start()
        yield engine, gateways[0], gateways[1]


class Listener:
    """A subscriber that keeps the bytes of what it was sent, by channel and seq."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: dict[tuple[str, int], bytes] = {}
        self.told: list[dict[str, Any]] = []

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a control message and return its answer, keeping what comes before."""
        await self.connection.send(wire.encode(message, SUBPROTOCOL_MSGPACK))
        while True:
            answer = await self.take()
            if answer["type"] in ("ack", "error"):
                return answer

    async def take(self) -> dict[str, Any]:
        """Return the next message."""
        data = await asyncio.wait_for(self.connection.recv(), seconds(20))
        assert isinstance(data, bytes)
        message = wire.decode(data, SUBPROTOCOL_MSGPACK)
        if message["type"] in ("delta", "event"):
            self.frames[message["channel"], message["seq"]] = data
        else:
            self.told.append(message)
        return message

    async def until_tick(self, tick: int) -> None:
        """Take what comes up to a tick."""
        while (await self.take()).get("seq", -1) < tick:
            pass


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[Listener]:
    """Connect to a server's stream."""
    url = f"ws://127.0.0.1:{server.port}/ws"
    async with connect(url, subprotocols=[SUBPROTOCOL_MSGPACK], compression=None, max_size=None) as connection:  # type: ignore[list-item]  # Subprotocol is a NewType of str
        listener = Listener(connection)
        assert (await listener.take())["type"] == "hello"
        yield listener


def client(server: Server, key: str | None = None) -> httpx2.AsyncClient:
    """Return an HTTP client of a server."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=seconds(20))


async def test_all_of_them_stream_the_same_bytes_and_outlive_each_other(tmp_path: Path, valkey: Valkey) -> None:
    """Frames are the engine's own; Redis killed: no gap; a gateway killed: resumed at the other one."""
    async with engine_and_two(tmp_path, valkey) as (engine, one, two):
        async with listening(engine) as first, listening(one) as second, listening(two) as third:
            for number, channel in enumerate((MARKETS, MOODS)):
                for listener in (first, second, third):
                    await listener.ask(op="subscribe", id=number, channel=channel)
            begin = (await first.ask(op="ping", id=9))["tick"]
            await asyncio.gather(*(listener.until_tick(begin + 10) for listener in (first, second, third)))
            valkey.kill()
            await asyncio.gather(*(listener.until_tick(begin + 40) for listener in (first, second, third)))
            valkey.start()
            await asyncio.gather(*(listener.until_tick(begin + 75) for listener in (first, second, third)))

            common = [key for key in first.frames if begin + 1 < key[1] < begin + 60]
            assert len(common) == 2 * 58
            for listener in (second, third):
                assert [key for key in common if listener.frames[key] != first.frames[key]] == []
                assert {message["type"] for message in listener.told} <= {"hello", "ack", "snapshot", "heartbeat"}

            one.kill()
            epoch = first.told[0]["epoch"]
            position = max(seq for channel, seq in second.frames if channel == MOODS)
            with pytest.raises(ConnectionClosed):
                await second.until_tick(1 << 40)
        async with listening(two) as again:
            told = await again.ask(op="subscribe", id=1, channel=MOODS, epoch=epoch, seq=position)
            assert told["resumed"]
            assert (await again.take())["base"] == position


async def test_a_revoked_key_closes_its_sockets_at_both_gateways_within_a_second(
    tmp_path: Path, valkey: Valkey
) -> None:
    """Also while Redis is gone; the requests of the old key are refused at once."""
    async with engine_and_two(tmp_path, valkey) as (_, one, two), client(one) as anybody:
        for number, is_redis_there in enumerate((True, False)):
            if not is_redis_there:
                valkey.kill()
            headers = {"Idempotency-Key": f"known-to-nobody-{number}"}
            made = (await anybody.post("/api/agents/register", json={}, headers=headers)).json()
            async with listening(one) as first, listening(two) as second:
                for listener in (first, second):
                    assert (await listener.ask(op="auth", id=1, api_key=made["api_key"]))["type"] == "ack"
                assert (await anybody.post("/api/agents/register", json={}, headers=headers)).status_code == 201

                async with asyncio.timeout(seconds(1.0)):
                    for listener in (first, second):
                        with pytest.raises(ConnectionClosed):
                            await listener.until_tick(1 << 40)
                        assert listener.connection.close_code == 4500
            async with client(two, made["api_key"]) as old:
                assert (await old.get(f"/api/agents/{made['agent_id']}")).status_code == 401


async def test_no_503_was_applied_and_no_2xx_lost(tmp_path: Path, valkey: Valkey) -> None:
    """Engine and gateway killed at every step of an exchange, each once."""
    async with processes(tmp_path, valkey) as made:
        result = await Exchanges(made, 5).run(len(VICTIMS) * len(MOMENTS))

    assert result["wrong"] == []
    assert len(result["killed"]) == len(VICTIMS) * len(MOMENTS)
    assert result["steps_nobody_came_to"] <= 2
    assert result["actions_acknowledged"] > 50
    assert result["actions_surely_refused"] > 5
    assert result["answers"]["503"] > 0


@pytest.mark.parametrize("planted", ["says_unsent", "answers_early"])
async def test_a_gateway_that_does_not_tell_the_truth_is_found_out(
    planted: str, tmp_path: Path, valkey: Valkey
) -> None:
    """Planted: 503 although something was sent; 202 before the engine said so. The first lie ends the run."""
    async with processes(tmp_path, valkey) as made:
        result = await Exchanges(made, 5, planted).run(16 * len(VICTIMS) * len(MOMENTS))

    assert not result["holds"]


async def test_sockets_outlive_the_engine(tmp_path: Path, valkey: Valkey) -> None:
    """Killed three times: every connection stays, every copy goes on without a gap, within three seconds."""
    async with processes(tmp_path, valkey) as made:
        result = await Outages(made, 1).run(3, 20)

    assert result["sockets_kept"] == 1.0
    assert result["copies_out_of_step"] == 0
    assert result["copies_agree"]
    assert result["back_s"]["max"] < seconds(3.0)
    assert result["holds"]


async def test_the_sdk_does_not_notice_which_one_it_talks_to(tmp_path: Path, valkey: Valkey) -> None:
    """A mirror at a gateway equals the document that gateway gives for the same tick."""
    async with engine_and_two(tmp_path, valkey) as (_, one, _), ArenaStream(f"http://127.0.0.1:{one.port}") as stream:
        mirror = await stream.subscribe(MOODS)
        async with client(one) as anybody:
            seen = {}
            async for _ in stream.lasting(seconds(1.0)):
                seen[mirror.tick] = mirror.values()
                document = (await anybody.get("/api/psychology")).json()
                if document["tick"] in seen:
                    assert document["values"] == seen[document["tick"]]
        assert len(seen) > 5


def test_the_command_prints_what_it_found(tmp_path: Path) -> None:
    """One JSON object, 0 when no promise was broken; a file keeps what other runs have put there, and counts it."""
    out = tmp_path / "result.json"
    exchanges, outages = {"holds": True, "kills": 7}, {"holds": True, "outages": 199, "sockets_lost": 0}
    out.write_text(json.dumps({"holds": True, "exchanges": total([exchanges]), "outages": total([outages])}))

    done = subprocess.run(
        [sys.executable, "-m", "loadtest.gateways", "--outages", "1", "--sockets", "4", "--acks", "20",
         "--out", str(out), "--append"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=seconds(200),
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    result = json.loads(done.stdout)
    assert result == json.loads(out.read_text())
    assert result["exchanges"]["kills"] == 7
    assert result["held"]["outages: at least 200 outages"]
    assert not result["held"]["exchanges: at least 1,000 kills"]
    assert not result["holds"]
    assert "acks: 20 of 2,000 requests" in done.stderr.decode()
    assert result["acks"]["parts"][0]["one_at_a_time_ms"]["gateway"]["p50"] > 0


def test_frames_are_measured_here_and_there() -> None:
    """Subscribers in C follow the engine and the gateway; what they see is told, whatever the times are."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.gateways", "--frames", "50"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=seconds(200),
        check=False,
    )

    assert done.returncode in (0, 1), done.stderr.decode()[-2_000:]
    frames = json.loads(done.stdout)["frames"]
    assert 40 <= frames["ticks"] <= 60
    (part,) = frames["parts"]
    for way in ("engine", "gateway"):
        assert 0 < part["latency_ms"][way]["p50"] <= part["latency_ms"][way]["p99"]
