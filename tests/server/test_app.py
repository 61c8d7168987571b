"""The server as a whole: it listens before it is open, closes cleanly, comes back as it was, says why it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import websockets
from starlette.routing import Route

from engine.config import Config
from server.acceptor import Acceptor
from server.app import Opening, Server, create_app, operator_config, server_config
from server.config import Settings
from server.live import hub
from server.live.errors import FolderInUse, WorldRefused
from server.live.series import SERIES
from server.metrics import Metrics
from server.registry import OPERATIONS
from server.routes import Resource
from tests.support.arena import Bot, run_server
from tests.support.deadlines import seconds
from tests.support.disks import Disk
from tests.support.streams import until
from tests.support.worlds import small_config

ROOT = Path(__file__).resolve().parents[2]
ORDER = {
    "client_action_id": "rest", "type": "limit", "market": "food", "side": "buy", "quantity": 3, "price": "0.5",
}  # fmt: skip


async def test_before_the_world_is_open_everything_but_life_is_503(tmp_path: Path) -> None:
    """The socket listens at once; the gate opens when the world does."""
    settings = Settings(data=tmp_path, port=0, seed=1, engine=small_config())
    opening = Opening()
    app = create_app(settings, opening=opening, warm_up_ticks=26)
    # the lifespan is not begun, so the world stays unopened for as long as this test wants
    transport = httpx2.ASGITransport(app=app)

    async with httpx2.AsyncClient(transport=transport, base_url="http://arena") as client:
        answers = {
            path: await client.get(path) for path in ("/healthz", "/livez", "/readyz", "/api/time", "/", "/nope")
        }

    statuses = {path: answer.status_code for path, answer in answers.items()}
    assert statuses == {"/healthz": 200, "/livez": 200, "/readyz": 503, "/api/time": 503, "/": 503, "/nope": 503}
    assert answers["/api/time"].headers["retry-after"] == "1"
    assert answers["/api/time"].json()["code"] == 501


async def test_every_operation_has_its_route_once_open() -> None:
    """And every API route its operation."""
    async with run_server() as arena:
        endpoints = [route.endpoint for route in arena.app.routes if isinstance(route, Route)]
        resources = [endpoint for endpoint in endpoints if isinstance(endpoint, Resource)]
        operators = [route.endpoint for route in arena.app.state.operator.routes]
        assert all(resource.path.startswith("/api/admin/") for resource in operators)
        resources += operators
        routes = {(method, resource.path) for resource in resources for method in set(resource.endpoints) - {"HEAD"}}

    assert routes == {(operation.method, operation.path) for operation in OPERATIONS}


async def test_a_world_goes_on_after_a_restart_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Same epoch, tick, hash, accounts, receipts, keys, history of ticks and events: the view is the one last shown."""
    async with run_server(tmp_path) as arena:
        bot = await arena.register()
        await bot.decided(ORDER)
        await arena.step(5)
        before = await what_is_seen(bot)
        state = arena.economy.state_hash()

    async with run_server(tmp_path) as arena:
        again = Bot(arena, bot.agent_id, bot.api_key)
        after = await what_is_seen(again)
        duplicate = await again.act(ORDER)
        assert arena.economy.state_hash() == state

    assert after == before
    assert (duplicate.status_code, duplicate.json()["duplicate"]) == (202, True)


async def what_is_seen(bot: Bot) -> list[object]:
    """Return all that an agent and the public see, but for the times of publication."""
    account, receipt = await bot.account(), await bot.receipt("rest")
    async with bot.arena.client() as client:
        documents = [
            (await client.get(path)).json()
            for path in ("/api/indicators", "/api/markets", "/api/psychology", "/api/scarcity", "/api/markets/food")
        ]
        history = (await client.get("/api/history/food.price")).json()
        events = (await client.get("/api/events")).json()
    for document in documents:
        del document["time"]
    points = [(row[0], row[2]) for row in history["rows"]][-6:]
    return [account, receipt, documents, points, events]


async def test_a_server_that_ticks_by_itself_stops_between_two_ticks() -> None:
    """The last tick that began is published; the journal ends with a clean stop."""
    async with run_server(by_hand=False, tick_rate=10) as arena:
        first = arena.tick
        async with asyncio.timeout(seconds(30)):
            await arena.ticker.wait_tick(first + 20)
    economy = arena.economy

    assert arena.tick == economy.tick >= first + 20


async def test_stopping_closes_sockets_with_1012_and_answers_what_is_in_flight() -> None:
    """A request that waits for its tick gets it; a subscriber is told to come back."""
    async with run_server(by_hand=False, tick_rate=100) as arena:
        async with arena.client() as client:
            made = (await client.post("/api/agents/register")).json()
        bot = Bot(arena, made["agent_id"], made["api_key"])
        subscriber = await websockets.connect(arena.ws_url, subprotocols=[websockets.Subprotocol("arena.v2.json")])
        waiting = asyncio.create_task(bot.act(ORDER, wait="outcome"))
        async with asyncio.timeout(seconds(30)):
            await arena.ticker.wait_tick(arena.tick + 1)
        arena.server.stop()
        async with asyncio.timeout(seconds(30)):
            answer = await waiting
            with suppress(websockets.ConnectionClosed):
                while True:
                    await subscriber.recv()

    assert answer.status_code == 200
    assert subscriber.close_code == 1012


@pytest.mark.parametrize("is_patient", [True, False], ids=["answered", "given_up"])
async def test_stopping_answers_an_action_of_a_socket_before_it_closes(
    is_patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow: the receipt comes, then the goodbye, then 1012; a disk that stands still is not waited for."""
    monkeypatch.setattr(hub, "OWED_MAX_S", seconds(60) if is_patient else 0.1)
    disk = Disk(monkeypatch)
    async with run_server() as arena:
        bot = await arena.register()
        connection = await websockets.connect(arena.ws_url, subprotocols=[websockets.Subprotocol("arena.v2.json")])
        told: list[dict[str, Any]] = []

        async def read() -> None:
            with suppress(websockets.ConnectionClosed):
                while True:
                    told.append(json.loads(await connection.recv()))

        await connection.send(json.dumps({"op": "auth", "id": 1, "api_key": bot.api_key}))
        with disk.shut():
            action = {"op": "action", "id": 2, "agent_id": bot.agent_id, "action": ORDER}
            await connection.send(json.dumps(action))
            await until(lambda: disk.is_busy)
            arena.server.stop()
            (subscriber,) = arena.hub.subscribers
            await until(lambda: subscriber.is_finishing or subscriber.connection is None)
            if not is_patient:
                await asyncio.wait_for(read(), seconds(30))
        await asyncio.wait_for(read(), seconds(30))

    kinds = [(message["type"], message.get("id")) for message in told]
    answered = [("ack", 2)] if is_patient else []
    assert kinds == [("hello", None), ("ack", 1), *answered, ("shutdown", None)]
    assert connection.close_code == 1012


async def test_a_folder_in_use_is_refused_by_name(tmp_path: Path) -> None:
    """One process, one world; the first one is not disturbed."""
    async with run_server(tmp_path) as arena:
        with pytest.raises(FolderInUse, match=str(tmp_path)):
            async with run_server(tmp_path):
                pass
        assert await arena.step() == arena.tick


async def test_a_start_after_a_stop_replays_nothing_and_tells_the_same(tmp_path: Path) -> None:
    """Who was connected resumes from the same frames, and every document is what a replay of everything makes it."""
    few = {"resume_frames": 8, "warm_up_ticks": 26}
    async with run_server(tmp_path / "one", **few) as arena:
        agent = await arena.register()
        await agent.act({"client_action_id": "a", "type": "consume", "market": "food", "quantity": 1})
        await arena.step(20)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "snapshots")

    quick, whole = await told(tmp_path / "one", few), await told(tmp_path / "two", few)

    assert (quick.pop("replayed"), whole.pop("replayed")) == (0, 21)
    assert quick == whole
    assert len(quick["market_tick"]) == 8


async def told(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a server tells of the time before its start."""
    async with run_server(folder, **settings) as arena:
        parts, view = arena.parts, arena.parts.published.view
        return {
            "replayed": parts.world.replayed.marks,
            "documents": [view.indicators(), view.psychology(), view.monetary(), view.scarcity(), view.markets()],
            "events": parts.events.page(None, None, 1_000),
            "history": parts.history.page(SERIES["food.price"], None, None, None, 1_000).rows,
            "anomalies": parts.anomalies.page(None, 100, descending=False, is_open=None, kind=None),
            **{
                name: [frame["arena.v2.msgpack"].payload for frame in topic._ring]
                for name, topic in parts.hub.states.items()
            },
            "logs": {name: topic._log for name, topic in parts.hub.events.items()},
        }


async def test_a_folder_with_another_world_is_refused(tmp_path: Path) -> None:
    """Settings that are another world's identity are named."""
    async with run_server(tmp_path):
        pass

    with pytest.raises(WorldRefused, match="max_agents"):
        async with run_server(tmp_path, engine=Config(residents=2_000, max_agents=65, order_book_max=4_096)):
            pass


async def test_a_port_in_use_ends_the_server_with_a_failure(tmp_path: Path) -> None:
    """Not silently, and without a world left open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(data=tmp_path, port=taken.getsockname()[1], seed=1, engine=small_config())
        server = Server(server_config(create_app(settings, warm_up_ticks=26), settings), Opening(), Metrics())

        with pytest.raises(SystemExit) as caught:
            await server.serve()

    assert caught.value.code != 0


async def test_a_request_that_has_arrived_unread_is_answered_by_a_stop() -> None:
    """The process may not have run since: its connection only looks idle."""
    request = b"GET /api/time HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    async with run_server() as arena:
        port = arena.server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        # both in one step of the event loop: nothing can be read in between
        writer.write(request)
        await arena.server.shutdown()
        arena.server.started = False
        rest = await reader.read()
        writer.close()

    assert rest.count(b"HTTP/1.1 200 OK") == 1


async def test_whoever_comes_back_while_it_stops_is_let_go_at_once() -> None:
    """Not one is left that began behind the others' farewell, and would be waited for until its time is over."""
    async with run_server() as arena:
        address = arena.server.servers[0].sockets[0].getsockname()[:2]
        clients = [socket.create_connection(address, seconds(30.0)) for _ in range(200)]
        await arena.server.shutdown()
        arena.server.started = False
        told = []
        for client in clients:
            with client, suppress(ConnectionResetError):
                told.append(client.recv(1_000))

    assert set(told) == {b""}, "who is told to hurry, or of a restart, was held first"
    assert isinstance(arena.server.servers[0], Acceptor)


async def test_an_operators_port_in_use_ends_the_server_with_a_failure(tmp_path: Path) -> None:
    """Whoever sits there instead would be given the operator's key."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(data=tmp_path, port=0, operator_port=taken.getsockname()[1], seed=1, engine=small_config())
        app = create_app(settings, warm_up_ticks=26)
        server = Server(server_config(app, settings), Opening(), Metrics(), operator_config(app, settings))

        with pytest.raises(SystemExit) as caught:
            await server.serve()

    assert caught.value.code == 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_process_with_status_0(tmp_path: Path, name: str) -> None:
    """Drained and marked as a clean stop."""
    port = free_port()
    command = [sys.executable, "-c", "import sys; from server.cli import main; sys.exit(main())", "serve"]
    command += ["--residents", "2000", "--port", str(port), "--data", str(tmp_path), "--seed", "1", "--log", "json"]
    # the default, the port behind the other one, may be another test's by now
    command += ["--operator-port", str(free_port())]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python'}"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            # its own log says when it is ready; reading it waits without asking again and again
            lines = []
            for line in process.stderr:
                lines.append(line)
                if '"ready"' in line:
                    break
            assert httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 200, lines
            process.send_signal(getattr(signal, name))
            _, rest = process.communicate(timeout=seconds(30))
        finally:
            process.kill()

    assert process.returncode == 0, rest
    assert '"stopped"' in rest


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
