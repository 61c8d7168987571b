"""The index of settled receipts: what was put in is found, what was not is not, and damage is noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from struct import pack

import numpy as np
import pytest

from server.live.array_file import NotWhole
from server.live.receipt_index import ReceiptIndex, _Filter, write_generation


def key(number: int) -> bytes:
    """Return a key as receipts have them."""
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def packed(number: int, ends: int = 100) -> bytes:
    """Return a packed receipt of some length."""
    return pack("<q", ends) + str(number).encode() * (1 + number % 3)


def settled(numbers: range, ends: int = 100) -> dict[bytes, bytes]:
    """Return receipts by key."""
    return {key(number): packed(number, ends) for number in numbers}


def filled(folder: Path) -> ReceiptIndex:
    """Return an index of three generations of 1,000 receipts each."""
    index = ReceiptIndex()
    for i in range(3):
        receipts = settled(range(1_000 * i, 1_000 * (i + 1)), ends=100 * (i + 1))
        index.wait_for(receipts)
        index.adopt(write_generation(folder / f"{i}.arf", receipts))
    return index


def test_every_receipt_is_found_and_no_other(tmp_path: Path) -> None:
    """Over all generations, and while the newest still waits."""
    index = filled(tmp_path)
    index.wait_for(settled(range(3_000, 3_100)))

    assert all(index.get(key(i)) == packed(i, 100 * (min(i, 2_999) // 1_000 + 1)) for i in range(3_000))
    assert all(index.get(key(i)) == packed(i) for i in range(3_000, 3_100))
    assert [index.get(key(i)) for i in range(5_000, 6_000)] == [None] * 1_000
    assert (len(index), index.waiting) == (3_100, 100)


def test_an_opened_index_is_the_same(tmp_path: Path) -> None:
    """The files are all there is to it."""
    paths = [generation.path for generation in filled(tmp_path).generations]
    again = ReceiptIndex()

    again.open(paths)

    assert len(again) == 3_000
    assert again.get(key(1_234)) == packed(1_234, 200)


def test_a_generation_goes_with_its_last_receipt(tmp_path: Path) -> None:
    """Its file too; the others stay."""
    index = filled(tmp_path)

    index.forget(100)
    kept = len(index)
    index.forget(101)

    assert (kept, len(index)) == (3_000, 2_000)
    assert index.get(key(5)) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.arf", "2.arf"]


def test_every_flipped_bit_is_noticed_when_it_is_opened(tmp_path: Path) -> None:
    """A receipt that says something else than was published is worse than none."""
    path = tmp_path / "one"
    write_generation(path, settled(range(5)))
    whole = path.read_bytes()

    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        with pytest.raises(NotWhole):
            ReceiptIndex().open([path])


def test_nothing_is_written_for_no_receipts(tmp_path: Path) -> None:
    """A quiet time leaves no file."""
    index = ReceiptIndex()
    index.wait_for({})
    index.adopt(write_generation(tmp_path / "none", {}))

    assert list(tmp_path.iterdir()) == []
    assert index.get(key(1)) is None


def test_the_filter_never_denies_and_seldom_errs() -> None:
    """All that was added may be there; of others some twenty in a thousand."""
    chosen = [key(i) for i in range(20_000)]
    high = np.array([int.from_bytes(one[:8], "big") for one in chosen], np.uint64)
    kept = _Filter(10_000)
    kept.add(high[:10_000])

    assert all(kept.may_hold(one) for one in chosen[:10_000])
    assert sum(kept.may_hold(one) for one in chosen[10_000:]) < 500
