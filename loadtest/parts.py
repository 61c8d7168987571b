"""Long runs done in parts: each is kept as it was, and what counts up is added up over all of them.

    {"holds": every part does, counts: added up, "parts": [each with revision, machine, times]}

Parts may come from processes at the same time; one after the other goes into the file.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def keep(out: Path, part: Document, *, append: bool) -> None:
    """Write a part to a file: alone, or with append beside those that are there. Raises OSError, ValueError."""
    with open(os.open(out, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read()
        parts = json.loads(before)["parts"] if append and before else []
        whole = total([*parts, part])
        file.seek(0)
        file.truncate()
        file.write(json.dumps(whole, indent=1) + "\n")


def total(parts: list[Document]) -> Document:
    """Return what parts come to together: counts and lists added up, verdicts all of them, the rest only in each."""
    found: Document = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, bool):
                found[name] = found.get(name, True) and value
            elif isinstance(value, (int, list)):
                found[name] = found.get(name, type(value)()) + value
            elif isinstance(value, dict) and all(isinstance(count, int) for count in value.values()):
                added = found.setdefault(name, {})
                for key, count in value.items():
                    added[key] = added.get(key, 0) + count
    return {**found, "parts": parts}
