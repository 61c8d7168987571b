"""The recorder: one order for everything, one effect per id, and nothing half done when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.journal import RecordKind, decode_actions, decode_key, is_input
from engine.market_queue import MarketQueue
from engine.messages import ACTION, Kind
from engine.receipt_table import Verdict
from server.live import registry
from server.live.errors import Full, IdReused, OwnerFull, ReadOnly, ReceiptsFull, WorldFull
from server.live.journal import scan_segment, segment_paths
from server.live.receipts import Receipts, names_of
from server.live.recorder import Input, Recorder, Submitted, Taken
from server.live.world import World
from server.metrics import Metrics
from tests.support.disks import failing
from tests.support.journals import action_row
from tests.support.live import live_world, open_small, soon
from tests.support.worlds import small_config

PRINT, OTHER_PRINT = b"p" * 16, b"q" * 16


def make(folder: Path, *, queue: int = 100, receipts: int = 100, **changes: Any) -> tuple[World, Recorder, Metrics]:
    """Return a recorder on a new world whose journal is not being written yet."""
    world, metrics = open_small(folder, **changes), Metrics()
    world.queue = MarketQueue(queue)
    world.receipts = Receipts(world.economy.tick, limit=receipts)
    return world, Recorder(world.journal, world.queue, world.receipts, world.registry, metrics), metrics


def count(metrics: Metrics, kind: str, outcome: str) -> float | None:
    """Return how many actions of a kind had an outcome at the door."""
    return metrics.registry.get_sample_value("arena_actions_total", {"kind": kind, "outcome": outcome})


Way = Callable[..., Submitted]


def submitted(recorder: Recorder, name: str, agent: int = 1, *, is_other: bool = False) -> Submitted:
    """Hand an action over with its fingerprint."""
    return recorder.submit(action_row(agent), name, OTHER_PRINT if is_other else PRINT)


def taken_at_once(recorder: Recorder, name: str, agent: int = 1, *, is_other: bool = False) -> Submitted:
    """Hand the bytes of an action over, as the door does."""
    row = action_row(agent, quantity=2 if is_other else 1)
    return recorder.take(Input(Kind.LIMIT, name, -1, int(row["valid_until"][0]), row.tobytes()))


either_way = pytest.mark.parametrize("ask", [submitted, taken_at_once])


@either_way
def test_journal_queue_and_receipts_agree_on_the_order(ask: Way, tmp_path: Path) -> None:
    """Sequence in the journal, place in the queue and number on the receipt are one."""
    world, recorder, metrics = make(tmp_path)

    taken = [ask(recorder, f"a-{agent}", agent) for agent in (3, 1, 2)]

    assert [item.receipt.seq for item in taken] == [2, 3, 4]
    rows = world.queue.drain()
    assert rows["seq"].tolist() == [2, 3, 4]
    assert rows["agent_id"].tolist() == [3, 1, 2]
    assert world.journal.next_seq == 5
    assert count(metrics, "limit", "accepted") == 3
    world.lock.release()


@either_way
def test_the_same_action_again_gets_the_first_receipt(ask: Way, tmp_path: Path) -> None:
    """A repeated action is recognised by id and content; nothing is journaled or queued a second time."""
    world, recorder, metrics = make(tmp_path)

    first = ask(recorder, "a-1")
    again = ask(recorder, "a-1")

    assert (again.receipt.document(False), again.duplicate) == (first.receipt.document(False), True)
    assert not first.duplicate
    assert (len(world.queue), world.journal.next_seq) == (1, 3)
    assert count(metrics, "limit", "duplicate") == 1
    world.lock.release()


@either_way
def test_another_action_under_a_used_id_is_a_conflict(ask: Way, tmp_path: Path) -> None:
    """The id is taken; the agent learns which action took it."""
    world, recorder, metrics = make(tmp_path)
    ask(recorder, "a-1")

    with pytest.raises(IdReused, match="accepted as 2"):
        ask(recorder, "a-1", is_other=True)
    ask(recorder, "a-1", 2, is_other=True)

    assert len(world.queue) == 2
    assert count(metrics, "limit", "conflict") == 1
    world.lock.release()


@either_way
@pytest.mark.parametrize(
    ("limits", "error"), [({"queue": 2}, Full), ({"receipts": 2}, ReceiptsFull)], ids=["queue", "receipts"]
)
def test_a_refusal_for_want_of_room_changes_nothing(
    ask: Way, tmp_path: Path, limits: dict[str, int], error: type[Exception]
) -> None:
    """What is refused is surely not applied: no record, no place in the queue, no receipt; duplicates still answer."""
    world, recorder, metrics = make(tmp_path, **limits)
    for name in ("a-1", "a-2"):
        ask(recorder, name)
    before = (world.journal.next_seq, len(world.queue), len(world.receipts))

    with pytest.raises(error):
        ask(recorder, "a-3")

    assert (world.journal.next_seq, len(world.queue), len(world.receipts)) == before
    assert ask(recorder, "a-2").duplicate
    assert count(metrics, "limit", "refused_full") == 1
    world.lock.release()


def take(recorder: Recorder, *wishes: tuple[int, str, int], verdicts: list[Verdict] | None = None) -> Taken:
    """Submit a batch: agent, id and quantity of each action."""
    rows = np.concatenate([action_row(agent, quantity=quantity, valid_until=600) for agent, _, quantity in wishes])
    asked = np.array([Verdict.ASKED] * len(wishes) if verdicts is None else verdicts, np.int32)
    return recorder.submit_batch(rows, names_of([name for _, name, _ in wishes]), np.full(len(wishes), -1), asked)


def test_a_batch_is_one_record_and_its_actions_are_in_order(tmp_path: Path) -> None:
    """Sequences in a row for those that were accepted; what is known, taken or refused leaves no trace."""
    world, recorder, metrics = make(tmp_path)
    first = take(recorder, (1, "a", 5), (2, "a", 5))

    again = take(
        recorder, (1, "b", 1), (1, "a", 5), (2, "a", 6), (9, "c", 1), (3, "d", 1),
        verdicts=[Verdict.ASKED] * 3 + [Verdict.REFUSED, Verdict.ASKED],
    )  # fmt: skip

    assert first.admitted.seqs.tolist() == [2, 3]
    assert [Verdict(verdict).name for verdict in again.admitted.verdicts] == [
        "ACCEPTED", "DUPLICATE", "CONFLICT", "REFUSED", "ACCEPTED",
    ]  # fmt: skip
    assert again.admitted.seqs.tolist() == [4, 2, 3, 0, 5]
    assert (again.last, world.journal.next_seq) == (5, 6)
    rows = world.queue.drain()
    assert rows["seq"].tolist() == [2, 3, 4, 5]
    assert rows["agent_id"].tolist() == [1, 2, 1, 3]
    assert count(metrics, "limit", "accepted") == 4
    assert (count(metrics, "limit", "duplicate"), count(metrics, "limit", "conflict")) == (1, 1)
    world.lock.release()


def test_a_batch_and_an_action_alone_know_each_other(tmp_path: Path) -> None:
    """One id is one action, whichever way it came first."""
    world, recorder, _ = make(tmp_path)
    row = action_row(1, quantity=5, valid_until=600)
    fingerprint = recorder.receipts.fingerprints(row, np.array([-1])).tobytes()
    alone = recorder.submit(row, "alone", fingerprint)

    batch = take(recorder, (1, "alone", 5), (1, "batch", 5))
    again = recorder.submit(action_row(1, quantity=5, valid_until=600), "batch", fingerprint)

    assert batch.admitted.seqs.tolist() == [alone.receipt.seq, alone.receipt.seq + 1]
    assert (again.receipt.seq, again.duplicate) == (alone.receipt.seq + 1, True)
    world.lock.release()


@pytest.mark.parametrize(
    ("limits", "verdict"), [({"queue": 2}, Verdict.FULL), ({"receipts": 2}, Verdict.RECEIPTS_FULL)]
)
def test_of_a_batch_as_much_is_taken_as_has_room(tmp_path: Path, limits: dict[str, int], verdict: Verdict) -> None:
    """The first ones; the others are surely not applied, and who asks again is still answered."""
    world, recorder, metrics = make(tmp_path, **limits)

    taken = take(recorder, (1, "a", 1), (1, "b", 1), (1, "c", 1), (1, "a", 1))

    assert taken.admitted.verdicts.tolist() == [Verdict.ACCEPTED, Verdict.ACCEPTED, verdict, Verdict.DUPLICATE]
    assert isinstance(taken.full, Full)
    assert (world.journal.next_seq, len(world.queue), len(world.receipts)) == (4, 2, 2)
    assert count(metrics, "limit", "refused_full") == 1
    world.lock.release()


def test_a_frozen_world_takes_no_batch_but_knows_its_receipts(tmp_path: Path) -> None:
    """With the reason."""
    world, recorder, _ = make(tmp_path)
    take(recorder, (1, "a", 1))
    recorder.freeze("money does not add up")

    taken = take(recorder, (1, "a", 1), (1, "b", 1))

    assert taken.admitted.verdicts.tolist() == [Verdict.DUPLICATE, Verdict.FULL]
    assert isinstance(taken.full, ReadOnly)
    assert world.journal.next_seq == 3
    world.lock.release()


def test_a_registration_makes_owner_agent_and_key(tmp_path: Path) -> None:
    """The first registration's number is the owner's number too; the key opens it at once."""
    world, recorder, _ = make(tmp_path)

    first = recorder.register(None, b"a" * 32, None)
    second = recorder.register(first.owner, b"b" * 32, None)

    assert (first.agent, first.owner, first.seq) == (2, 2, 3)
    assert (second.agent, second.owner, second.seq) == (4, 2, 5)
    assert world.registry.agents_of(2) == [2, 4]
    assert world.registry.owner_of_key(b"b" * 32) == 2
    rows = world.queue.drain()
    assert rows["kind"].tolist() == [Kind.REGISTER] * 2
    assert rows["owner"].tolist() == [2, 2]
    world.lock.release()


def test_an_idempotency_key_gives_the_same_agent_a_new_key(tmp_path: Path) -> None:
    """Whoever lost the answer asks again: one agent, one open key."""
    world, recorder, _ = make(tmp_path)

    first = recorder.register(None, b"a" * 32, "word")
    again = recorder.register(None, b"b" * 32, "word")

    assert (again.agent, again.owner, again.repeated) == (first.agent, first.owner, True)
    assert again.seq == first.seq + 1
    assert len(world.queue) == 1
    assert world.registry.owner_of_key(b"a" * 32) is None
    assert world.registry.owner_of_key(b"b" * 32) == first.owner
    world.lock.release()


def test_registrations_stop_at_the_limits(tmp_path: Path) -> None:
    """Owner and world have their limits, pending registrations included; a refusal journals nothing."""
    world, recorder, metrics = make(tmp_path, engine=small_config(max_agents=3, agents_per_owner_max=2))
    owner = recorder.register(None, b"a" * 32, None).owner
    recorder.register(owner, b"b" * 32, None)
    with pytest.raises(OwnerFull):
        recorder.register(owner, b"c" * 32, None)
    recorder.register(None, b"d" * 32, None)
    before = world.journal.next_seq

    with pytest.raises(WorldFull):
        recorder.register(None, b"e" * 32, None)

    assert world.journal.next_seq == before
    assert world.registry.owner_of_key(b"e" * 32) is None
    sample = metrics.registry.get_sample_value
    assert sample("arena_registrations_total", {"result": "accepted"}) == 3
    assert sample("arena_registrations_total", {"result": "refused"}) == 2
    world.lock.release()


def test_leaving_is_an_action_with_a_receipt(tmp_path: Path) -> None:
    """To leave twice under one id is to leave once."""
    world, recorder, _ = make(tmp_path)
    agent = recorder.register(None, b"a" * 32, None).agent

    first = recorder.unregister(agent, "bye")
    again = recorder.unregister(agent, "bye")

    assert (again.receipt.document(False), again.duplicate) == (first.receipt.document(False), True)
    assert world.queue.drain()["kind"].tolist() == [Kind.REGISTER, Kind.UNREGISTER]
    world.lock.release()


@either_way
def test_a_frozen_world_takes_nothing_but_knows_its_receipts(ask: Way, tmp_path: Path) -> None:
    """Refusals name the reason; what was accepted before is still answered for."""
    world, recorder, _ = make(tmp_path)
    ask(recorder, "a-1")

    recorder.freeze("money does not add up")

    assert recorder.read_only == "money does not add up"
    with pytest.raises(ReadOnly, match="add up"):
        ask(recorder, "a-2")
    with pytest.raises(ReadOnly, match="add up"):
        recorder.register(None, b"a" * 32, None)
    assert ask(recorder, "a-1").duplicate
    assert world.journal.next_seq == 3
    world.lock.release()


@either_way
async def test_after_a_failed_disk_everything_is_refused(ask: Way, tmp_path: Path) -> None:
    """Read-only without a word from the ticker: the journal itself says so."""
    world, recorder, _ = make(tmp_path, open_file=failing(1))
    world.journal.start()
    taken = ask(recorder, "a-1")

    with pytest.raises(Exception, match="cannot be written"):
        await soon(recorder.durable(taken.receipt.seq))

    assert recorder.read_only is not None
    with pytest.raises(ReadOnly):
        ask(recorder, "a-2")
    assert len(world.receipts) == 1, "none without a record"
    world.lock.release()


async def test_a_key_too_many_ends_in_the_record_of_the_registration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that every replay ends the same one. The first key, the newest one and the one that was used stay."""
    monkeypatch.setattr(registry, "KEYS_KEPT", 1)
    names = [name * 32 for name in (b"a", b"b", b"c", b"d", b"e")]
    async with live_world(tmp_path, engine=small_config(agents_per_owner_max=1)) as arena:
        owner, used = None, registry.NO_KEY
        for name in names:
            made = arena.recorder.register(owner, name, None, used)
            owner, used = made.owner, names[1]
            await arena.tick()
            arena.recorder.unregister(made.agent, "bye")
            await arena.tick()
        opened = [arena.world.registry.owner_of_key(name) == owner for name in names]

    records = [decode_key(r.payload) for r in scan_segment(segment_paths(tmp_path)[0]) if r.kind is RecordKind.KEY]
    assert [record.revoked for record in records] == [registry.NO_KEY] * 3 + names[2:4]
    assert opened == [True, True, False, False, True]


async def test_the_journal_holds_what_was_taken_and_no_secret(tmp_path: Path) -> None:
    """Actions come back from the file as they were queued; keys and idempotency keys are there as hashes only."""
    async with live_world(tmp_path) as arena:
        made = await arena.register("api-key-hash", idempotency="a very secret word")
        seq = arena.act(made.agent, "a-1", market=12, side=1, quantity=3, level=17_000)
        await soon(arena.recorder.durable(seq))

    path = segment_paths(tmp_path)[0]
    records = list(scan_segment(path))
    actions = [decode_actions(record) for record in records if is_input(record)]
    keys = [decode_key(record.payload) for record in records if record.kind is RecordKind.KEY]

    assert [int(action.rows["seq"][0]) for action in actions] == [made.agent, seq]
    assert actions[1].client_action_ids == ["a-1"]
    assert actions[1].rows["quantity"] == 3
    assert [key.registration for key in keys] == [made.agent]
    assert b"a very secret word" not in path.read_bytes()
    assert np.concatenate([action.rows for action in actions]).dtype == ACTION
