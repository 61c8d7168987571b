"""A world in one file, and back: everything a start needs, each file with its SHA-256, encrypted when asked.

A backup is taken from a folder that a running server may own: every file of a world but the last segment is written
once, and of that one the whole batches count. It is an uncompressed tar (POSIX), encrypted for an age recipient
(age-encryption.org/v1) with pyrage. A restored world is another timeline: it has an epoch of its own.
Source: DESIGN D21; specification 004, backup security.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from engine.journal import Segments
from server import extras
from server.clock import Clock
from server.live.errors import WorldRefused
from server.live.event_store import FILE_NAME as EVENTS_NAME
from server.live.journal import ARCHIVE_NAME, read_segments, scan_opened, segment_paths
from server.live.receipt_index import FOLDER_NAME as RECEIPTS_NAME
from server.live.receipt_index import SUFFIX as RECEIPTS_SUFFIX
from server.live.salvage import Cut, begin_epoch, cut_segment, marks
from server.live.snapshots import FOLDER_NAME as SNAPSHOTS_NAME
from server.live.snapshots import list_snapshots
from server.live.view import iso_time
from server.live.world import FolderLock, cut_torn

MANIFEST_NAME = "MANIFEST.json"
FORMAT = 1
AGE_MAGIC = b"age-encryption.org/"
ATTEMPTS_MAX = 20
"""How often a backup looks again when a file was put away between its name and its opening."""
#: What a backup may hold: nothing else is unpacked, whatever the file says.
_NAMES = re.compile(
    rf"journal-\d{{12}}\.arj|{EVENTS_NAME}|{ARCHIVE_NAME}/journal-\d{{12}}\.arj\.gz"
    rf"|{RECEIPTS_NAME}/receipts-\d{{12}}-\d+\.arr|{SNAPSHOTS_NAME}/snapshot-\d{{12}}-\d+\.arf"
)
_COPY_BYTES = 1 << 20


class BackupError(WorldRefused):
    """A backup cannot be taken or used; its message says why."""


class Restored(NamedTuple):
    """What a restore made. tick: the last one of the restored journal."""

    epoch: str
    parent: str
    tick: int
    files: int


def backup(folder: Path, target: Path, clock: Clock, recipient: str | None = None) -> dict[str, Any]:
    """Write a world to a file, all or nothing, and return its manifest. recipient: an age public key to encrypt for.

    Raises BackupError, JournalDamaged before anything is written when the journal is not whole, OSError.
    """
    if target.exists():
        raise BackupError(f"{target} exists: name another file")
    if not target.parent.is_dir():
        raise BackupError(f"{target}: there is no folder {target.parent}")
    draft = target.with_name(target.name + ".new")
    try:
        with _opened(folder) as files, open(draft, "xb") as out:
            _check(folder, files)
            os.chmod(draft, 0o600)
            if recipient is None:
                manifest = _write(files, out, clock)
            else:
                with tempfile.TemporaryFile(dir=target.parent) as plain:
                    manifest = _write(files, plain, clock)
                    plain.seek(0)
                    _encrypt(plain, out, recipient)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def restore(
    source: Path, folder: Path, clock: Clock, identity: Path | None = None, to_tick: int | None = None
) -> Restored:
    """Make a data folder from a backup. identity: file with the age secret key; to_tick: cut behind that tick.

    The folder must not exist or be empty; after any error it is as it was. Raises BackupError, JournalDamaged, OSError.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty: name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        count = _unpack(source, draft, identity)
        restored = _begin(draft, clock, to_tick, source.name, count)
        if folder.exists():
            folder.rmdir()
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return restored


@contextmanager
def _opened(folder: Path) -> Iterator[list[tuple[str, IO[bytes], int]]]:
    """Open every file of a world at once: name, file, size. What is put away meanwhile stays readable."""
    for _ in range(ATTEMPTS_MAX):
        with ExitStack() as stack:
            try:
                paths = _paths(folder)
                files = [(path.relative_to(folder).as_posix(), stack.enter_context(open(path, "rb"))) for path in paths]
            except FileNotFoundError:
                continue
            yield [(name, file, os.fstat(file.fileno()).st_size) for name, file in files]
            return
    raise BackupError(f"the files of {folder} changed {ATTEMPTS_MAX} times while they were opened")


def _paths(folder: Path) -> list[Path]:
    # snapshots are named first: what they need was written before them
    snapshots = [named.path for named in list_snapshots(folder)]
    journal = segment_paths(folder)
    if not journal:
        raise BackupError(f"{folder} holds no world")
    others = sorted((folder / RECEIPTS_NAME).glob(f"*{RECEIPTS_SUFFIX}"))
    events = [folder / EVENTS_NAME] if (folder / EVENTS_NAME).exists() else []
    return [*snapshots, *others, *events, *journal]


def _check(folder: Path, files: list[tuple[str, IO[bytes], int]]) -> None:
    """Read every record of the journal: a backup that cannot be restored is none. Raises JournalDamaged."""
    segments = [(folder / name, file, size) for name, file, size in files if Path(name).name.startswith("journal-")]
    for _ in Segments([partial(scan_opened, *segment) for segment in segments]):
        pass
    for _, file, _ in segments:
        file.seek(0)


def _write(files: list[tuple[str, IO[bytes], int]], out: IO[bytes], clock: Clock) -> dict[str, Any]:
    entries = []
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, file, size in files:
            reader = _Reader(file, size)
            tar.addfile(_member(name, size), reader)
            entries.append({"name": name, "bytes": size, "sha256": reader.digest.hexdigest()})
        manifest = {"format": FORMAT, "created": iso_time(clock.unix_ns()), "files": entries}
        text = json.dumps(manifest, indent=1).encode()
        tar.addfile(_member(MANIFEST_NAME, len(text)), io.BytesIO(text))
    return manifest


class _Reader(io.RawIOBase):
    """The first bytes of a file, hashed as they are read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        self.digest.update(data)
        return data


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def _unpack(source: Path, folder: Path, identity: Path | None) -> int:
    """Unpack a backup and hold every file to its checksum; return how many there are."""
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(open(source, "rb"))
        is_encrypted = file.read(len(AGE_MAGIC)) == AGE_MAGIC
        if identity is not None and not is_encrypted:
            raise BackupError(f"{source} is not encrypted: leave --identity out if you trust it all the same")
        file.seek(0)
        if is_encrypted:
            plain = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            _decrypt(file, plain, identity, source)
            plain.seek(0)
            file = plain
        digests: dict[str, str] = {}
        manifest = None
        try:
            with tarfile.open(fileobj=file, mode="r|") as tar:
                for member in tar:
                    body = tar.extractfile(member)
                    if body is None:
                        raise BackupError(f"{source}: {member.name!r} is no file")
                    if member.name == MANIFEST_NAME:
                        manifest = json.loads(body.read())
                    else:
                        digests[member.name] = _extract(body, folder, member.name, source)
        except (tarfile.TarError, ValueError) as error:
            raise BackupError(f"{source} is no backup, or damaged: {error}") from error
    if manifest is None:
        raise BackupError(f"{source} is cut short: its manifest is missing")
    expected = {entry["name"]: entry["sha256"] for entry in manifest["files"]}
    if differing := sorted(name for name in {*expected, *digests} if expected.get(name) != digests.get(name)):
        raise BackupError(f"{source} is damaged: the checksum of {', '.join(differing[:5])} is not the manifest's")
    return len(digests)


def _extract(body: IO[bytes], folder: Path, name: str, source: Path) -> str:
    if not _NAMES.fullmatch(name):
        raise BackupError(f"{source} holds {name!r}, which is no part of a world")
    path = folder / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    digest = hashlib.sha256()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while data := body.read(_COPY_BYTES):
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _begin(folder: Path, clock: Clock, to_tick: int | None, name: str, files: int) -> Restored:
    """Check the restored journal, cut it where asked, and begin its epoch."""
    lock = FolderLock(folder)
    try:
        cut_torn(segment_paths(folder)[-1])
        records = read_segments(segment_paths(folder))
        ticks: dict[str, Cut] = {}
        wanted = None
        for cut in marks(records):
            ticks.setdefault("first", cut)
            ticks["last"] = cut
            if cut.tick == to_tick:
                wanted = cut
        if not ticks:
            raise BackupError(f"{name} holds no tick")
        if to_tick is None:
            parent, path, sequence = ticks["last"], Path(records.path), records.next_sequence
        elif wanted is None:
            first, last = ticks["first"].tick, ticks["last"].tick
            raise BackupError(f"{name} holds the ticks {first} to {last}, not {to_tick}")
        else:
            parent, path, sequence = wanted, _cut(folder, wanted), wanted.sequence
        epoch = begin_epoch(path, sequence, parent, f"restored from {name}", clock)
        return Restored(epoch, parent.epoch, parent.tick, files)
    finally:
        lock.release()


def _cut(folder: Path, cut: Cut) -> Path:
    """Leave only what is before a place."""
    paths = segment_paths(folder)
    for path in paths[paths.index(cut.path) + 1 :]:
        path.unlink()
    for named in list_snapshots(folder):
        if named.tick > cut.tick:
            named.path.unlink()
    return cut_segment(cut)


def _encrypt(plain: IO[bytes], out: IO[bytes], recipient: str) -> None:
    pyrage = age_library()
    try:
        key = pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError as error:
        raise BackupError(f"the recipient must be an age public key (age1...), got {recipient!r}") from error
    pyrage.encrypt_io(plain, out, [key])


def _decrypt(file: IO[bytes], plain: IO[bytes], identity: Path | None, source: Path) -> None:
    pyrage = age_library()
    if identity is None:
        raise BackupError(f"{source} is encrypted: name the file with the secret key with --identity")
    lines = [line for line in identity.read_text("utf-8", "replace").splitlines() if line.startswith("AGE-SECRET-KEY-")]
    try:
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except pyrage.IdentityError as error:
        raise BackupError(f"{identity} holds no age secret key: {error}") from error
    if not keys:
        raise BackupError(f"{identity} holds no age secret key (a line AGE-SECRET-KEY-...)")
    try:
        pyrage.decrypt_io(file, plain, keys)
    except pyrage.DecryptError as error:
        raise BackupError(f"{source} cannot be decrypted with {identity}: {error}") from error


def age_library() -> Any:
    """Return pyrage. Raises BackupError when it is not installed."""
    try:
        import pyrage
    except ImportError:
        raise BackupError(f"encryption needs the extra `backup`: {extras.how_to_install('pyrage')}") from None
    return pyrage
