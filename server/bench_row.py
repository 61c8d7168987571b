"""A row of `arena bench`: one measured number, its bar, and what is in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number. It passes when it is at most its bar, with at_least when it is at least that.

    includes, excludes: what is in it, what is not.
    """

    id: str
    value: float
    unit: str
    bar: float
    spread: str
    includes: str
    excludes: str
    at_least: bool = False
    revision: str = ""
    machine: str = ""

    @property
    def passes(self) -> bool:
        """Whether the value is on the right side of the bar, or on it."""
        return bool(self.value >= self.bar if self.at_least else self.value <= self.bar)

    def document(self) -> dict[str, Any]:
        """Return the row as it is written to results."""
        return {**asdict(self), "value": float(self.value), "pass": self.passes}
