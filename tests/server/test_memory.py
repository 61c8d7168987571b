"""What the start needed is given back, and comes back when it is needed again."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

from numba import njit

from server.memory import give_back
from tests.support.resident import IS_TOLD, resident_code

ROOT = Path(__file__).resolve().parents[2]


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


FREEING = """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from resource import getpagesize
from server.memory import bound_free

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()

def work():
    return len([b"x" * (size << 18) for size in range(5, 21)])

bound_free()
large = b"x" * (30 << 20)
del large
with ThreadPoolExecutor(1) as pool:
    before = resident()
    pool.submit(work).result()
    print(resident() - before)
"""


def test_what_a_thread_frees_goes_back_by_itself() -> None:
    """Also after a large block was freed, which raises the bounds the allocator has by itself."""
    # a process of its own: the bounds are a process', and so is what other tests have left behind
    done = subprocess.run([sys.executable, "-c", FREEING], cwd=ROOT, capture_output=True, text=True, check=IS_TOLD)

    assert not IS_TOLD or int(done.stdout) < 10_000_000
