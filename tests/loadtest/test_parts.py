"""Parts of a long run in one file: nothing of a part is lost, counts add up, one that failed is seen in the whole."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread
from typing import Any

from loadtest.parts import keep, total


def part(seed: str, *, holds: bool = True, killed: int = 3) -> dict[str, Any]:
    """Return what a run found."""
    return {
        "holds": holds, "seed": seed, "wrong": [] if holds else ["lost"], "ended": {"kill": killed},
        "start_s": {"p50": 0.5}, "took_s": 7,
    }  # fmt: skip


def test_counts_add_up_and_one_failure_is_a_failure() -> None:
    """What is a time or a name of one part stands there only."""
    whole = total([part("1"), part("2", holds=False, killed=4)])

    assert whole["ended"] == {"kill": 7}
    assert whole["took_s"] == 14
    assert whole["holds"] is False
    assert whole["wrong"] == ["lost"]
    assert "start_s" not in whole
    assert "seed" not in whole
    assert [one["seed"] for one in whole["parts"]] == ["1", "2"]


def test_parts_written_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    """Each waits for the one that is writing."""
    out = tmp_path / "kills.json"
    threads = [Thread(target=keep, args=(out, part(str(i))), kwargs={"append": True}) for i in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    whole = json.loads(out.read_text())
    assert sorted(one["seed"] for one in whole["parts"]) == [str(i) for i in range(8)]
    assert whole["ended"] == {"kill": 24}


def test_without_append_a_file_is_replaced(tmp_path: Path) -> None:
    """A run of its own is one part."""
    out = tmp_path / "kills.json"

    keep(out, part("1", killed=1_000_000), append=True)
    keep(out, part("2"), append=False)

    assert [one["seed"] for one in json.loads(out.read_text())["parts"]] == ["2"]
