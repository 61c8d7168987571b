"""Where compiled kernels are kept: one folder for each content of the engine's sources.

numba keeps a compiled kernel as long as the file that defines it is unchanged. A kernel also holds constants and
functions of other files, so after a change there the old build would run with the old sizes, past an array's end.
Compiling everything takes the better part of a minute, so what no change reaches is taken over from the folder before.
Source: DESIGN D5.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import engine

VARIABLE = "NUMBA_CACHE_DIR"
PREFIX = "kernels-"
REACHES = "reaches.json"
"""In each folder: module -> digest of the module and all it imports, directly or not."""
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
    texts = {path.relative_to(sources).as_posix(): path.read_bytes() for path in sorted(sources.rglob("*.py"))}
    folder = parent / f"{PREFIX}{_digest(texts, list(texts))}"
    if not folder.is_dir():
        _make(folder, sources.name, texts)
    _forget_old(parent, folder)
    os.environ[VARIABLE] = str(folder)
    return folder


def _digest(texts: dict[str, bytes], names: list[str]) -> str:
    """Return 16 hexadecimal digits of the named sources and of the compiler's flags."""
    found = hashlib.sha256()
    for flag in FLAGS:
        found.update(f"{flag}={os.environ.get(flag, '')}\n".encode())
    for name in names:
        found.update(f"{name} {len(texts[name])}\n".encode())
        found.update(texts[name])
    return found.hexdigest()[:16]


def _default_parent(sources: Path) -> Path:
    """Return a folder that can be written: beside the sources, else the user's cache."""
    beside = sources / "__pycache__"
    if os.access(beside if beside.is_dir() else sources, os.W_OK):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arena"


def _make(folder: Path, package: str, texts: dict[str, bytes]) -> None:
    """Make a folder whole or not at all, with the kernels that were compiled from the same sources before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    reaches = {name: _digest(texts, sorted(_reached(name, package, texts))) for name in texts}
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder.parent))
    try:
        for before in _newest_first(folder.parent):
            _take_over(before, draft, package, reaches)
        (draft / REACHES).write_text(json.dumps(reaches), encoding="utf-8")
        draft.rename(folder)
    except OSError:
        # another process made the same folder meanwhile; with any other reason there is no folder, which shows now
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _take_over(before: Path, draft: Path, package: str, reaches: dict[str, str]) -> None:
    """Copy the kernels of each module that reaches the same sources as when they were compiled."""
    try:
        known = json.loads((before / REACHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for name, reach in reaches.items():
        if known.get(name) != reach:
            continue
        path = Path(name)
        # numba's layout: <folder's name>_<hash>/<module>.<function>-<line>.<tags>
        for kernel in before.glob(f"{path.parent.name or package}_*/{path.stem}.*"):
            target = draft / kernel.parent.name / kernel.name
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copy2(kernel, target)


def _reached(name: str, package: str, texts: dict[str, bytes]) -> set[str]:
    """Return the sources that name imports, directly or not, itself included."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        if (here := waiting.pop()) not in found:
            found.add(here)
            waiting.extend(_imported(texts[here], package, texts))
    return found


def _imported(text: bytes, package: str, texts: dict[str, bytes]) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in modules:
            top, _, rest = module.partition(".")
            path = f"{rest.replace('.', '/')}.py"
            if top == package and path in texts:
                yield path


def _newest_first(parent: Path) -> list[Path]:
    return sorted(parent.glob(f"{PREFIX}*"), key=lambda folder: folder.stat().st_mtime, reverse=True)


def _forget_old(parent: Path, present: Path) -> None:
    """Remove the folders of sources long gone; what one is using while it goes is only compiled again."""
    os.utime(present)
    for folder in _newest_first(parent)[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)
