"""arena replay: what it prints and what it leaves, for a sound world and for others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.journal import Mark, RecordKind, encode_mark
from server.live.journal import segment_paths
from server.live.replay_cmd import main
from tests.support.live import live_world, open_small, soon


async def lived(folder: Path, ticks: int = 25) -> bytes:
    """Let a small world live in a folder; return its last state hash."""
    async with live_world(folder) as arena:
        await arena.register()
        await arena.tick(ticks)
        return arena.world.economy.state_hash()


async def test_a_sound_world_is_said_to_be_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Marks and hashes are counted, the last state hash is shown, nothing in the folder changes."""
    last = await lived(tmp_path)
    path = segment_paths(tmp_path)[0]
    before = path.read_bytes()

    status = main([str(tmp_path), "--check"])

    printed = capsys.readouterr().out
    assert status == 0
    found = re.search(r"^25 marks, (\d) hashes checked, all equal$", printed, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= 2
    assert printed.endswith(f"tick 50, state hash {last.hex()}\n")
    assert path.read_bytes() == before


async def test_without_check_the_hashes_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Faster, and it does not claim what it did not look at."""
    last = await lived(tmp_path)

    status = main([str(tmp_path), "--threads", "2"])

    printed = capsys.readouterr().out
    assert status == 0
    assert "\n25 marks\n1 actions, " in "\n" + printed
    assert last.hex() in printed


async def test_a_world_that_differs_leaves_1_and_the_tick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first tick whose hash is not met is named."""
    world = open_small(tmp_path)
    world.journal.start()
    mark = Mark(world.start_tick + 1, 0, 0, world.start_tick, b"0123456789abcdef", world.journal.chain.close())
    world.journal.append(RecordKind.MARK, encode_mark(mark))
    await soon(world.close())

    status = main([str(tmp_path), "--check"])

    assert status == 1
    assert f"tick {world.start_tick} differs: " in capsys.readouterr().out


async def test_damage_leaves_3_and_the_offset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged bytes are named before any time goes into ticks."""
    await lived(tmp_path)
    path = segment_paths(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[1_000] ^= 1
    path.write_bytes(data)

    status = main([str(tmp_path)])

    assert status == 3
    assert re.search(r"damaged at byte \d+: ", capsys.readouterr().out)


async def test_a_torn_tail_is_reported_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command only reads: what would be cut on a start is named, and stays."""
    await lived(tmp_path)
    path = segment_paths(tmp_path)[0]
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)

    status = main([str(tmp_path), "--check"])

    printed = capsys.readouterr().out
    assert status == 0
    assert "torn tail: " in printed
    assert "the first record lost is " in printed
    assert "25 marks" in printed
    assert path.read_bytes() == torn


def test_a_folder_in_use_or_empty_leaves_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A running server keeps its folder; a folder without a journal is no world, and does not become one."""
    world = open_small(tmp_path / "world")

    in_use = main([str(tmp_path / "world")])
    nothing = main([str(tmp_path / "nothing")])

    printed = capsys.readouterr().out
    assert (in_use, nothing) == (2, 2)
    assert "belongs to a running process" in printed
    assert "holds no journal" in printed
    assert not (tmp_path / "nothing").exists()
    world.lock.release()


def test_a_wrong_option_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Mistyped commands end with status 2 and what is allowed."""
    with pytest.raises(SystemExit) as raised:
        main(["--chekc"])

    assert raised.value.code == 2
    assert "usage: arena replay" in capsys.readouterr().err
