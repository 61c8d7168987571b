"""Note in the suite's files what was measured: python -m tests.support.measure_scenarios.

The ranges are those of the committed results, made by `python3 -m server scenario --seeds 5 --out loadtest/results`. A
figure outside its band is told and not written: the band, or the world, has to be looked at first.
"""

from __future__ import annotations

import json
import re
import sys
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "engine" / "studies" / "scenario" / "suite"
RESULTS = ROOT / "loadtest" / "results" / "scenarios.json"


def main() -> int:
    """Write every range and return 1 when a figure is outside its band."""
    scenarios = json.loads(RESULTS.read_text(encoding="utf-8"))["scenarios"]
    return max(write(scenario) for scenario in scenarios)


def write(scenario: dict[str, Any]) -> int:
    """Write the ranges of one scenario into its file and return 1 when one of them is outside its band."""
    path = SUITE / f"{scenario['name']}.toml"
    head, *blocks = path.read_text(encoding="utf-8").split("[[expect]]\n")
    outside = 0
    for k, expected in enumerate(scenario["expectations"]):
        low, high = rounded(expected["measured"])
        block = re.sub(r"^measured = .*\n", "", blocks[k], flags=re.MULTILINE)
        if expected["low"] <= low <= high <= expected["high"]:
            keys = block.rstrip("\n")
            block = f"{keys}\nmeasured = [{low:g}, {high:g}]{block[len(keys) :]}"
        else:
            outside = 1
            told = f"{scenario['name']}: expect {k + 1} ({expected['series']}): {low:g} .. {high:g}"
            sys.stdout.write(f"{told} outside {expected['low']:g} .. {expected['high']:g}\n")
        blocks[k] = block
    path.write_text("[[expect]]\n".join([head, *blocks]), encoding="utf-8")
    return outside


def rounded(figures: list[float]) -> tuple[float, float]:
    """Return the range of figures, rounded outward to three digits."""
    low, high = min(figures), max(figures)
    if low == high:
        return low, high
    digits = 2 - floor(log10(max(abs(low), abs(high))))
    return floor(low * 10.0**digits) / 10.0**digits, ceil(high * 10.0**digits) / 10.0**digits


if __name__ == "__main__":
    sys.exit(main())
