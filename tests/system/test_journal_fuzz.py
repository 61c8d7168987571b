"""A journal as a server leaves it, harmed in a thousand ways: what was durable is kept or found to be harmed."""

from __future__ import annotations

import gzip
import random
import shutil
from pathlib import Path

import pytest

from engine.errors import JournalDamaged
from engine.journal import RecordKind
from engine.messages import Kind
from server.live import world
from server.live.journal import read_segments, scan_segment, segment_paths
from server.live.verify_cmd import DAMAGED, OK, main
from tests.support.disks import GatedFile
from tests.support.live import live_world, open_small, soon, until

EVERY = 8
FLIPS = 1_000


async def live(folder: Path) -> int:
    """Leave a killed world of several segments, some of them archived; return where its last batch begins.

    An action of no tick yet lies before that batch, and two are in it.
    """
    files: list[GatedFile] = []

    def open_file(path: Path) -> GatedFile:
        files.append(GatedFile(path))
        return files[-1]

    async with live_world(folder / "running", open_file=open_file, snapshot_ticks=EVERY, resume_frames=2) as arena:
        agent = (await arena.register()).agent
        for i in range(5 * EVERY):
            arena.act(agent, f"a-{i}", Kind.SET_SENTIMENT, mood=(1, 2, 3, i))
            await arena.tick()
            await soon(arena.world.snapshots.idle())
        with files[-1].shut():
            path = segment_paths(folder / "running")[-1]
            size = path.stat().st_size
            arena.act(agent, "b-before", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
            await until(lambda: path.stat().st_size > size)
            begin = path.stat().st_size
            # one batch: what is appended while the one before is synced
            for i in range(2):
                arena.act(agent, f"b-{i}", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
        await soon(arena.recorder.durable(arena.world.journal.next_seq - 1))
        shutil.copytree(folder / "running", folder / "killed")
    return begin


@pytest.mark.timeout(400)
async def test_truncated_at_every_byte_of_its_last_batch_it_starts(tmp_path: Path) -> None:
    """Every whole record is kept, the first one lost is named, and the world goes on from there."""
    begin = await live(tmp_path)
    folder = tmp_path / "killed"
    path = segment_paths(folder)[-1]
    whole = path.read_bytes()
    records = [record for record in scan_segment(path) if record.offset >= begin]
    assert [record.kind for record in records] == [RecordKind.ACTION] * 2
    ends = [record.offset for record in records[1:]] + [len(whole)]

    for length in range(begin, len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = sum(end <= length for end in ends)
        torn = scan_segment(path)
        for _ in torn:
            pass
        if begin < length < len(whole):
            assert torn.torn is not None
            assert torn.torn.sequence == records[0].sequence + kept
        opened = open_small(folder, snapshot_ticks=EVERY, resume_frames=2)
        assert len(opened.queue) == 1 + kept, length
        assert opened.journal.next_seq == records[0].sequence + kept
        opened.events.close()
        opened.journal._writer._file.close()
        opened.lock.release()


async def test_a_thousand_flipped_bits_before_the_last_batch_are_all_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In any segment, archived ones included: verify says so, and a server does not start over what it would read."""
    begin = await live(tmp_path)
    folder = tmp_path / "killed"
    assert main([str(folder)]) == OK
    paths = segment_paths(folder)
    assert {path.suffix for path in paths} == {".gz", ".arj"}
    draw = random.Random(1)
    sizes = [path.stat().st_size for path in paths[:-1]] + [begin]

    found = 0
    while found < FLIPS:
        path, size = draw.choices(list(zip(paths, sizes, strict=True)), sizes)[0]
        whole = path.read_bytes()
        harmed = bytearray(whole)
        position = draw.randrange(size)
        harmed[position] ^= 1 << draw.randrange(8)
        path.write_bytes(harmed)
        status = main([str(folder)])
        path.write_bytes(whole)
        if status == OK and path.suffix == ".gz":
            # a packed file has bits that nothing depends on: its time, codes that no byte uses, the end of its last one
            assert gzip.decompress(harmed) == gzip.decompress(whole)
            continue
        assert status == DAMAGED, (path.name, position)
        found += 1

    capsys.readouterr()
    assert main([str(folder)]) == OK


async def test_damage_in_what_a_start_reads_is_refused(tmp_path: Path) -> None:
    """A flipped bit before the last batch of the newest segment keeps the world shut, with the offset named."""
    begin = await live(tmp_path)
    folder = tmp_path / "killed"
    path = segment_paths(folder)[-1]
    whole = path.read_bytes()
    draw = random.Random(2)

    for _ in range(40):
        position = draw.randrange(begin)
        harmed = bytearray(whole)
        harmed[position] ^= 1 << draw.randrange(8)
        path.write_bytes(harmed)
        with pytest.raises(JournalDamaged) as raised:
            open_small(folder, snapshot_ticks=EVERY, resume_frames=2)
        assert raised.value.offset <= position
        assert path.read_bytes() == harmed

    path.write_bytes(whole)
    assert sum(1 for _ in read_segments(segment_paths(folder))) > 5 * EVERY
    assert world.read_genesis(folder).start_tick > 0
