"""The benchmark of one action: every server does the same work, and none is left out in silence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import httpx2
import pytest

from loadtest.micro import bench_actions
from loadtest.micro.actions import serve_ours
from loadtest.micro.actions.desk import CLEAR_EVERY, Desk
from loadtest.micro.bench_actions import Block, Flood, Server, action_request, packed
from server.bench import IDS
from server.bench_row import Row
from server.routes.hot import OPERATION

BODY = b'{"client_action_id": "a-1", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "0.25"}'


def server(name: str, *per_s: float) -> Server:
    """Return a server that was measured."""
    blocks = [Block(1, rate, 900.0, 2_000.0, 1e6 / rate, 0.5) for rate in per_s]
    return Server(name, f"{name} 1.0", 1, 1, b"", blocks)


@pytest.fixture
def flood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Flood:
    """A client whose compiler is a program that does nothing."""
    monkeypatch.setattr(shutil, "which", lambda name: "true")
    return Flood(tmp_path)


async def test_a_desk_answers_as_the_product_does() -> None:
    """The same headers and the same body, so that no peer sends less than we do."""
    desk = Desk(1)
    ((agent_id, key),) = desk.given
    transport = httpx2.ASGITransport(app=serve_ours.application(desk))
    # a header that is for the ordinary route
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Cookie": "x=1"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        ordinary = await client.post(f"/api/agents/{agent_id}/action", content=BODY, headers=headers)

    reply = desk.answer(agent_id, f"Bearer {key}", "application/json", BODY.replace(b"a-1", b"a-2"))

    own = {"x-request-id", "content-length", "ratelimit", "x-ratelimit-remaining", "x-ratelimit-reset"}
    assert (reply.status, ordinary.status_code) == (202, 202)
    assert {name for name, _ in reply.headers} | {"content-length"} == set(ordinary.headers)
    assert {name: value for name, value in reply.headers if name not in own} == {
        name: value for name, value in ordinary.headers.items() if name not in own
    }
    assert reply.body.replace(b"a-2", b"a-1").replace(b'"seq":4', b'"seq":3') == ordinary.content


def test_a_desk_takes_any_number_of_actions() -> None:
    """What waits for tick and disk is thrown away in time; every action is counted once."""
    desk = Desk(2)
    count = 2 * CLEAR_EVERY + 10
    for i in range(count):
        agent_id, key = desk.given[i % 2]
        desk.answer(agent_id, f"Bearer {key}", "application/json", BODY.replace(b"a-1", b"a-%d" % i))

    labels = {"method": "POST", "route": OPERATION.path, "status": "202"}
    assert desk.metrics.registry.get_sample_value("arena_http_requests_total", labels) == count
    assert desk.metrics.registry.get_sample_value("arena_queue_actions") == 10


def test_a_request_that_cannot_be_taken_ends_the_benchmark() -> None:
    """A refusal is cheaper than an action: it must not be measured as one."""
    desk = Desk(1)
    ((agent_id, key),) = desk.given

    for given in ((agent_id, "Bearer no", "application/json", BODY), (agent_id, f"Bearer {key}", "text/plain", BODY)):
        with pytest.raises(ValueError, match="what can be taken"):
            desk.answer(*given)


def test_rows_compare_with_the_fastest_that_ran_and_name_the_others(flood: Flood) -> None:
    """The median over the turns; who did not run is in the row with what it said."""
    servers = {
        one.name: one for one in (server("ours", 30, 40, 50), server("granian", 20, 20, 25), server("robyn", 9, 9, 9))
    }

    row = bench_actions._versus(
        "action_peers", servers, ["socketify", "granian", "robyn"], {"socketify": "no libuv"}, flood
    )

    assert Row(**row).passes
    assert row["value"] == 2.0
    assert "(granian)" in row["unit"]
    assert row["spread"] == "1.50 to 2.00 over 3 pairs of turns"
    assert "robyn 9/s" in row["includes"]
    assert "socketify does not run here: no libuv" in row["includes"]


def test_without_anybody_to_compare_with_there_is_no_row(flood: Flood) -> None:
    """A comparison with nobody is never a number."""
    with pytest.raises(OSError, match="fastapi does not run here: gone"):
        bench_actions._versus("action_fastapi", {"ours": server("ours", 1)}, ["fastapi"], {"fastapi": "gone"}, flood)


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the way to get one."""
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(OSError, match="apt-get install gcc"):
        Flood(tmp_path)


def test_a_library_that_cannot_be_installed_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no path, and its row says why."""

    def add(python: Path, folder: Path, lock: Path, say: object) -> Path:
        if folder.name == "robyn":
            raise OSError("pip ended with 1:\nno wheel for this Python")
        return folder

    monkeypatch.setattr(bench_actions, "peers_environment", lambda say, lock: Path("/peers/bin/python"))
    monkeypatch.setattr(bench_actions, "add_library", add)

    _, paths, failed = bench_actions._installed(["ours", "granian", "robyn"])

    assert paths == {"ours": [], "granian": [Path("/peers/peers/granian")]}
    assert failed == {"robyn": "cannot be installed: no wheel for this Python"}


def test_requests_are_written_as_the_client_reads_them() -> None:
    """A length, a line feed, the bytes; the mark is where the number goes."""
    request = action_request("a7", "ak_x")

    assert packed([request, b"xy"]) == b"%d\n%b2\nxy" % (len(request), request)
    head, body = request.split(b"\r\n\r\n")
    assert request.count(bench_actions.MARK.encode()) == 1
    assert f"Content-Length: {len(body)}" in head.decode().split("\r\n")
    assert b"POST /api/agents/a7/action HTTP/1.1" in head


def test_processor_time_is_that_of_the_whole_family() -> None:
    """Threads and children are in it."""
    before = bench_actions._cpu_ns(os.getpid())
    sum(range(100_000))

    assert bench_actions._cpu_ns(os.getpid()) > before


def test_every_row_is_one_of_arena_bench() -> None:
    """And every server's requirements are pinned with hashes."""
    assert set(bench_actions.IDS) <= set(IDS)
    for name in ("fastapi", *bench_actions.PEERS):
        lock = bench_actions.HERE / "requirements" / f"{name}.lock"
        lines = [line for line in lock.read_text().splitlines() if line and not line.startswith((" ", "#"))]
        assert all("==" in line for line in lines)
        assert lock.read_text().count("--hash=sha256:") >= len(lines)
