"""Compiled kernels never outlive what they were compiled from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import kernel_cache
from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[2]

CONSTANTS = "SIZE = {size}\n"
KERNEL = """
from numba import njit
from sources.constants import SIZE

@njit(cache=True)
def size():
    return SIZE
"""

OTHER = """
from numba import njit

@njit(cache=True)
def one():
    return 1
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a package with a kernel that holds a constant of another file, and no folder named by the user."""
    monkeypatch.delenv(kernel_cache.VARIABLE, raising=False)
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "constants.py").write_text(CONSTANTS.format(size=8))
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "other.py").write_text(OTHER)
    return folder


def size_in_a_new_process(sources: Path) -> int:
    """Import the kernel in a fresh Python that has chosen its folder, and call it."""
    script = (
        "from pathlib import Path; from server.kernel_cache import choose; choose(Path('sources'));"
        "from sources.kernel import size; from sources.other import one; print(size() * one())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=sources.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=seconds(60),
        check=True,
    )
    return int(done.stdout)


def test_a_constant_of_another_file_is_never_stale(sources: Path) -> None:
    """A kernel whose own file is unchanged is compiled anew when a file it takes a constant from has changed."""
    assert size_in_a_new_process(sources) == 8

    (sources / "constants.py").write_text(CONSTANTS.format(size=16))

    assert size_in_a_new_process(sources) == 16


def test_the_same_sources_find_their_kernels_again(sources: Path) -> None:
    """An unchanged engine uses what was compiled before."""
    size_in_a_new_process(sources)
    kept = {path: path.stat().st_mtime_ns for path in sources.rglob("*.nbc")}

    size_in_a_new_process(sources)

    assert kept
    assert {path: path.stat().st_mtime_ns for path in sources.rglob("*.nbc")} == kept


def test_what_no_change_reaches_is_taken_over(sources: Path) -> None:
    """After a change the kernels that do not reach it are those compiled before; the others are not."""
    size_in_a_new_process(sources)
    (sources / "constants.py").write_text(CONSTANTS.format(size=16))

    folder = kernel_cache.choose(sources)

    assert {path.name.split(".")[0] for path in folder.rglob("*.nbc")} == {"other"}
    assert size_in_a_new_process(sources) == 16


def test_a_folder_of_the_users_is_the_parent(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NUMBA_CACHE_DIR says where; a child process does not nest its folder in its parent's."""
    monkeypatch.setenv(kernel_cache.VARIABLE, str(tmp_path / "mine"))

    first = kernel_cache.choose(sources)
    again = kernel_cache.choose(sources)

    assert first == again
    assert first.parent == tmp_path / "mine"
    assert os.environ[kernel_cache.VARIABLE] == str(first)


def test_flags_of_the_compiler_have_a_folder_of_their_own(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds with bounds checks and without never meet."""
    plain = kernel_cache.choose(sources)

    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")

    assert kernel_cache.choose(sources) != plain


def test_only_a_few_folders_are_kept(sources: Path) -> None:
    """Folders of sources long gone are removed."""
    for size in range(10):
        (sources / "constants.py").write_text(CONSTANTS.format(size=size))
        present = kernel_cache.choose(sources)

    folders = list(present.parent.glob(f"{kernel_cache.PREFIX}*"))
    assert present in folders
    assert len(folders) == kernel_cache.KEPT


def test_a_later_start_compiles_nothing() -> None:
    """Every kernel that a start loads is kept: one that is not brings the whole compiler into memory."""
    script = (
        "from server.kernel_cache import choose; choose()\n"
        "from numba.core import event\n"
        "from server.app import warm_kernels\n"
        "with event.install_recorder('numba:compile') as compiled: warm_kernels()\n"
        "print(sorted({str(one.data['dispatcher']) for _, one in compiled.buffer}))"
    )
    # the first one may have to
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'clients' / 'python'}"},
            capture_output=True,
            text=True,
            timeout=seconds(180),
            check=True,
        )

    assert done.stdout.strip() == "[]"
