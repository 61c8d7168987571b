"""`arena backup` and `arena restore`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import JournalDamaged
from server.clock import SystemClock
from server.command_line import refuse
from server.live.backup import BackupError, age_library, backup, restore

REFUSED, DAMAGED = 2, 3


def backup_main(args: Sequence[str]) -> int:
    """Back a world up as args ask; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="arena backup",
        description="Write a world to one file, checksummed; a running server may own the folder.",
        epilog="examples: arena backup arena-data world.tar; arena backup arena-data world.tar.age --recipient age1...;"
        " arena backup --new-identity key.txt",
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="data folder of the world")
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="file to write; must not exist")
    parser.add_argument("--recipient", metavar="KEY", help="encrypt for this age public key (age1...)")
    parser.add_argument("--new-identity", type=Path, metavar="FILE", help="only make a pair of age keys")
    options = parser.parse_args(args)
    try:
        if options.new_identity:
            return _new_identity(options.new_identity)
        if options.file is None:
            parser.error("DIR and FILE are required")
        manifest = backup(options.folder, options.file, SystemClock(), options.recipient)
    except JournalDamaged as error:
        return refuse("backup", f"{error}; `arena verify {options.folder}` says what a start does with that", DAMAGED)
    except (BackupError, OSError) as error:
        return refuse("backup", error, REFUSED)
    total = sum(entry["bytes"] for entry in manifest["files"])
    how = "encrypted" if options.recipient else "not encrypted: it holds the seed and the hashes of all keys"
    _say(f"{options.file}: {len(manifest['files'])} files, {total / 1e6:.1f} MB, {how}")
    return 0


def restore_main(args: Sequence[str]) -> int:
    """Restore a world as args ask; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="arena restore",
        description="Make a data folder from a backup. The restored world has an epoch of its own.",
        epilog="examples: arena restore world.tar arena-data; arena restore world.tar.age arena-data --identity key.txt"
        " --to 12000",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the backup")
    parser.add_argument("folder", type=Path, metavar="DIR", help="data folder to make; must not exist, or be empty")
    parser.add_argument("--identity", type=Path, metavar="FILE", help="file with the age secret key")
    parser.add_argument("--to", type=int, metavar="TICK", help="leave out everything behind this tick")
    options = parser.parse_args(args)
    try:
        restored = restore(options.file, options.folder, SystemClock(), options.identity, options.to)
    except JournalDamaged as error:
        return refuse("restore", error, DAMAGED)
    except (BackupError, OSError) as error:
        return refuse("restore", error, REFUSED)
    _say(
        f"{options.folder}: {restored.files} files, every checksum holds; the world goes on behind tick {restored.tick}"
        f" of {restored.parent} as epoch {restored.epoch}"
    )
    return 0


def _new_identity(path: Path) -> int:
    identity = age_library().x25519.Identity.generate()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(f"# public key: {identity.to_public()}\n{identity}\n")
    _say(f"{path} holds the secret key; encrypt with --recipient {identity.to_public()}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
