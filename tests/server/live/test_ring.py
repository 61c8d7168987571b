"""Rings of rows: what a file of them holds after a stop, a killed process, a power cut, and another beginning."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.simulation.disk import after_cut
from server.live import ring as rings
from server.live.ring import FileRing, Ring, open_ring
from server.live.series import CHECKSUM, HEAD, TICK, Rows
from tests.support.logged import logged

IDENTITY = {"epoch": "0123456789abcdef", "schema": "a"}
CAPACITY, WIDTH = 40, HEAD + 5


def rows(ticks: Iterable[int], seed: int = 0) -> Rows:
    """Return the rows of ticks: any values, the same for the same tick and seed."""
    made = [np.random.default_rng([seed, tick]).integers(-(1 << 52), 1 << 52, WIDTH) for tick in ticks]
    table = np.array(made)
    table[:, TICK], table[:, CHECKSUM] = list(ticks), 0
    return table


def opened(path: Path, capacity: int = CAPACITY, **changes: str) -> FileRing:
    """Open the ring in a file."""
    return open_ring(path, IDENTITY | changes, 1, capacity, WIDTH)


def values(ring: Ring) -> list[list[int]]:
    """Return the rows of a ring, oldest first, their checksums left out."""
    ticks = np.arange(ring.first, ring.newest + 1, ring.step)
    assert ring.found(ticks).all()
    return np.delete(ring.pick(ticks, slice(None)), CHECKSUM, axis=1).tolist()


def expected(ticks: Iterable[int], seed: int = 0) -> list[list[int]]:
    """Return what values() says of rows()."""
    return np.delete(rows(ticks, seed), CHECKSUM, axis=1).tolist()


@pytest.mark.parametrize("size", [1, 7, 24])
def test_a_ring_holds_the_newest_rows(size: int, tmp_path: Path) -> None:
    """In memory or in a file, in whatever pieces they come."""
    for ring in (Ring(1, CAPACITY, WIDTH), opened(tmp_path / "a")):
        for begin in range(100, 221, size):
            ring.extend(rows(range(begin, begin + size)))

        assert (ring.newest - ring.first + 1, ring.newest) == (CAPACITY, begin + size - 1)
        assert values(ring) == expected(range(ring.first, ring.newest + 1))
        assert ring.read(ring.newest - 1, 2)[:, TICK].tolist() == [ring.newest - 1, ring.newest]


def test_a_file_of_few_rows_is_small(tmp_path: Path) -> None:
    """It grows with what comes; a young world's is quickly copied."""
    ring = open_ring(tmp_path / "a", IDENTITY, 1, 100_000, WIDTH)
    ring.extend(rows([3]))

    assert (tmp_path / "a").stat().st_size < 3 * rings.PAGE
    assert values(ring) == expected([3])


def test_a_gap_starts_over_and_a_hole_does_not(tmp_path: Path) -> None:
    """A dense ring holds ticks that follow one another; a sparse one knows which are missing."""
    dense, sparse = Ring(1, CAPACITY, WIDTH), Ring(1, CAPACITY, WIDTH, sparse=True)
    for ring in (dense, sparse):
        ring.extend(rows([5, 6]))
        ring.extend(rows([9]))

    assert (dense.first, dense.newest) == (9, 9)
    assert sparse.found(np.arange(4, 11)).tolist() == [False, True, True, False, False, True, False]


def test_rows_that_come_again_replace_what_was_there_and_after(tmp_path: Path) -> None:
    """What is newer than a recovered tick is cut."""
    ring = opened(tmp_path / "a")
    ring.extend(rows(range(10, 30)))
    ring.extend(rows([20], seed=1))

    assert values(ring) == expected(range(10, 20)) + expected([20], seed=1)


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_file_is_found_again(is_clean: bool, tmp_path: Path) -> None:
    """After a stop, and after the process was killed: what was written is there, in the system's cache."""
    ring = opened(tmp_path / "a")
    ring.extend(rows(range(10, 77)))
    if is_clean:
        ring.close()

    again = opened(tmp_path / "a")

    assert (again.first, again.newest) == (37, 76)
    assert values(again) == expected(range(37, 77))


@pytest.mark.parametrize("capacity", [10, 90])
def test_another_capacity_takes_the_rows_along(capacity: int, tmp_path: Path) -> None:
    """As many as both have room for, and the log says so."""
    opened(tmp_path / "a").extend(rows(range(10, 77)))

    with logged() as log:
        again = opened(tmp_path / "a", capacity)
    third = opened(tmp_path / "a", capacity)

    assert log.lines("info")["history_resized"]["rows"] == capacity
    assert values(again) == values(third) == expected(range(max(37, 77 - capacity), 77))
    again.extend(rows([77]))
    assert again.newest == 77


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"epoch": "fedcba9876543210"}, "it has epoch '0123456789abcdef', the world has 'fedcba9876543210'"),
        ({"schema": "b"}, "it has schema 'a', the world has 'b'"),
        (b"something else altogether", "not a ring of rows"),
        (20, "its first page is damaged"),
        (rings._MARKS_AT + 1, "its marks are damaged"),
    ],
)
def test_what_does_not_fit_is_begun_anew(spoil: object, reason: str, tmp_path: Path) -> None:
    """Another world, another release, damage: the log says what it was; the ring works."""
    path = tmp_path / "a"
    opened(path).extend(rows(range(10, 20)))
    if isinstance(spoil, bytes):
        path.write_bytes(spoil)
    elif isinstance(spoil, int):
        data = bytearray(path.read_bytes())
        data[spoil] ^= 1
        path.write_bytes(data)

    with logged() as log:
        ring = opened(path, **(spoil if isinstance(spoil, dict) else {}))
    ring.extend(rows([3]))

    assert log.lines("warning")["history_rebuilt"]["reason"] == reason
    assert values(ring) == expected([3])


@given(
    batches=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    synced=st.integers(0, 12),
    seed=st.integers(0, 1 << 32),
)
def test_after_a_power_cut_whatever_is_shown_is_right(
    batches: list[int], synced: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The disk keeps any mixture of the synced and the cached pages: rows that were synced last are all there, rows
    behind them are whole or gone, and those that come again make the ring what it was.
    """
    path = tmp_path_factory.mktemp("cut") / "a"
    ring, tick, on_disk, synced_tick = opened(path), 100, path.read_bytes(), 99
    for i, size in enumerate(batches):
        ring.extend(rows(range(tick, tick + size)))
        tick += size
        if i == synced:
            ring.sync()
            on_disk, synced_tick = path.read_bytes(), tick - 1
    first = ring.first
    path.write_bytes(after_cut(on_disk, path.read_bytes(), random.Random(seed)))

    again = opened(path)

    shown = np.arange(max(again.first, first), again.newest + 1)
    assert again.found(shown).all()
    if len(shown):
        assert again.pick(shown, slice(HEAD, None)).tolist() == rows(shown.tolist())[:, HEAD:].tolist()
    assert again.newest >= min(synced_tick, tick - 1) or synced_tick == 99
    for begin in range(max(again.newest, 100), tick, 12):
        again.extend(rows(range(begin, min(begin + 12, tick))))
    assert values(again) == expected(range(again.first, tick))
