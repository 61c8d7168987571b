"""A number says where it comes from without naming the host."""

from __future__ import annotations

import platform
import re

from server.provenance import revision, this_machine


def test_a_revision_is_a_commit_or_says_that_there_is_none() -> None:
    """Twelve digits, with a plus when files differ from the commit; a copy without git says so."""
    assert re.fullmatch(r"[0-9a-f]{12}\+?|not a clone", revision())


def test_the_machine_is_described_and_not_named() -> None:
    """Cores, system and versions are told; the name of the host is nobody's business."""
    told = this_machine()

    assert re.search(r"\d+ cores.*, Python 3\.\d+\.\d+, numba \d.*, numpy \d", told)
    assert not platform.node() or platform.node() not in told
