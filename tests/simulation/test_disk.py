"""The disk of a run: what survives a power cut is between what was synced and what was written, and nothing else."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.simulation.disk import Behaviour, Disk, Operation, after_cut
from server.live.disk import sync_folder, write_whole
from server.live.journal import DiskFile

DRAWS = 40


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Return a disk that lies under os until the test ends."""
    with Disk(tmp_path / "data").mounted() as mounted:
        yield mounted


def cuts(disk: Disk, target: Path) -> list[dict[str, bytes]]:
    """Return what forty power cuts at this moment would leave, by file name."""
    found = []
    for seed in range(DRAWS):
        folder = target / f"cut-{seed}"
        disk.cut(random.Random(seed), folder)
        disk.is_off = False
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    return found


def test_what_is_synced_survives_every_cut(disk: Disk, tmp_path: Path) -> None:
    """A file written whole, and the synced part of one that grows, are there whatever is lost."""
    write_whole(disk.folder / "whole", [b"all of it"])
    write_whole(disk.folder / "grows", [b"head."])
    file = DiskFile(disk.folder / "grows")
    file.write(b"synced." * 300)
    file.sync()
    file.write(b"not synced." * 300)
    file.close()

    found = cuts(disk, tmp_path)

    assert {cut["whole"] for cut in found} == {b"all of it"}
    assert all(cut["grows"].startswith(b"head." + b"synced." * 300) for cut in found)
    lengths = {len(cut["grows"]) for cut in found}
    assert min(lengths) == 5 + 7 * 300, "all that was not synced can be lost"
    assert max(lengths) == 5 + 18 * 300, "or nothing"
    assert len(lengths) > 5, "or any part"
    assert any(b"\0" * 100 in cut["grows"].rstrip(b"\0") for cut in found), "in any order"


def test_a_name_survives_when_its_folder_is_synced(disk: Disk, tmp_path: Path) -> None:
    """A synced file without a synced name can be lost as a whole; afterwards it cannot."""
    path = disk.folder / "file"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x")
    os.fsync(descriptor)
    os.close(descriptor)

    before = cuts(disk, tmp_path / "before")
    sync_folder(disk.folder)
    after = cuts(disk, tmp_path / "after")

    assert {tuple(cut) for cut in before} == {(), ("file",)}
    assert {tuple(cut.items()) for cut in after} == {(("file", b"x"),)}


def test_a_rename_is_seen_as_a_whole_or_not_at_all(disk: Disk, tmp_path: Path) -> None:
    """Until its folder is synced, the old file or the new one is under the name, each with its own bytes."""
    path = disk.folder / "file"
    write_whole(path, [b"old"])
    new = disk.folder / "new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"new")
    os.fsync(descriptor)
    os.close(descriptor)
    new.replace(path)

    found = cuts(disk, tmp_path)

    assert {cut["file"] for cut in found} == {b"old", b"new"}
    assert all(cut.get("new", b"new") == b"new" for cut in found)


def test_a_file_that_was_never_synced_may_be_empty_under_its_new_name(disk: Disk, tmp_path: Path) -> None:
    """The mistake of renaming before syncing is found."""
    path = disk.folder / "file"
    write_whole(path, [b"old"])
    (disk.folder / "new").write_bytes(b"new")
    (disk.folder / "new").replace(path)

    assert {b"", b"old", b"new"} <= {cut["file"] for cut in cuts(disk, tmp_path)}


def test_a_removed_file_may_come_back(disk: Disk, tmp_path: Path) -> None:
    """Until the folder is synced a removal can be lost, in a folder of its own as well."""
    (disk.folder / "inner").mkdir()
    sync_folder(disk.folder)
    path = disk.folder / "inner" / "file"
    write_whole(path, [b"x"])
    path.unlink()

    before = cuts(disk, tmp_path / "before")
    sync_folder(path.parent)
    after = cuts(disk, tmp_path / "after")

    assert {tuple(cut.items()) for cut in before} == {(), (("inner/file", b"x"),)}
    assert {tuple(cut) for cut in after} == {()}


def test_a_folder_without_a_synced_name_is_lost_with_all_in_it(disk: Disk, tmp_path: Path) -> None:
    """Syncing what is in a new folder does not make the folder durable."""
    (disk.folder / "inner").mkdir()
    write_whole(disk.folder / "inner" / "file", [b"x"])

    assert {tuple(cut) for cut in cuts(disk, tmp_path)} == {(), ("inner/file",)}


def test_a_cut_in_place_is_what_the_next_process_finds(disk: Disk) -> None:
    """After a cut and a restart, what the folder holds is on the disk."""
    write_whole(disk.folder / "file", [b"x"])
    with open(disk.folder / "file", "ab") as file:
        file.write(b"y" * 5_000)

    disk.cut(random.Random(3))
    disk.restart()
    left = (disk.folder / "file").read_bytes()
    disk.cut(random.Random(4))

    assert left.startswith(b"x")
    assert (disk.folder / "file").read_bytes() == left


def test_nothing_a_dead_process_does_has_an_effect(disk: Disk) -> None:
    """Writes go nowhere, syncs and renames do nothing."""
    write_whole(disk.folder / "file", [b"x"])
    file = DiskFile(disk.folder / "file")
    disk.is_off = True

    file.write(b"y")
    file.sync()
    (disk.folder / "file").rename(disk.folder / "other")
    file.close()

    assert [(path.name, path.read_bytes()) for path in disk.folder.iterdir()] == [("file", b"x")]


def test_a_failed_write_leaves_half_and_a_failed_sync_spoils_the_file(disk: Disk, tmp_path: Path) -> None:
    """After a sync has failed, a later one that works promises nothing: the system dropped what it could not write."""
    write_whole(disk.folder / "file", [b"x"])
    fails: set[str] = {"write"}

    def failure(operation: Operation) -> int | None:
        return errno.ENOSPC if operation.name in fails else None

    disk.behaviour = Behaviour(failure=failure)
    file = DiskFile(disk.folder / "file")
    with pytest.raises(OSError, match="No space left"):
        file.write(b"1234")
    assert (disk.folder / "file").read_bytes() == b"x12"
    fails = {"sync"}
    with pytest.raises(OSError, match="No space left"):
        file.sync()
    fails = set()
    file.sync()
    file.close()

    assert b"x" in {cut["file"] for cut in cuts(disk, tmp_path)}


def test_operations_are_told_in_order_and_may_take_time(disk: Disk) -> None:
    """Whoever plans faults is asked before and told after each operation."""
    told: list[tuple[str, str, str]] = []
    slept: list[float] = []
    disk.behaviour = Behaviour(
        delay=lambda operation: 0.5 if operation.name == "sync" else 0.0,
        sleep=slept.append,
        before=lambda operation: told.append(("before", operation.name, operation.path.name)),
        after=lambda operation, data: told.append(("after", operation.name, operation.path.name)),
    )
    descriptor = os.open(disk.folder / "file", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x")
    os.fsync(descriptor)
    os.close(descriptor)

    assert told == [
        ("before", "write", "file"),
        ("after", "write", "file"),
        ("before", "sync", "file"),
        ("after", "sync", "file"),
    ]
    assert slept == [0.0, 0.5]


def test_files_elsewhere_are_left_alone(disk: Disk, tmp_path: Path) -> None:
    """Only the folder's own files go through the disk."""
    disk.is_off = True
    other = tmp_path / "other"
    write_whole(other, [b"x"])
    other.rename(tmp_path / "moved")
    (tmp_path / "moved").unlink()

    assert (other.exists(), disk.operations) == (False, 0)


@given(synced=st.binary(max_size=2_000), added=st.binary(max_size=3_000), seed=st.integers(0, 2**32))
def test_a_file_that_grew_keeps_what_was_synced(synced: bytes, added: bytes, seed: int) -> None:
    """Whatever the draw: synced bytes first, then for each page what was added or zeros, no longer than it was."""
    left = after_cut(synced, synced + added, random.Random(seed))

    assert left.startswith(synced)
    assert len(left) <= len(synced) + len(added)
    assert all(one in (0, other) for one, other in zip(left[len(synced) :], added, strict=False))
