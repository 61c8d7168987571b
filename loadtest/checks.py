"""Numbers against their bars: what a load test has to hold, and how it is kept and told."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadtest.verdict import conclude


@dataclass(frozen=True, kw_only=True)
class Check:
    """A number and its bar. It passes when it is at most its bar, with at_least when it is at least that."""

    name: str
    value: float
    bar: float
    unit: str
    at_least: bool = False

    @property
    def passes(self) -> bool:
        """Whether the value is on the right side of the bar, or on it."""
        return bool(self.value >= self.bar if self.at_least else self.value <= self.bar)

    def document(self) -> dict[str, Any]:
        """Return the check as it is kept."""
        sign = "at_least" if self.at_least else "at_most"
        return {"value": round(self.value, 4), sign: self.bar, "unit": self.unit, "pass": self.passes}

    def line(self) -> str:
        """Return the check as it is told."""
        bar = f"at {'least' if self.at_least else 'most'} {self.bar:g}"
        return f"{'pass' if self.passes else 'FAIL'}  {self.name:<26} {self.value:>12.4f} {self.unit} ({bar})"


def finish(name: str, checks: Sequence[Check], out: Path | None, **seen: Any) -> int:
    """Print a result and its checks, keep it in a file, and return the exit status: 1 when a check fails."""
    result = {"name": name, "checks": {check.name: check.document() for check in checks}, **seen}
    status = conclude(result, {check.name: check.passes for check in checks}, out)
    sys.stderr.write("".join(f"{check.line()}\n" for check in checks))
    return status


def with_bars(checks: Iterable[Check], given: Sequence[str]) -> list[Check]:
    """Return the checks with other bars, given as NAME=VALUE. Raises ValueError for a name there is not."""
    bars = {name: float(value) for name, _, value in (text.partition("=") for text in given)}
    changed = [replace(check, bar=bars.pop(check.name, check.bar)) for check in checks]
    if bars:
        raise ValueError(f"no check is called {', '.join(bars)}; there are {', '.join(one.name for one in changed)}")
    return changed
