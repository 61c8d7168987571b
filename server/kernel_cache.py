"""Where compiled kernels are kept: one folder for each content of the engine's sources.

numba keeps a compiled kernel as long as the file that defines it is unchanged. A kernel also holds constants and
functions of other files, so after a change there the old build would run with the old sizes, past an array's end.
Source: DESIGN D5.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import engine

VARIABLE = "NUMBA_CACHE_DIR"
PREFIX = "kernels-"
KEPT = 4
"""Folders that stay beside each other: the present one and those of the last changes."""
#: Variables that make numba compile otherwise.
FLAGS = ("NUMBA_BOUNDSCHECK", "NUMBA_DISABLE_JIT", "NUMBA_OPT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


def choose(sources: Path = Path(engine.__file__).parent) -> Path:
    """Name the folder for these sources in the environment, where numba looks for it, and return it.

    Call it before any kernel is imported. A folder the user has named is kept as the parent.
    """
    given = os.environ.get(VARIABLE)
    # a parent process has called this already, perhaps with other sources
    if given and Path(given).name.startswith(PREFIX):
        given = str(Path(given).parent)
    parent = Path(given) if given else _default_parent(sources)
    folder = parent / f"{PREFIX}{digest(sources)}"
    folder.mkdir(parents=True, exist_ok=True)
    _forget_old(parent, folder)
    os.environ[VARIABLE] = str(folder)
    return folder


def digest(sources: Path) -> str:
    """Return 16 hexadecimal digits of everything compiled code depends on, the machine and numba aside."""
    found = hashlib.sha256()
    for name in FLAGS:
        found.update(f"{name}={os.environ.get(name, '')}\n".encode())
    for path in sorted(sources.rglob("*.py")):
        text = path.read_bytes()
        found.update(f"{path.relative_to(sources).as_posix()} {len(text)}\n".encode())
        found.update(text)
    return found.hexdigest()[:16]


def _default_parent(sources: Path) -> Path:
    """Return a folder that can be written: beside the sources, else the user's cache."""
    beside = sources / "__pycache__"
    if os.access(beside if beside.is_dir() else sources, os.W_OK):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arena"


def _forget_old(parent: Path, present: Path) -> None:
    """Remove the folders of sources long gone; one that is used while it goes is only compiled again."""
    os.utime(present)
    folders = sorted(parent.glob(f"{PREFIX}*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in folders[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)
