"""The disk under a data folder: what would survive a power cut, what fails, and how long it takes.

It lies under `os` for as long as it is `mounted`, so no part of the server can forget to go through it. Files are real
ones, and hold what the system's cache would: what survives a killed process. Beside them it keeps what a power cut
leaves for sure: of each file what was there at its last sync, of each folder the names at its last sync.

At a cut the disk may hold anything between that and the cache. A file: any mixture of its synced and its cached bytes,
page by page, and any length between. Names: the changes not synced yet take effect in order, up to some point; what is
synced in a folder is synced for good. A rename is one change: it never loses the file.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = 512
"""Bytes that reach the disk together or not at all: a sector."""
#: What a cut makes of bytes that were not synced: gone, all there, up to a point, or page by page.
FATES = ("synced", "cached", "prefix", "pages", "pages", "zeros")


class File:
    """A file and what is surely on the disk of it.

    synced: its bytes, or how many of the present ones (a file that only grows), None before the first sync.
    cached: its bytes when it has no name any more, None while they can be read.
    """

    def __init__(self) -> None:
        self.synced: bytes | int | None = None
        self.cached: bytes | None = None
        self.is_spoilt = False
        """A sync of it failed: the system drops what it could not write, and later syncs mean nothing."""


class Folder:
    """A folder: the names in it as they are, and those that are surely on the disk once its own name is."""

    def __init__(self) -> None:
        self.names: dict[str, File | Folder] = {}
        self.synced: dict[str, File | Folder] = {}


Change = list[tuple[Folder, str, "File | Folder | None"]]
"""Names that change together: in which folder, and what they stand for afterwards, None: nothing."""


@dataclass
class Operation:
    """What the process asks of the disk. name: write, sync, rename or unlink; number: counted from 1."""

    name: str
    path: Path
    number: int


@dataclass
class Behaviour:
    """How the disk behaves. delay: seconds an operation takes; failure: error number it fails with, None when it works.

    sleep: lets the calling thread wait. before: told of each operation, and may end the process (raise).
    after: told of each one that worked; data: what was written.
    """

    delay: Callable[[Operation], float] = lambda operation: 0.0
    failure: Callable[[Operation], int | None] = lambda operation: None
    sleep: Callable[[float], None] = lambda seconds: None
    before: Callable[[Operation], None] = lambda operation: None
    after: Callable[[Operation, bytes], None] = lambda operation, data: None


class _Real:
    """The functions of the system."""

    def __init__(self) -> None:
        self.write: Callable[..., int] = os.write
        self.fsync: Callable[..., None] = os.fsync
        # macOS has no fdatasync
        self.fdatasync: Callable[..., None] = getattr(os, "fdatasync", os.fsync)
        self.rename: Callable[..., None] = os.replace
        self.unlink: Callable[..., None] = os.unlink
        self.rmdir: Callable[..., None] = os.rmdir


@dataclass
class Disk:
    """The disk under one folder. is_off: the process that used it is dead, nothing it still does has an effect.

    really: whether syncs are passed on to the system as well.
    """

    folder: Path
    behaviour: Behaviour = field(default_factory=Behaviour)
    really: bool = False
    is_off: bool = False
    operations: int = 0

    def __post_init__(self) -> None:
        self._name = os.path.realpath(self.folder)
        self.folder = Path(self._name)
        self._real = _Real()
        self._lock = threading.RLock()
        self._root = Folder()
        self._changes: list[Change] = []
        """Changes of names that are not surely on the disk, in order."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settle()

    @contextmanager
    def mounted(self) -> Iterator[Disk]:
        """Lie under os inside the block."""
        ours = {
            "write": self._write,
            "fsync": self._fsync,
            "fdatasync": self._fdatasync,
            "replace": self._rename,
            "rename": self._rename,
            "unlink": self._unlink,
            "remove": self._unlink,
            "rmdir": self._rmdir,
        }
        replaced = {name: getattr(os, name) for name in ours if hasattr(os, name)}
        for name in replaced:
            setattr(os, name, ours[name])
        try:
            yield self
        finally:
            for name, function in replaced.items():
                setattr(os, name, function)

    def settle(self) -> None:
        """Take everything there is as being on the disk."""
        self._changes = []
        self._root = _read(self.folder)

    def cut(self, draw: random.Random, target: Path | None = None) -> None:
        """Leave in the folder, or in target, what the disk may hold after a power cut now."""
        with self._lock:
            self.is_off = True
            self._discover()
            left: dict[int, dict[str, File | Folder]] = {}
            for change in self._changes[: draw.randint(0, len(self._changes))]:
                for folder, name, item in change:
                    _set(left.setdefault(id(folder), dict(folder.synced)), name, item)
            contents = list(self._contents(self._root, Path(), left, draw))
        if target is None:
            for path in sorted(self.folder.rglob("*"), reverse=True):
                (self._real.rmdir if path.is_dir() else self._real.unlink)(path)
        self._lay(contents, self.folder if target is None else target)

    def restart(self) -> None:
        """Let another process use it, over what the folder holds now."""
        self.settle()
        self.is_off = False

    # -- what takes the place of the functions of os ----------------------------------------------------------

    def _write(self, descriptor: int, data: Any) -> int:
        path = self._path_of(descriptor)
        if path is None:
            return self._real.write(descriptor, data)
        whole = memoryview(data).cast("B")
        if self.is_off:
            return len(whole)
        operation, error = self._begin("write", path)
        with self._used():
            # a write that fails has often written something
            written = self._real.write(descriptor, whole if error is None else whole[: len(whole) // 2])
        _raise(error)
        self.behaviour.after(operation, bytes(whole[:written]))
        return written

    def _fsync(self, descriptor: int) -> None:
        self._sync(descriptor, self._real.fsync, grows_only=False)

    def _fdatasync(self, descriptor: int) -> None:
        self._sync(descriptor, self._real.fdatasync, grows_only=True)

    def _sync(self, descriptor: int, real: Callable[[int], None], *, grows_only: bool) -> None:
        path = self._path_of(descriptor)
        if path is None:
            real(descriptor)
            return
        if self.is_off:
            return
        status = os.fstat(descriptor)
        file, content = None, b""
        if not stat.S_ISDIR(status.st_mode):
            with self._lock:
                # what is written from here on may miss this sync
                file = self._file(path)
                content = b"" if grows_only else path.read_bytes()
        operation, error = self._begin("sync", path)
        with self._used():
            if error is not None and file is not None:
                file.is_spoilt = True
            _raise(error)
            if self.really:
                real(descriptor)
            if stat.S_ISDIR(status.st_mode):
                self._sync_names(path)
            elif file is not None and not file.is_spoilt:
                file.synced = status.st_size if grows_only else content
        self.behaviour.after(operation, b"")

    def _rename(self, source: Any, target: Any, **options: Any) -> None:
        old, new = self._inside(source), self._inside(target)
        if old is None or new is None or options:
            self._real.rename(source, target, **options)
            return
        if self.is_off:
            return
        operation, error = self._begin("rename", new)
        _raise(error)
        with self._used():
            self._discover()
            moved = self._at(old)
            self._keep(new)
            self._real.rename(source, target)
            self._change([(self._folder(old), old.name, None), (self._folder(new), new.name, moved)])
        self.behaviour.after(operation, b"")

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._gone(self._real.unlink, path, dir_fd)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._gone(self._real.rmdir, path, dir_fd)

    def _gone(self, real: Callable[..., None], path: Any, dir_fd: int | None) -> None:
        folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        inside = self._inside(os.path.join(folder, os.fspath(path)))
        if inside is None:
            real(path, dir_fd=dir_fd)
            return
        if self.is_off:
            return
        operation, error = self._begin("unlink", inside)
        _raise(error)
        with self._used():
            self._discover()
            self._keep(inside)
            real(path, dir_fd=dir_fd)
            self._change([(self._folder(inside), inside.name, None)])
        self.behaviour.after(operation, b"")

    def _begin(self, name: str, path: Path) -> tuple[Operation, int | None]:
        """Let the time of an operation pass; return it and the error it ends with."""
        self.operations += 1
        operation = Operation(name, path, self.operations)
        self.behaviour.before(operation)
        self.behaviour.sleep(self.behaviour.delay(operation))
        return operation, self.behaviour.failure(operation)

    @contextmanager
    def _used(self) -> Iterator[None]:
        with self._lock:
            _raise(errno.EIO if self.is_off else None)
            yield

    # -- what is on the disk ------------------------------------------------------------------------------------

    def _path_of(self, descriptor: int) -> Path | None:
        try:
            return self._inside(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            return None

    def _inside(self, path: Any) -> Path | None:
        """Return a path of the folder or in it, None for any other."""
        if isinstance(path, int):
            return None
        full = os.path.abspath(os.fspath(path))
        # as text: each write and sync asks, and the parents of a Path are made one by one
        return Path(full) if full == self._name or full.startswith(self._name + os.sep) else None

    def _discover(self) -> None:
        """Take in the names that were made since the last look: opening a file is nothing we are told of."""

        def look(path: Path, known: Folder) -> None:
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
                if entry.name not in known.names:
                    self._change([(known, entry.name, Folder() if entry.is_dir() else File())])
                inner = known.names[entry.name]
                if isinstance(inner, Folder):
                    look(path / entry.name, inner)

        look(self.folder, self._root)

    def _change(self, change: Change) -> None:
        self._changes.append(change)
        for folder, name, item in change:
            _set(folder.names, name, item)

    def _at(self, path: Path) -> File | Folder | None:
        item: File | Folder | None = self._root
        for part in path.relative_to(self.folder).parts:
            item = item.names.get(part) if isinstance(item, Folder) else None
        return item

    def _folder(self, path: Path) -> Folder:
        """Return the folder a path is in."""
        found = self._at(path.parent)
        assert isinstance(found, Folder)
        return found

    def _file(self, path: Path) -> File | None:
        """Return the file under a name, None when it has lost it."""
        if self._at(path) is None:
            self._discover()
        found = self._at(path)
        return found if isinstance(found, File) else None

    def _keep(self, path: Path) -> None:
        """Keep the bytes of a file that is about to lose its name: the disk may still have it under that name."""
        file = self._at(path)
        if isinstance(file, File):
            file.cached = path.read_bytes()

    def _sync_names(self, path: Path) -> None:
        """Make the changes in a folder durable. A change in two folders is one: it cannot be done by half."""
        self._discover()
        folder = self._at(path)
        rest = []
        for change in self._changes:
            if any(changed is folder for changed, _, _ in change):
                for changed, name, item in change:
                    _set(changed.synced, name, item)
            else:
                rest.append(change)
        self._changes = rest

    def _contents(
        self, folder: Folder, at: Path, left: dict[int, dict[str, File | Folder]], draw: random.Random
    ) -> Iterator[tuple[Path, bytes | None]]:
        for name, item in sorted(left.get(id(folder), folder.synced).items()):
            if isinstance(item, File):
                yield at / name, self._after_cut(item, draw)
            else:
                yield at / name, None
                yield from self._contents(item, at / name, left, draw)

    def _after_cut(self, file: File, draw: random.Random) -> bytes:
        cached = self._path(file).read_bytes() if file.cached is None else file.cached
        synced = file.synced if isinstance(file.synced, bytes) else cached[: file.synced or 0]
        return after_cut(synced, cached, draw)

    def _path(self, file: File) -> Path:
        def search(folder: Folder, at: Path) -> Path | None:
            for name, item in folder.names.items():
                if item is file:
                    return at / name
                if isinstance(item, Folder) and (found := search(item, at / name)) is not None:
                    return found
            return None

        path = search(self._root, self.folder)
        assert path is not None
        return path

    def _lay(self, contents: list[tuple[Path, bytes | None]], target: Path) -> None:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in contents:
            path = target / name
            if content is None:
                path.mkdir(mode=0o700)
                continue
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content)


def after_cut(synced: bytes, cached: bytes, draw: random.Random) -> bytes:
    """Return what a disk may hold of a file whose synced and cached bytes are these."""
    fate = draw.choice(FATES)
    if fate == "synced" or synced == cached:
        return synced
    if fate == "cached":
        return cached
    shorter, longer = sorted((len(synced), len(cached)))
    # the length reaches the disk on its own: often all of it before the bytes
    length = draw.choice((longer, draw.randint(shorter, longer)))
    if fate == "prefix" and cached.startswith(synced):
        return cached[:length]
    found = bytearray(synced[:length].ljust(length, b"\0"))
    for start in range(0, length, PAGE) if fate != "zeros" else ():
        if draw.random() < 0.5:
            page = slice(start, min(start + PAGE, length))
            # a page of the cache holds the synced bytes as well, a page of the disk only those
            found[page] = cached[page].ljust(page.stop - page.start, b"\0")
    return bytes(found)


def _raise(error: int | None) -> None:
    if error is not None:
        raise OSError(error, os.strerror(error))


def _read(path: Path) -> Folder:
    """Return what a folder holds, all of it taken as synced."""
    folder = Folder()
    for entry in sorted(path.iterdir()):
        if entry.is_dir():
            folder.names[entry.name] = _read(entry)
        else:
            file = folder.names[entry.name] = File()
            file.synced = entry.read_bytes()
    folder.synced = dict(folder.names)
    return folder


def _set(names: dict[str, File | Folder], name: str, item: File | Folder | None) -> None:
    if item is None:
        names.pop(name, None)
    else:
        names[name] = item
