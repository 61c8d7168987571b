"""The operator's surface: a port of its own, one key, commands that are durable and happen in the tick they name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from engine.commands import InjectEvent, decode_command
from engine.journal import RecordKind
from server import documents
from server.live.journal import read_segments, segment_paths
from server.live.keys_cmd import main as keys_main
from server.live.replay_cmd import main as replay_main
from server.live.verify_cmd import main as verify_main
from server.registry import OPERATIONS, Role
from tests.support.arena import RunningServer, run_server
from tests.support.deadlines import seconds

STRIKE = {"name": "catastrophe_struck", "resource": "oil", "size": 0.2, "kind": "political_instability"}


def operator(arena: RunningServer, key: str | None = None) -> httpx2.AsyncClient:
    """Return a client of the operator's port, with the key that was shown unless another is given."""
    port = arena.server.servers[1].sockets[0].getsockname()[1]
    headers = {"Authorization": f"Bearer {arena.operator_keys[0] if key is None else key}"}
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=seconds(20))


async def said(client: httpx2.AsyncClient, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Post a command that is taken and return the answer."""
    answer = await client.post(f"/api/admin/{what}", json=body)
    assert answer.status_code in (200, 202), answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_the_key_is_shown_once_and_opens_only_the_operators_port(tmp_path: Path) -> None:
    """It is in the journal as a hash; it opens nothing of the agents', and theirs open nothing of the operator's."""
    async with run_server(tmp_path, operator=True) as arena:
        await arena.step()
        [key] = arena.operator_keys
        bot = await arena.register()
        async with operator(arena) as client:
            assert (await client.get("/api/admin/state_hash")).status_code == 200
            assert (await client.get("/api/indicators")).status_code == 404
        async with operator(arena, bot.api_key) as client:
            assert (await client.get("/api/admin/state_hash")).json()["code"] == 131
        async with arena.client(key) as client:
            assert (await client.get("/api/admin/state_hash")).status_code == 404
            assert (await client.post("/api/agents/register")).json()["code"] == 131
    async with run_server(tmp_path, operator=True) as arena:
        await arena.step()
        assert arena.operator_keys == []
        async with operator(arena, key) as client:
            assert (await client.get("/api/admin/state_hash")).status_code == 200
    assert key.encode() not in b"".join(path.read_bytes() for path in segment_paths(tmp_path))


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.is_operators], ids=lambda one: one.name)
async def test_without_the_key_nothing_is_answered(operation: Any, tmp_path: Path) -> None:
    """Deny by default: no key and a wrong one are 401, before a body is looked at."""
    assert operation.role is Role.OPERATOR
    async with run_server(tmp_path, operator=True) as arena:
        await arena.step()
        async with operator(arena, "ak_wrong") as client:
            wrong = await client.request(operation.method, operation.path, content=b"{")
            del client.headers["Authorization"]
            none = await client.request(operation.method, operation.path, content=b"{")

    assert (wrong.status_code, wrong.json()["code"]) == (401, 131)
    assert (none.status_code, none.json()["code"]) == (401, 130)


async def test_without_the_setting_there_is_no_such_surface() -> None:
    """Neither a port nor a key."""
    async with run_server() as arena:
        await arena.step()

        assert len(arena.server.servers) == 1
        assert arena.operator_keys == []
        assert not arena.parts.world.registry.has_operator


async def test_an_event_happens_in_the_tick_it_was_given(tmp_path: Path) -> None:
    """It is in the log of events, in the journal, and in the replay; verification says it in words."""
    async with run_server(tmp_path, operator=True) as arena:
        await arena.step(2)
        async with operator(arena) as client:
            taken = documents.Commanded.model_validate(await said(client, "events", STRIKE))
        await arena.step(10)
        events = [event for _, event in arena.parts.events.page(None, None, 1_000)[0]]

    [struck] = [event for event in events if event.name == "catastrophe_struck"]
    assert (struck.tick, struck.data["resource"], struck.data["kind"]) == (taken.tick, "oil", STRIKE["kind"])
    [record] = [one for one in read_segments(segment_paths(tmp_path)) if one.kind is RecordKind.COMMAND]
    assert record.sequence == taken.seq
    assert decode_command(record.payload) == InjectEvent(**STRIKE)  # type: ignore[arg-type]
    assert replay_main([str(tmp_path), "--check"]) == 0


async def test_a_parameter_is_in_force_from_its_tick_on_and_over_restarts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the world, in what /api/info tells, and in what is allowed to owners; from a snapshot or from the journal."""
    often = {"operator": True, "snapshot_ticks": 10, "resume_frames": 3}
    async with run_server(tmp_path, **often) as arena:
        bot = await arena.register()
        async with operator(arena) as client:
            await said(client, "parameters", {"name": "agents_per_owner_max", "value": 1})
            await said(client, "parameters", {"name": "base_inflation_rate", "value": 0.05})
        async with arena.client(bot.api_key) as client:
            assert (await client.get("/api/info")).json()["limits"]["agents_per_owner"] == 10
            await arena.step()
            told = (await client.get("/api/info")).json()
            refused = await client.post("/api/agents/register")
        await arena.step(15)
        state_hash = arena.economy.state_hash()

    assert (told["limits"]["agents_per_owner"], told["config"]["base_inflation_rate"]) == (1, 0.05)
    assert refused.json()["code"] == 406
    for _ in range(2):
        async with run_server(tmp_path, **often) as arena:
            assert arena.economy.state_hash() == state_hash
            assert arena.economy.config.base_inflation_rate == 0.05
            async with arena.client(bot.api_key) as client:
                assert (await client.post("/api/agents/register")).json()["code"] == 406
    assert verify_main([str(tmp_path), "--records", "--replay"]) == 0
    assert "the operator: set base_inflation_rate to 0.05" in capsys.readouterr().out


async def test_a_paused_world_takes_inputs_and_gives_them_ticks_later(tmp_path: Path) -> None:
    """No tick begins, everything is acknowledged, the server is ready; a step gives them their tick."""
    async with run_server(tmp_path, operator=True) as arena:
        bot = await arena.register()
        async with operator(arena) as client, arena.client() as public:
            paused = documents.Pulse.model_validate(await said(client, "pause"))
            arena.clock.advance(10.0)  # type: ignore[attr-defined]  # turned by hand
            answer = await bot.act({"client_action_id": "a", "type": "consume", "market": "food", "quantity": 1})
            assert answer.status_code == 202
            assert (await bot.receipt("a"))["tick"] is None
            assert (await public.get("/readyz")).status_code == 200
            assert (await public.get("/api/status")).json()["status"] == "paused"
            assert arena.tick == paused.tick
            assert "arena_paused 1.0" in (await public.get("/metrics")).text

            stepped = documents.Pulse.model_validate(await said(client, "step", {"ticks": 3}))
            hashed = documents.StateHash.model_validate((await client.get("/api/admin/state_hash")).json())
            assert (stepped.status, stepped.tick) == ("paused", paused.tick + 3)
            assert (await bot.receipt("a"))["tick"] == paused.tick + 1
            assert (hashed.tick, hashed.state_hash) == (stepped.tick, arena.economy.state_hash().hex())

            assert documents.Pulse.model_validate(await said(client, "resume")).status == "running"
            await arena.step()
            assert (await public.get("/api/status")).json()["status"] == "running"
            refused = await client.post("/api/admin/step", json={"ticks": 1})
            assert (refused.status_code, refused.json()["code"]) == (409, 141)


async def test_a_pause_lasts_over_a_stop_and_what_waits_is_not_lost(tmp_path: Path) -> None:
    """Whether a start begins with the snapshot of the stop or with the whole journal."""
    async with run_server(tmp_path, operator=True) as arena:
        bot = await arena.register()
        [key] = arena.operator_keys
        async with operator(arena) as client:
            await said(client, "pause")
            await said(client, "events", STRIKE)
        await bot.act({"client_action_id": "a", "type": "consume", "market": "food", "quantity": 1})
        tick = arena.tick

    async with run_server(tmp_path, operator=True, history_files=False) as arena:
        assert arena.parts.world.replayed.marks > 0
        assert (arena.tick, arena.ticker.is_paused) == (tick, True)
    async with run_server(tmp_path, operator=True, resume_frames=1) as arena:
        assert (arena.tick, arena.ticker.is_paused) == (tick, True)
        async with operator(arena, key) as client:
            await said(client, "step")
        assert (await replace(bot, arena=arena).receipt("a"))["tick"] == tick + 1
        assert [event.name for event in arena.parts.events._events if event.tick == tick + 1][:1] == [STRIKE["name"]]


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("events", {}, "name"),
        ("events", STRIKE | {"resource": "food"}, "resource"),
        ("events", STRIKE | {"size": 0}, "size"),
        ("events", STRIKE | {"size": True}, "size"),
        ("events", STRIKE | {"name": "resource_discovered"}, ""),
        ("events", STRIKE | {"more": 1}, "more"),
        ("parameters", {"name": "residents", "value": 3_000}, "name"),
        ("parameters", {"name": "fear_weight", "value": 9}, "fear_weight"),
        ("parameters", {"name": "fear_weight", "value": "0.1"}, "value"),
        ("pause", {"now": True}, "now"),
        ("step", {"ticks": 0}, "ticks"),
    ],
)
async def test_a_wrong_command_is_refused_by_field_and_not_journaled(
    what: str, body: dict[str, Any], field: str, tmp_path: Path
) -> None:
    """With what is allowed."""
    async with run_server(tmp_path, operator=True) as arena:
        await arena.step()
        before = arena.parts.world.journal.next_seq
        async with operator(arena) as client:
            answer = await client.post(f"/api/admin/{what}", json=body)

        assert answer.status_code == 400, answer.text
        assert any(item["field"].startswith(field) and item["allowed"] for item in answer.json()["errors"])
        assert arena.parts.world.journal.next_seq == before


async def test_as_many_commands_wait_as_may(tmp_path: Path) -> None:
    """Then they are refused before the journal; the next tick makes room."""
    async with run_server(tmp_path, operator=True) as arena:
        await arena.step()
        async with operator(arena) as client:
            for _ in range(64):
                await said(client, "parameters", {"name": "fear_weight", "value": 0.2})
            full = await client.post("/api/admin/parameters", json={"name": "fear_weight", "value": 0.2})
            await arena.step()
            await said(client, "parameters", {"name": "fear_weight", "value": 0.2})

    assert (full.status_code, full.json()["code"]) == (429, 411)


async def test_a_new_key_is_made_while_the_world_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one before opens nothing more; a running world is left alone."""
    async with run_server(tmp_path, operator=True, snapshot_ticks=10, resume_frames=2) as arena:
        await arena.step(12)
        [old] = arena.operator_keys
        assert keys_main([str(tmp_path), "--new-operator"]) == 2
        assert "belongs to a running process" in capsys.readouterr().err

    assert keys_main([str(tmp_path), "--new-operator"]) == 0
    new = capsys.readouterr().out.split()[-1]

    for _ in range(2):
        async with run_server(tmp_path, operator=True, snapshot_ticks=10, resume_frames=2) as arena:
            await arena.step()
            assert arena.operator_keys == []
            async with operator(arena, new) as client:
                assert (await client.get("/api/admin/state_hash")).status_code == 200
            async with operator(arena, old) as client:
                assert (await client.get("/api/admin/state_hash")).status_code == 401
    assert keys_main([str(tmp_path / "nothing"), "--new-operator"]) == 2


async def test_the_recovered_hash_is_that_of_the_start(tmp_path: Path) -> None:
    """So that whoever watches a restart can hold it against what he had noted before."""
    async with run_server(tmp_path, operator=True) as arena:
        await arena.step(11)
        tick, state_hash, [key] = arena.tick, arena.economy.state_hash().hex(), arena.operator_keys

    async with run_server(tmp_path, operator=True) as arena:
        await arena.step(25)
        async with operator(arena, key) as client:
            told = documents.StateHash.model_validate((await client.get("/api/admin/state_hash")).json())

    assert (told.recovered.tick, told.recovered.state_hash) == (tick, state_hash)
    assert told.tick % 10 == 0
    assert tick < told.tick <= tick + 25
