"""arena verify: what every record is, and whether all of it is what was written."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from engine.journal import BATCH_RECORD_SIZE, RecordKind
from engine.messages import Kind
from server.live.journal import read_segments, scan_segment, segment_paths
from server.live.snapshots import list_snapshots, load
from server.live.verify_cmd import BROKEN, DAMAGED, OK, REFUSED, main
from tests.support.live import live_world, open_small, soon

EVERY = 6


async def a_world(folder: Path, ticks: int = 5 * EVERY) -> None:
    """Leave a world with archived segments, snapshots and some actions."""
    async with live_world(folder, snapshot_ticks=EVERY, resume_frames=2) as arena:
        agent = (await arena.register()).agent
        for i in range(ticks):
            arena.act(agent, f"a-{i}", Kind.LIMIT, market=12, side=1, quantity=1 + i, level=40_000)
            await arena.tick()
            await soon(arena.world.snapshots.idle())


def opened(folder: Path) -> tuple[int, bytes]:
    """Open a world as a start does and return its tick and state hash."""
    world = open_small(folder, snapshot_ticks=EVERY, resume_frames=2)
    world.lock.release()
    return world.economy.tick, world.economy.state_hash()


async def test_it_says_what_a_world_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records by kind, ticks, chain, snapshots; with --records every one in words; with --replay every hash."""
    await a_world(tmp_path)

    assert main([str(tmp_path), "--records", "--from", "2", "--to", "5", "--replay"]) == OK

    said = capsys.readouterr().out
    assert "2  agent a2 of owner 2 registers" in said
    assert "3  owner 2 gets a key for agent a2" in said
    assert "agent a2: limit buy 1 food" in said or "agent a2: limit buy 1" in said
    assert "tick 26 begins at" in said
    assert "30 mark" in said
    assert "hashes checked, all equal" in said
    assert "all of it holds" in said
    assert "archived" in said


async def test_each_action_of_a_batch_is_told_under_its_own_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if it had come alone, also from the middle of a batch on."""
    async with live_world(tmp_path) as arena:
        agent = (await arena.register()).agent
        arena.act_batch(agent, "x", "y", "z", market=12, side=1, quantity=4, level=40_000)
        await arena.tick()

    assert main([str(tmp_path), "--records", "--from", "5", "--to", "6"]) == OK

    said = capsys.readouterr().out
    assert "5  agent a2: limit buy 4" in said
    assert "id 'y'" in said
    assert "id 'z'" in said
    assert "id 'x'" not in said
    assert "1 actions, 1 clean_stop" in said
    assert "; 4 actions" in said


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
async def test_harmed_receipts_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str) -> None:
    """Those the newest snapshot needs are all read."""
    async with live_world(tmp_path, snapshot_ticks=EVERY) as arena:
        agent = (await arena.register()).agent
        for i in range(2 * EVERY):
            arena.act_batch(agent, f"x-{i}", f"y-{i}", kind=Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
            await arena.tick()
    (name, _) = load(list_snapshots(tmp_path)[-1].path).receipt_files[-1]
    path = tmp_path / "receipts" / name
    match harm:
        case "flipped":
            data = bytearray(path.read_bytes())
            data[40] ^= 1
            path.write_bytes(data)
        case "cut":
            path.write_bytes(path.read_bytes()[:-1])
        case "gone":
            path.unlink()

    assert main([str(tmp_path)]) == BROKEN
    assert f"its receipts in {name}" in capsys.readouterr().out


async def test_a_flipped_removed_or_reordered_record_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is, archived segments included; the offset is named."""
    await a_world(tmp_path)
    for path in segment_paths(tmp_path)[:3]:
        whole = path.read_bytes()
        data = gzip.decompress(whole) if path.suffix == ".gz" else whole
        records = list(scan_segment(path))
        first, second = records[1], records[2]
        end = second.offset + (records[3].offset - second.offset)
        flipped = bytearray(data)
        flipped[second.offset + 20] ^= 4
        removed = data[: first.offset] + data[second.offset :]
        swapped = data[: first.offset] + data[second.offset : end] + data[first.offset : second.offset] + data[end:]
        for harmed in (bytes(flipped), removed, swapped):
            path.write_bytes(gzip.compress(harmed) if path.suffix == ".gz" else harmed)
            assert main([str(tmp_path)]) == DAMAGED
            assert "DAMAGED" in capsys.readouterr().out
        path.write_bytes(whole)
    assert main([str(tmp_path)]) == OK


async def test_damage_that_no_start_reads_is_said_to_be_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the newest snapshots: the world opens to the same state. Behind one of them: nothing of it is said."""
    await a_world(tmp_path)
    sound = opened(tmp_path)
    paths, said = segment_paths(tmp_path), {}
    for path in (paths[1], paths[-2]):
        whole = path.read_bytes()
        data = bytearray(gzip.decompress(whole) if path.suffix == ".gz" else whole)
        data[list(scan_segment(path))[1].offset + 20] ^= 4
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        assert main([str(tmp_path)]) == DAMAGED
        said[path] = capsys.readouterr().out
        if path == paths[1]:
            assert opened(tmp_path) == sound
        path.write_bytes(whole)

    assert "a start does not read that" in said[paths[1]]
    assert "--salvage would give up everything" in said[paths[1]]
    assert "a start" not in said[paths[-2]]


async def test_a_removed_segment_is_found(tmp_path: Path) -> None:
    """The chain of the next one does not fit."""
    await a_world(tmp_path)
    segment_paths(tmp_path)[1].unlink()

    assert main([str(tmp_path)]) == DAMAGED


async def test_a_harmed_snapshot_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The journal holds all the same."""
    await a_world(tmp_path)
    path = list_snapshots(tmp_path)[0].path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    assert main([str(tmp_path)]) == BROKEN
    assert f"SNAPSHOT  {path.name}" in capsys.readouterr().out


async def test_a_torn_tail_is_told_and_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the first sequence that is lost."""
    await a_world(tmp_path)
    path = segment_paths(tmp_path)[-1]
    last = list(read_segments([path]))[-1]
    path.write_bytes(path.read_bytes()[: last.offset + BATCH_RECORD_SIZE // 2 - 5])

    assert main([str(tmp_path)]) == OK
    said = capsys.readouterr().out
    assert f"the first record lost is {last.sequence}" in said
    assert last.kind is RecordKind.CLEAN_STOP


def test_a_folder_without_a_world_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to verify is no proof."""
    assert main([str(tmp_path)]) == REFUSED
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"arena verify: {tmp_path} holds no journal\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--records", "--from", "5", "--to", "2"), "--from 5 --to 2: --to must not be before --from"),
        (("--from", "5"), "--from and --to choose what --records says: give it too"),
        (("--records", "--from", "90"), "--from 90: the records are 1 to "),
    ],
)
async def test_a_span_of_records_that_says_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    """With what is allowed; nothing that looks like a result is printed."""
    async with live_world(tmp_path) as arena:
        await arena.tick()
    capsys.readouterr()

    assert main([str(tmp_path), *options]) == REFUSED

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"arena verify: {said}")


def test_a_record_has_a_number_from_1_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and what is allowed."""
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path), "--records", "--from", "0"])

    assert raised.value.code == 2
    assert "argument --from: a whole number from 1 on, got '0'" in capsys.readouterr().err
