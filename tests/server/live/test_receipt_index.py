"""The index of settled receipts: what was put in is found, what was not is not, and damage is noticed."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.receipt_table import RECEIPT
from server.live import receipt_index
from server.live.array_file import NotWhole
from server.live.errors import ReceiptDamaged
from server.live.receipt_index import (
    Generation,
    Merge,
    ReceiptIndex,
    Rows,
    Words,
    checks,
    free_path,
    merge,
    open_generation,
    write_generation,
)


def keys(numbers: Sequence[int] | range) -> Words:
    """Return keys as receipts have them: as good as random, the same for the same number."""
    drawn = [np.random.default_rng(number).integers(0, 1 << 64, 2, np.uint64) for number in numbers]
    return np.array(drawn, np.uint64).reshape(-1, 2)


def settled(numbers: Sequence[int] | range, ends: int = 100) -> Rows:
    """Return receipts; seq is the number."""
    rows = np.zeros(len(numbers), RECEIPT)
    rows["high"], rows["low"] = keys(numbers).T
    rows["seq"], rows["ends"], rows["status"] = list(numbers), ends, 7
    return rows


def written(folder: Path, numbers: Sequence[int] | range, ends: int = 100) -> Generation:
    """Write a generation."""
    generation = write_generation(folder, ends, settled(numbers, ends))
    assert generation is not None
    return generation


def filled(folder: Path) -> ReceiptIndex:
    """Return an index of three generations of 1,000 receipts each."""
    index = ReceiptIndex()
    for i in range(3):
        index.adopt(written(folder, range(1_000 * i, 1_000 * (i + 1)), ends=100 * (i + 1)))
    return index


def found(index: ReceiptIndex, numbers: Sequence[int] | range, oldest: int = 0) -> dict[int, int]:
    """Return the seq found under each number's key."""
    at, rows = index.get(keys(numbers), oldest)
    return {numbers[i]: int(row["seq"]) for i, row in zip(at.tolist(), rows, strict=True)}


def test_every_receipt_is_found_and_no_other(tmp_path: Path) -> None:
    """Over all generations, many at once or one alone."""
    index = filled(tmp_path)

    assert found(index, range(3_000)) == {i: i for i in range(3_000)}
    assert found(index, range(5_000, 6_000)) == {}
    assert [found(index, [i]) for i in (0, 1_234, 2_999, 5_000)] == [{0: 0}, {1_234: 1_234}, {2_999: 2_999}, {}]
    assert len(index) == 3_000


def test_what_ended_long_ago_is_not_there_any_more(tmp_path: Path) -> None:
    """Although its file may still be needed for others."""
    index = filled(tmp_path)

    assert set(found(index, range(3_000), oldest=101)) == set(range(1_000, 3_000))
    assert found(index, [5], oldest=101) == {}


def test_an_opened_index_is_the_same(tmp_path: Path) -> None:
    """The files are all there is to it."""
    paths = [generation.path for generation in filled(tmp_path).generations]
    again = ReceiptIndex()

    again.open(paths)

    assert len(again) == 3_000
    assert found(again, range(3_000)) == {i: i for i in range(3_000)}
    assert [one.ends for one in again.generations] == [100, 200, 300]


def test_a_generation_goes_with_its_last_receipt(tmp_path: Path) -> None:
    """Its file is named to whoever removes it; the others stay."""
    index = filled(tmp_path)
    first = index.generations[0].path

    index.forget(100)
    kept = len(index)
    index.forget(101)

    assert (kept, len(index)) == (3_000, 2_000)
    assert found(index, [5]) == {}
    assert index.take_retired() == [(first, 100)]
    assert index.take_retired() == []


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """A receipt that says something else than was published is worse than none: at once, or when it is read."""
    generation = written(tmp_path, range(5))
    whole = generation.path.read_bytes()
    receipts_end = 5 * RECEIPT.itemsize

    for position in range(0, len(whole), 7):
        generation.path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        if position < receipts_end:
            harmed = ReceiptIndex()
            harmed.open([generation.path])
            with pytest.raises(ReceiptDamaged, match="checksum"):
                harmed.get(keys(range(5)), 0)
        else:
            with pytest.raises(NotWhole):
                open_generation(generation.path)


@pytest.mark.parametrize("length", [0, 5, 70, 600])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, length: int) -> None:
    """Wherever it ends."""
    path = written(tmp_path, range(5)).path
    os.truncate(path, length)

    with pytest.raises(NotWhole):
        open_generation(path)


def test_receipts_that_the_disk_cannot_read_are_not_taken_for_missing(tmp_path: Path) -> None:
    """An id whose receipt cannot be read must not be accepted anew."""
    generation = written(tmp_path, range(5))
    os.truncate(generation.path, 10)

    with pytest.raises(ReceiptDamaged):
        generation.get(keys([3]))


def test_nothing_is_written_for_no_receipts(tmp_path: Path) -> None:
    """A quiet time leaves no file."""
    index = ReceiptIndex()
    index.adopt(write_generation(tmp_path, 1, settled([])))

    assert list(tmp_path.iterdir()) == []
    assert found(index, [1]) == {}


def test_a_name_is_never_used_twice(tmp_path: Path) -> None:
    """A replay comes by ticks whose files are there already, for a snapshot that may be needed."""
    paths = [written(tmp_path, [i], ends=100).path for i in range(3)]

    assert len(set(paths)) == 3
    assert free_path(tmp_path, 100) not in paths


def test_memory_is_less_than_three_bytes_a_receipt_and_few_look_ups_are_in_vain(tmp_path: Path) -> None:
    """Of keys that are not there about one in 8,000 is looked for on the disk."""
    draw = np.random.default_rng(1)
    rows = np.zeros(100_000, RECEIPT)
    rows["high"], rows["low"] = draw.integers(0, 1 << 64, (2, len(rows)), np.uint64)
    generation = write_generation(tmp_path, 1, rows)
    assert generation is not None
    read: list[int] = []
    generation._bytes = lambda first, last: read.append(first) or b""  # type: ignore[method-assign,func-returns-value]

    others = draw.integers(0, 1 << 64, (100_000, 2), np.uint64)
    with pytest.raises(ReceiptDamaged):
        generation.get(others)

    assert generation.memory_bytes < 3 * len(rows)
    assert 0 < len(read) < 50
    assert sum(generation.may_hold(int(high)) for high in others[:10_000, 0]) < 20


# --- merging -----------------------------------------------------------------------------------------------------
@pytest.fixture
def small_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiers and parts of a size for tests."""
    monkeypatch.setattr(receipt_index, "TIERS", ((100, 2), (1_000, 3)))
    monkeypatch.setattr(receipt_index, "PART", 64)


@pytest.mark.usefixtures("small_tiers")
def test_generations_of_a_tier_become_one_of_the_next(tmp_path: Path) -> None:
    """The same receipts, in fewer files; the old ones are named to whoever removes them."""
    index = ReceiptIndex()
    sizes = (1, 99, 3, 250, 60, 999, 2_000)
    begin = 0
    for size in sizes:
        index.adopt(written(tmp_path, range(begin, begin + size)))
        begin += size

    while (wanted := index.to_merge(0)) is not None:
        assert index.to_merge(0) is None, "one after another"
        index.replace(merge(tmp_path, 200, wanted))

    assert sorted(map(len, index.generations)) == [63, 1_349, 2_000]
    assert found(index, range(begin)) == {i: i for i in range(begin)}
    assert len(index) == begin
    assert {path for path, _ in index.take_retired()}.isdisjoint(one.path for one in index.generations)


@pytest.mark.usefixtures("small_tiers")
def test_what_is_past_its_time_is_left_out_of_a_merge(tmp_path: Path) -> None:
    """Its place on the disk and in memory is free again."""
    index = ReceiptIndex()
    index.adopt(written(tmp_path, range(90), ends=10))
    index.adopt(written(tmp_path, range(90, 180), ends=20))

    wanted = index.to_merge(15)
    assert wanted is not None
    index.replace(merge(tmp_path, 21, wanted))

    assert found(index, range(180)) == {i: i for i in range(90, 180)}
    assert [len(one) for one in index.generations] == [90]


@pytest.mark.usefixtures("small_tiers")
def test_a_merge_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    """All of them were past their time."""
    index = ReceiptIndex()
    index.adopt(written(tmp_path, range(9), ends=10))
    index.adopt(written(tmp_path, range(9, 20), ends=10))

    wanted = index.to_merge(15)
    assert wanted is not None
    index.replace(merge(tmp_path, 21, wanted))

    assert (len(index), index.generations) == (0, ())


@pytest.mark.usefixtures("small_tiers")
def test_a_few_that_stay_long_do_not_keep_the_others(tmp_path: Path) -> None:
    """A generation most of which is past its time is written anew without that, whatever its tier."""
    index = ReceiptIndex()
    rows = settled(range(2_000))
    rows["ends"][::20] = 40_000
    index.adopt(write_generation(tmp_path, 1, rows))

    assert index.to_merge(100) is None
    wanted = index.to_merge(101)
    assert wanted is not None
    index.replace(merge(tmp_path, 2, wanted))

    assert len(index) == 100
    assert found(index, range(0, 2_000, 20)) == {i: i for i in range(0, 2_000, 20)}
    assert index.to_merge(102) is None


@pytest.mark.usefixtures("small_tiers")
def test_a_merge_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The generations stay, and are merged another time."""
    index = ReceiptIndex()
    for i in range(2):
        index.adopt(written(tmp_path, range(90 * i, 90 * (i + 1))))
    wanted = index.to_merge(0)
    assert wanted is not None

    os.truncate(wanted.generations[0].path, 99)
    with pytest.raises(ReceiptDamaged):
        merge(tmp_path, 5, wanted)
    index.leave()

    assert len(index) == 180
    assert found(index, range(90, 180)) == {i: i for i in range(90, 180)}
    assert index.to_merge(0) == wanted


@pytest.mark.usefixtures("small_tiers")
def test_what_is_being_merged_is_not_forgotten_meanwhile(tmp_path: Path) -> None:
    """It goes when the merge is over."""
    index = ReceiptIndex()
    for i in range(2):
        index.adopt(written(tmp_path, range(9 * i, 9 * (i + 1)), ends=10))
    wanted = index.to_merge(5)
    assert wanted is not None

    index.forget(11)
    assert len(index) == 18
    index.replace(merge(tmp_path, 5, wanted))
    index.forget(11)

    assert len(index) == 0


@pytest.mark.usefixtures("small_tiers")
def test_merged_receipts_are_sorted_and_whole(tmp_path: Path) -> None:
    """Small ones among large ones: the ranges of keys fit together, in any number of parts."""
    generations = [written(tmp_path, range(10_000 * i, 10_000 * i + size)) for i, size in enumerate((3, 700, 40, 1))]

    merged = merge(tmp_path, 9, Merge(tuple(generations), 0))

    assert merged is not None
    rows = merged.read(0, len(merged))
    assert len(rows) == 744
    assert (np.diff(rows["high"].astype(object)) >= 0).all()
    assert (rows["check"] == checks(rows)).all()
    again = open_generation(merged.path)
    assert (len(again), again.ends, again.mostly) == (744, 100, 100)


def test_a_merge_has_a_part_of_the_receipts_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are merged: all of them would be a gigabyte in a flood."""
    monkeypatch.setattr(receipt_index, "PART", 1 << 10)
    generations = tuple(written(tmp_path, range(begin, begin + 20_000)) for begin in range(0, 80_000, 20_000))
    tracemalloc.start()
    try:
        merged = merge(tmp_path, 200, Merge(generations, 0))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert merged is not None
    assert len(merged) == 80_000
    assert most < 80_000 * RECEIPT.itemsize / 4
