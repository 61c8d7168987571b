"""The end of a long run: what was seen, what held of it, where it was measured; printed, kept, an exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from server.provenance import revision, this_machine


def conclude(result: dict[str, Any], held: dict[str, bool], out: Path | None) -> int:
    """Print a result as JSON, also into a file; return 0 when all that had to hold did, else 1."""
    document = {"holds": all(held.values()), "held": held, **result, "revision": revision(), "machine": this_machine()}
    text = json.dumps(document, indent=1) + "\n"
    sys.stdout.write(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    return 0 if document["holds"] else 1
