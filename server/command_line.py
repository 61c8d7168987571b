"""What the commands of `arena` have in common: how a number is read, and how it is said why one ends undone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return what reads an option as a whole number from low to high, without an end where high is None."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or int(text) < low or (high is not None and int(text) > high):
            allowed = f"from {low} on" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"a whole number {allowed}, got {text!r}")
        return int(text)

    return parse


def refuse(command: str, why: Exception | str, status: int) -> int:
    """Say on stderr why a command ends without what was asked of it, and return status."""
    # first what was said on the way, also where both go into one file
    sys.stdout.flush()
    sys.stderr.write(f"arena {command}: {why}\n")
    return status
