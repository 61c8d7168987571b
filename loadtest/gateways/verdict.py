"""What the parts of a result come to: no promise broken in any, and as many trials as promised (DESIGN R10)."""

from __future__ import annotations

from typing import Any

ASKED = {
    "exchanges": ("kills", 1_000),
    "outages": ("outages", 200),
    "acks": ("requests", 2_000),
    "frames": ("ticks", 400),
}
"""By part, what counts its trials, and how many there must be: in one run, or in several that add up."""

Document = dict[str, Any]


def held(found: Document) -> dict[str, bool]:
    """Return what had to hold of a result, and whether it did.

    found: by part what its runs come to together; one that is missing was not run, and does not hold.
    """
    return {
        name: holds
        for part, (what, asked) in ASKED.items()
        for name, holds in (
            (f"{part}: no promise broken", bool(found.get(part, {}).get("holds", False))),
            (f"{part}: at least {asked:,} {what}", trials(found, part) >= asked),
        )
    }


def trials(found: Document, part: str) -> int:
    """Return how many trials of a part count: of kills at a step of an exchange those that met the step."""
    whole, (what, _) = found.get(part, {}), ASKED[part]
    return int(whole.get(what, 0)) - int(whole.get("steps_nobody_came_to", 0))


def concluded(found: Document) -> Document:
    """Return a result with its verdict before it."""
    judged = held(found)
    return {"holds": all(judged.values()), "held": judged, **found}


def told(found: Document) -> str:
    """Return, a line each, how many trials there were of how many."""
    lines = (f"{part}: {trials(found, part):,} of {asked:,} {what}\n" for part, (what, asked) in ASKED.items())
    return "".join(lines)
