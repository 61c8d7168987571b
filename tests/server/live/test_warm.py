"""Arrays in a file: they come back bit for bit, and a damaged or foreign file is made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.economy import hash_copy
from server.live.array_file import Arrays, NotWhole
from server.live.warm import load, save, warm_start
from tests.support.worlds import small_config

ARRAYS: Arrays = [
    ("cash", np.arange(10, dtype=np.int64)),
    ("mood", np.array([[1, -2], [3, 4]], np.int16)),
    ("none", np.zeros((0, 4), np.int64)),
    ("rate", np.array([0.1, np.pi])),
]


class Maker:
    """Makes a start and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[int, Arrays]:
        """Return tick 25 and the arrays."""
        self.calls += 1
        return 25, ARRAYS


def equal(start: tuple[int, Arrays]) -> bool:
    """Return whether this is what Maker makes, shapes and types included."""
    pairs = zip(start[1], ARRAYS, strict=True)
    same = all(a[0] == b[0] and a[1].dtype == b[1].dtype and np.array_equal(a[1], b[1]) for a, b in pairs)
    return same and start[0] == 25 and hash_copy(*start) == hash_copy(25, ARRAYS)


def test_arrays_come_back(tmp_path: Path) -> None:
    """Tick, names, types, shapes and values."""
    save(tmp_path / "file", 25, ARRAYS)

    assert equal(load(tmp_path / "file"))


def test_a_start_is_made_once(tmp_path: Path) -> None:
    """The second time it is read; settings of outside agents do not matter, others do."""
    make = Maker()

    first = warm_start(tmp_path / "warm", small_config(), 26, make)
    again = warm_start(tmp_path / "warm", small_config(max_agents=9, endowment_credits=5), 26, make)

    assert make.calls == 1
    assert equal(first)
    assert equal(again)
    warm_start(tmp_path / "warm", small_config(fear_weight=0.9), 26, make)
    warm_start(tmp_path / "warm", small_config(), 27, make)
    assert make.calls == 3


def test_every_kind_of_damage_is_noticed(tmp_path: Path) -> None:
    """Cut short anywhere, or a bit flipped anywhere: not one wrong array is let through."""
    path = tmp_path / "file"
    save(path, 25, ARRAYS)
    whole = path.read_bytes()

    for position in range(len(whole)):
        path.write_bytes(whole[:position])
        with pytest.raises(NotWhole):
            load(path)
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(NotWhole):
            load(path)


def test_a_damaged_start_is_made_anew_and_replaced(tmp_path: Path) -> None:
    """It is only a cache: what is wrong with it costs time, not the world."""
    make = Maker()
    warm_start(tmp_path, small_config(), 26, make)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-1])

    assert equal(warm_start(tmp_path, small_config(), 26, make))
    assert make.calls == 2
    assert equal(load(file))


def test_what_cannot_be_read_or_replaced_is_no_hindrance(tmp_path: Path) -> None:
    """Something else under the name of the file: the start is made, and not kept."""
    make = Maker()
    warm_start(tmp_path, small_config(), 26, make)
    file = next(tmp_path.iterdir())
    file.unlink()
    file.mkdir()

    assert equal(warm_start(tmp_path, small_config(), 26, make))
    assert make.calls == 2


def test_a_start_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path) -> None:
    """A folder that takes no files does not keep the world from starting."""
    (tmp_path / "warm").write_text("a file where the folder should be")

    assert equal(warm_start(tmp_path / "warm" / "er", small_config(), 26, Maker()))
