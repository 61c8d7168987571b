"""The suite: its files say the same as its runs, whether one by one or at once."""

from __future__ import annotations

import json
from pathlib import Path

from server.clock import ManualClock
from server.report.suite import LONG_SEED, PAGE_NAME, RUNS, SEEDS, TABLE_NAME, Run, run_suite

SMALL = (Run(1, 120), Run(2, 240))


def test_the_suite_is_five_seeds_and_a_long_run() -> None:
    """As ECONOMY B0 asks: at least five seeds of 20,000 ticks and one of 100,000."""
    assert [run.ticks for run in RUNS] == [20_000] * 5 + [100_000]
    assert len({*SEEDS, LONG_SEED}) == 6


def test_each_run_is_a_file_and_all_are_in_table_and_page(tmp_path: Path) -> None:
    """Data per run, a table for readers of the repository, a page; runs too short for a verdict do not hold."""
    lines: list[str] = []

    assert not run_suite(tmp_path, 2_000, 1, ManualClock(), lines.append, SMALL)

    documents = [json.loads((tmp_path / f"{run.name}.json").read_text()) for run in SMALL]
    table, page = (tmp_path / TABLE_NAME).read_text(), (tmp_path / PAGE_NAME).read_text()
    assert [document["ticks"] for document in documents] == [120, 240]
    assert table.startswith("# Realism of the default settings\n\nEvery band holds in 0 of 2 runs.")
    for document in documents:
        for figure in document["figures"]:
            assert figure["value"].replace("|", "\\|") in table
    assert "seed 2, 240 ticks" in page
    assert "seed-2-240: 2,000 residents settle (seed 2)" in lines


def test_runs_at_once_are_the_same_runs(tmp_path: Path) -> None:
    """Processes change nothing but the time it takes."""
    run_suite(tmp_path / "one", 2_000, 1, ManualClock(), lambda line: None, SMALL)
    run_suite(tmp_path / "two", 2_000, 2, ManualClock(), lambda line: None, SMALL)

    for name in [f"{run.name}.json" for run in SMALL] + [PAGE_NAME]:
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text(), name
