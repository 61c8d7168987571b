"""The desk: one answer to each action, when it is on disk, in order, or when it never will be."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from server.clock import ManualClock
from server.config import Settings
from server.live.admission import Admission, Limits, TimeBudget
from server.live.desk import Desk, Identity, too_many
from server.live.pace import Pace
from server.live.switches import Switches
from server.live.turns import Turns
from server.routes import problem_of
from tests.support.disks import FailingFile
from tests.support.live import LiveWorld, live_world, soon, until

REST = {"type": "limit", "market": "food", "side": "buy", "quantity": 1, "price": "0.05"}
KEY = b"key".ljust(32, b".")


class Window:
    """A desk over a live world, and what it answered."""

    def __init__(self, arena: LiveWorld, agent: int, per_minute: int = 6_000) -> None:
        self.agent = agent
        self.answers: list[dict[str, Any]] = []
        self.identity = Identity(agent, KEY)
        limits = Limits.of(Settings(rate_limit=per_minute), clock := ManualClock())
        pace = Pace(arena.recorder.queue, 0.1, clock)
        admission = Admission(arena.recorder, limits, TimeBudget(1, clock), pace, Turns(clock), arena.metrics)
        switches = Switches(arena.recorder, arena.world.economy.state, arena.metrics)
        self.desk = Desk(admission, arena.recorder, switches, problem_of)

    def act(self, name: str, **changes: Any) -> None:
        """Hand in an action."""
        content = {"client_action_id": name, **REST, **changes}
        self.desk.submit(self.identity, f"a{self.agent}", content, self.answers.append)


@asynccontextmanager
async def window(folder: Path, **options: Any) -> AsyncIterator[tuple[LiveWorld, Window]]:
    """Run a desk over a live world with one agent."""
    async with live_world(folder, **options) as arena:
        agent = (await arena.register()).agent
        opened = Window(arena, agent)
        running = asyncio.create_task(opened.desk.run())
        try:
            yield arena, opened
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await soon(running)


async def test_answers_come_in_order_once_synced(tmp_path: Path) -> None:
    """Also to one that was accepted long ago: it waits for those before it."""
    async with window(tmp_path) as (arena, desk):
        desk.act("a")
        await until(lambda: len(desk.answers) == 1)
        for name in ("b", "a", "c"):
            desk.act(name)
        assert len(desk.answers) == 1, "nothing is answered in the step that journaled it"

        await until(lambda: len(desk.answers) == 4)

        receipts = [answer["receipt"] for answer in desk.answers]
        assert [receipt["client_action_id"] for receipt in receipts] == ["a", "b", "a", "c"]
        assert [receipt["duplicate"] for receipt in receipts] == [False, False, True, False]
        assert arena.recorder.journal.durable_seq >= receipts[-1]["seq"]


async def test_floats_are_taken_as_they_were_written(tmp_path: Path) -> None:
    """1.25 over the socket is 1.25 over REST: the same action; not a number is none."""
    async with window(tmp_path) as (_, desk):
        desk.act("a", price=1.25)
        desk.act("a", price="1.25")
        desk.act("b", price=float(2**60))
        await until(lambda: len(desk.answers) == 3)

        refused = next(answer for answer in desk.answers if answer["type"] == "error")
        assert (refused["code"], refused["status"]) == (100, 400)
        assert [answer["receipt"]["duplicate"] for answer in desk.answers if answer["type"] == "ack"] == [False, True]


async def test_a_disk_that_fails_leaves_the_fate_open(tmp_path: Path) -> None:
    """504 to all that wait, 503 to those that come: as over REST."""
    files: list[FailingFile] = []

    def open_file(path: Path) -> FailingFile:
        files.append(FailingFile(path, 1_000_000))
        return files[-1]

    async with window(tmp_path, open_file=open_file) as (arena, desk):
        files[-1].fails_at = 1
        desk.act("a")
        desk.act("b")
        await until(lambda: len(desk.answers) == 2)
        assert {(answer["code"], answer["status"]) for answer in desk.answers} == {(504, 504)}
        await until(lambda: arena.recorder.read_only is not None)

        desk.act("c")

        last = desk.answers[-1]
        assert (last["code"], last["status"], last["temporary"], last["retry_after_s"]) == (502, 503, True, 30)


async def test_a_key_that_was_revoked_speaks_for_nobody(tmp_path: Path) -> None:
    """Nor does it afterwards."""
    async with window(tmp_path) as (arena, desk):
        key_hash = hashlib.sha256(b"other").digest()
        made = arena.recorder.register(None, key_hash, "a-secret-name-of-mine")
        identity = desk.desk.identify(key_hash)
        assert identity == Identity(made.owner, key_hash)
        assert desk.desk.is_valid(identity)

        arena.recorder.register(None, hashlib.sha256(b"new").digest(), "a-secret-name-of-mine")

        assert desk.desk.identify(key_hash) is None
        assert not desk.desk.is_valid(identity)


def test_too_many_at_once_is_said_in_the_words_of_rest() -> None:
    """As many actions wait as may: temporary, with the time to wait."""
    told = too_many()

    assert (told["type"], told["code"], told["status"], told["temporary"], told["retry_after_s"]) == (
        "error", 411, 429, True, 1,
    )  # fmt: skip
