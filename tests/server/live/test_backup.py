"""A backup is a whole world: restored it goes on from the same state, at its end or at any tick before."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from server.clock import ManualClock
from server.live.backup import BackupError, backup, restore
from server.live.backup_cmd import backup_main, restore_main
from server.live.journal import scan_segment, segment_paths
from server.live.verify_cmd import OK, main
from tests.support.live import LiveWorld, live_world, open_small, soon

EVERY = 5
OFTEN = {"snapshot_ticks": EVERY, "resume_frames": 2}


async def live(arena: LiveWorld, ticks: int) -> dict[int, str]:
    """Let one agent act; return the hash after each tick."""
    hashes = {}
    agent = (await arena.register()).agent
    for i in range(ticks):
        arena.act(agent, f"a-{i}", market=12, side=1, quantity=1, level=40_000)
        await arena.tick()
        hashes[arena.world.economy.tick] = arena.world.economy.state_hash().hex()
        await soon(arena.world.snapshots.idle())
    return hashes


async def test_a_backup_of_a_running_world_is_restored_to_the_bit(tmp_path: Path) -> None:
    """Taken while it runs; the restored one has the same state under an epoch of its own, and goes on."""
    async with live_world(tmp_path / "one", **OFTEN) as arena:
        hashes = await live(arena, 6 * EVERY)
        agent = next(iter(arena.world.registry)).number
        manifest = backup(tmp_path / "one", tmp_path / "file.tar", ManualClock())
        epoch = arena.world.epoch
        await arena.tick(3)

    restored = restore(tmp_path / "file.tar", tmp_path / "two", ManualClock())

    assert (restored.parent, restored.tick, restored.files) == (epoch, max(hashes), len(manifest["files"]))
    assert main([str(tmp_path / "two"), "--replay"]) == OK
    async with live_world(tmp_path / "two", **OFTEN) as again:
        assert again.world.economy.state_hash().hex() == hashes[restored.tick]
        assert again.world.epoch == restored.epoch != epoch
        assert again.world.receipts.get(agent, "a-3") is not None
        await again.tick(EVERY)


@pytest.mark.parametrize("back", [1, 7, 24])
async def test_a_point_in_time(tmp_path: Path, back: int) -> None:
    """Cut behind any tick, in the last segment or an archived one."""
    async with live_world(tmp_path / "one", **OFTEN) as arena:
        hashes = await live(arena, 6 * EVERY)
    backup(tmp_path / "one", tmp_path / "file.tar", ManualClock())
    tick = max(hashes) - back

    restored = restore(tmp_path / "file.tar", tmp_path / "two", ManualClock(), to_tick=tick)

    world = open_small(tmp_path / "two", **OFTEN)
    world.lock.release()
    assert restored.tick == world.economy.tick == tick
    assert world.economy.state_hash().hex() == hashes[tick]
    with pytest.raises(BackupError, match=f"holds the ticks {min(hashes)} to {max(hashes)}, not 5"):
        restore(tmp_path / "file.tar", tmp_path / "three", ManualClock(), to_tick=5)
    assert not (tmp_path / "three").exists()


async def test_an_encrypted_backup_opens_with_its_key_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of the world is readable in it; another key, or none, is told so."""
    async with live_world(tmp_path / "one", **OFTEN) as arena:
        hashes = await live(arena, EVERY)
        seed = bytes.fromhex(arena.world.genesis.seed)
    file, folder = str(tmp_path / "file"), str(tmp_path / "two")
    for name in ("key", "other"):
        assert backup_main(["--new-identity", str(tmp_path / name)]) == 0
    public = (tmp_path / "key").read_text().splitlines()[0].split()[-1]

    assert backup_main([str(tmp_path / "one"), file, "--recipient", public]) == 0

    data = (tmp_path / "file").read_bytes()
    assert data.startswith(b"age-encryption.org/v1")
    assert b"ARENAJ" not in data
    assert seed.hex().encode() not in data
    assert restore_main([file, folder]) == 2
    assert restore_main([file, folder, "--identity", str(tmp_path / "other")]) == 2
    assert restore_main([file, folder, "--identity", file]) == 2
    assert backup_main([str(tmp_path / "one"), f"{file}.2", "--recipient", "age1nobody"]) == 2
    said = capsys.readouterr().err
    assert "is encrypted: name the file" in said
    assert "cannot be decrypted" in said
    assert f"{file} holds no age secret key" in said
    assert "age public key" in said
    assert sorted(os.listdir(tmp_path)) == ["file", "key", "one", "other"]
    assert restore_main([file, folder, "--identity", str(tmp_path / "key")]) == 0
    world = open_small(tmp_path / "two", **OFTEN)
    world.lock.release()
    assert world.economy.state_hash().hex() == hashes[max(hashes)]


async def test_a_damaged_backup_makes_no_folder(tmp_path: Path) -> None:
    """Cut short or flipped anywhere that matters: refused, and nothing is left."""
    async with live_world(tmp_path / "one", **OFTEN) as arena:
        await live(arena, EVERY)
    file = tmp_path / "file"
    backup(tmp_path / "one", file, ManualClock())
    whole = file.read_bytes()
    with tarfile.open(file) as tar:
        places = [member.offset_data + member.size // 2 for member in tar if member.size]

    for harmed in [*(whole[:size] for size in (0, 700, len(whole) // 2)), *(flip(whole, at) for at in places)]:
        file.write_bytes(harmed)
        with pytest.raises(BackupError):
            restore(file, tmp_path / "two", ManualClock())
        assert sorted(os.listdir(tmp_path)) == ["file", "one"]


@pytest.mark.parametrize("segment", [0, 2, -2])
async def test_a_damaged_journal_is_not_backed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], segment: int
) -> None:
    """Archived or not: status 3, the file and the offset, and nothing is written."""
    async with live_world(tmp_path / "one", **OFTEN) as arena:
        await live(arena, 6 * EVERY)
    path = segment_paths(tmp_path / "one")[segment]
    is_packed, whole = path.suffix == ".gz", path.read_bytes()
    at = next(iter(scan_segment(path))).offset + 20
    harmed = flip(gzip.decompress(whole) if is_packed else whole, at)
    path.write_bytes(gzip.compress(harmed) if is_packed else harmed)

    assert backup_main([str(tmp_path / "one"), str(tmp_path / "file")]) == 3

    assert re.match(rf"arena backup: {path}: damaged at byte \d+: ", capsys.readouterr().err)
    assert os.listdir(tmp_path) == ["one"]


def flip(data: bytes, at: int) -> bytes:
    """Return data with a bit flipped."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "lock", "warm/x.arw", "journal-1.arj"])
def test_nothing_but_a_world_is_unpacked(tmp_path: Path, name: str) -> None:
    """Whatever names a file has in it."""
    with tarfile.open(tmp_path / "file", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))

    with pytest.raises(BackupError, match="no part of a world"):
        restore(tmp_path / "file", tmp_path / "two", ManualClock())

    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_use_or_none_is_refused(tmp_path: Path) -> None:
    """No world is overwritten, and an empty folder makes no backup."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "there").touch()

    with pytest.raises(BackupError, match="is not empty"):
        restore(tmp_path / "any", tmp_path / "full", ManualClock())
    with pytest.raises(BackupError, match="holds no world"):
        backup(tmp_path / "full", tmp_path / "new", ManualClock())
    with pytest.raises(BackupError, match="exists"):
        backup(tmp_path / "full", tmp_path / "there", ManualClock())
    with pytest.raises(BackupError, match=f"there is no folder {tmp_path / 'none'}$"):
        backup(tmp_path / "full", tmp_path / "none" / "new", ManualClock())
    with pytest.raises(BackupError, match="is not encrypted: leave --identity out"):
        restore(tmp_path / "there", tmp_path / "new", ManualClock(), tmp_path / "key")
    assert not (tmp_path / "new").exists()
