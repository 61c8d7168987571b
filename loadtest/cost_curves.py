"""Cost curves: time per tick against residents, markets and outside orders, memory against residents, all fitted.

    python -m loadtest.cost_curves --out loadtest/results/cost_curves.json      measure (minutes)
    python -m loadtest.cost_curves --pages                                      write docs/performance.md and its plots

The pages follow from the committed results alone: measuring and writing are two steps, so that a page can be checked.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from server import kernel_cache


def main() -> int:
    """Measure, or write the pages, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples, at most a million residents")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON to this file, not to stdout")
    parser.add_argument("--pages", action="store_true", help="measure nothing, write the page and the plots")
    given = parser.parse_args()
    if given.pages:
        from loadtest.pages import write

        write()
        return 0
    kernel_cache.choose()
    from loadtest.headless.cost_curves import measure

    result = json.dumps(measure(given.quick), indent=2) + "\n"
    if given.out:
        given.out.write_text(result, encoding="utf-8")
    else:
        sys.stdout.write(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
