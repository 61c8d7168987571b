"""The hash of names: what its authors publish, for any length, and another one under another key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.siphash import hash_but_two, hash_names, hash_rows, key_words, longest
from tests.support.naive_receipts import siphash

KEY = bytes(range(16))
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=64)


def hashed(key: bytes, numbers: list[int], names: list[str]) -> list[bytes]:
    """Return the hashes of numbers and names by the kernel."""
    rows = np.array(names, "S64").view(np.uint8).reshape(len(names), 64)
    out = np.empty((len(names), 2), np.uint64)
    hash_names(key_words(key), np.array(numbers, np.int64), rows, out)
    return [row.tobytes() for row in out]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (8, "3b62a9ba6258f5610f83e264f31497b4"),
    ],
)
def test_the_plain_twin_is_the_published_function(length: int, expected: str) -> None:
    """Vectors of the reference code: key 00 01 .. 0f, message 00 01 .. ."""
    assert siphash(KEY, bytes(range(length))).hex() == expected


@given(
    st.lists(st.tuples(st.integers(1, (1 << 53) - 1), NAMES), min_size=1, max_size=20),
    st.binary(min_size=16, max_size=16),
)
def test_names_are_hashed_as_published(pairs: list[tuple[int, str]], key: bytes) -> None:
    """Eight bytes of the number, then the name without what fills it up."""
    numbers, names = [number for number, _ in pairs], [name for _, name in pairs]

    expected = [siphash(key, number.to_bytes(8, "little") + name.encode()) for number, name in pairs]

    assert hashed(key, numbers, names) == expected


@given(st.integers(1, 5), st.integers(1, 13))
def test_rows_are_hashed_as_published(count: int, words: int) -> None:
    """The bytes of a row, whatever its length."""
    rows = np.random.default_rng(count * words).integers(0, 1 << 63, (count, words)).astype(np.uint64)
    out = np.empty((count, 2), np.uint64)

    hash_rows(key_words(KEY), rows, out)

    assert [row.tobytes() for row in out] == [siphash(KEY, row.tobytes()) for row in rows]


def test_nothing_is_known_without_the_key() -> None:
    """One bit of the key, of the number or of the name, and half of the bits are others."""
    (base,) = hashed(KEY, [1], ["a"])

    others = [hashed(bytes([1, *KEY[1:]]), [1], ["a"]), hashed(KEY, [0], ["a"]), hashed(KEY, [1], ["c"])]

    for (other,) in others:
        differing = (int.from_bytes(base, "little") ^ int.from_bytes(other, "little")).bit_count()
        assert 40 <= differing <= 88


@given(st.integers(1, 5), st.integers(0, (1 << 63) - 1))
def test_two_words_may_be_others(count: int, other: int) -> None:
    """The same as of rows in which they had been written over, which are left as they are."""
    rows = np.random.default_rng(count).integers(0, 1 << 63, (count, 11)).astype(np.uint64)
    before, out = rows.copy(), np.empty((count, 2), np.uint64)

    hash_but_two(key_words(KEY), rows, 0, 7, np.full(count, other), out)

    assert (rows == before).all()
    rows[:, 0], rows[:, 7] = 0, other
    assert [row.tobytes() for row in out] == [siphash(KEY, row.tobytes()) for row in rows]


@given(st.lists(NAMES, min_size=1, max_size=20))
def test_the_longest_name_is_found(names: list[str]) -> None:
    """Whichever it is."""
    rows = np.array(names, "S64").view(np.uint8).reshape(len(names), 64)

    assert longest(rows) == max(map(len, names))
