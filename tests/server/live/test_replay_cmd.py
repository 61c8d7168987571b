"""arena replay: what it prints and what it leaves, for a sound world and for others."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.journal import Mark, RecordKind, encode_mark
from engine.markets import ID
from server.live.history import SERIES
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


async def test_a_replay_stops_where_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After that tick, with the hash the world had then; --check compares what is stored until there."""
    hashes = {}
    async with live_world(tmp_path) as arena:
        for _ in range(25):
            await arena.tick()
            hashes[arena.world.economy.tick] = arena.world.economy.state_hash().hex()

    status = main([str(tmp_path), "--to", "41", "--check"])

    printed = capsys.readouterr().out
    assert status == 0
    assert printed.endswith(f"tick 41, state hash {hashes[41]}\n")
    assert re.search(r"^16 marks, [1-9] hashes checked, all equal$", printed, re.MULTILINE)


@pytest.mark.parametrize("tick", ["24", "51", "99999"])
async def test_a_tick_that_is_not_recorded_leaves_2(
    tick: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With those there are, before any time goes into ticks; no file is left."""
    await lived(tmp_path)
    capsys.readouterr()

    status = main([str(tmp_path), "--to", tick, "--history", str(tmp_path / "out.parquet")])

    assert status == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"arena replay: --to {tick}: {tmp_path} holds the ticks 25 to 50\n")
    assert not (tmp_path / "out.parquet.new").exists()


async def test_the_history_of_the_replayed_ticks_is_what_was_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row a tick, a column a series, the numbers of the documents, the times of the marks."""
    views = []
    async with live_world(tmp_path / "world") as arena:
        await arena.register()
        for _ in range(25):
            await arena.tick()
            assert arena.ticker.view is not None
            views.append(arena.ticker.view)
    path = tmp_path / "run.parquet"

    status = main([str(tmp_path / "world"), "--history", str(path)])

    table = pq.read_table(path)
    numbers = [view.numbers for view in views]
    assert status == 0
    assert f"25 ticks of history in {path}" in capsys.readouterr().out
    assert table.column_names == ["tick", "time", *SERIES]
    assert table["tick"].to_pylist() == [view.tick for view in views]
    assert table["time"].cast("int64").to_pylist() == [view.marked_unix_ns // 1_000_000 for view in views]
    assert table["cpi"].to_pylist() == [one["inflation_update"]["cpi"] for one in numbers]
    assert table["food.price"].to_pylist() == [one["market_tick"]["price"][ID["food"]] for one in numbers]
    assert table["food.volume"].to_pylist() == [one["market_tick"]["volume"][ID["food"]] for one in numbers]
    assert table.schema.field("food.price").metadata == {b"unit": b"credits"}


async def test_without_pyarrow_a_history_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    await lived(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    assert main([str(tmp_path), "--history", str(tmp_path / "out.parquet")]) == 2
    assert "pip install" in capsys.readouterr().err


async def test_a_world_that_differs_leaves_1_and_the_tick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first tick whose hash is not met is named."""
    world = open_small(tmp_path)
    world.journal.start()
    mark = Mark(world.start_tick + 1, 0, 0, world.start_tick, b"0123456789abcdef", world.journal.chain.close())
    world.journal.append(RecordKind.MARK, encode_mark(mark))
    await soon(world.close())

    status = main([str(tmp_path), "--check"])

    assert status == 1
    assert f"tick {world.start_tick} differs: " in capsys.readouterr().err


async def test_damage_leaves_3_and_the_offset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged bytes are named before any time goes into ticks."""
    await lived(tmp_path)
    path = segment_paths(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[1_000] ^= 1
    path.write_bytes(data)

    status = main([str(tmp_path)])

    assert status == 3
    assert re.match(r"arena replay: .*damaged at byte \d+: ", capsys.readouterr().err)


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

    printed = capsys.readouterr().err
    assert (in_use, nothing) == (2, 2)
    assert "belongs to a running process" in printed
    assert "holds no journal" in printed
    assert not (tmp_path / "nothing").exists()
    world.lock.release()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--chekc",), "the following arguments are required: DIR"),
        (("world", "--threads", "99"), "argument --threads: a whole number from 1 to 64, got '99'"),
        (("world", "--to=-1"), "argument --to: a whole number from 0 on, got '-1'"),
    ],
)
def test_a_wrong_option_shows_the_usage(capsys: pytest.CaptureFixture[str], option: tuple[str, ...], said: str) -> None:
    """Mistyped commands end with status 2 and what is allowed."""
    with pytest.raises(SystemExit) as raised:
        main(option)

    assert raised.value.code == 2
    printed = capsys.readouterr().err
    assert "usage: arena replay" in printed
    assert said in printed
