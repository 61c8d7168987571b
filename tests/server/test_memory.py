"""What the start needed is given back, and comes back when it is needed again."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from numba import njit

from server.memory import give_back
from tests.support.resident import IS_TOLD, resident_code


def test_the_compiler_goes_and_comes_back() -> None:
    """Its code is resident once it has compiled, no more after giving back, and compiles again."""
    assert njit(lambda x: x + 1)(1) == 2
    before = resident_code()

    give_back()
    after = resident_code()

    assert not IS_TOLD or before > 10_000_000
    assert after <= before / 10
    assert njit(lambda x: x + 2)(1) == 3
    assert not IS_TOLD or resident_code() > after


def test_a_file_with_any_name_may_be_mapped(tmp_path: Path) -> None:
    """A file system has names in any encoding; giving back is not worth a server that does not start."""
    path = tmp_path / "odd"
    if IS_TOLD:  # elsewhere file systems refuse such names
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/rev\xff"))
    path.write_bytes(b"x" * mmap.PAGESIZE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        give_back()

        assert mapped[:1] == b"x"
