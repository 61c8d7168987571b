"""The committed runs: five seeds that nobody tuned on and one long one, as small files and one page over all.

One command makes them again; what is committed is what it wrote.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from engine.analysis.facts import self_test
from engine.analysis.figures import BAND_TICKS, LONG_TICKS, Verdict, fails
from engine.analysis.metaorders import experiment
from engine.config import Config
from engine.economy import Economy
from engine.markets import HOURS, SHARE_FIRST
from server.clock import Clock, SystemClock
from server.report import history, page, plots
from server.report.document import as_json, make_report
from server.report.history import Say, run_headless

SEEDS = (5_001, 5_002, 5_003, 5_004, 5_005)
LONG_SEED = 5_006
Done = tuple[dict[str, Any], list[plots.Plot]]
"""The document of a run and its plots."""
PAGE_NAME, TABLE_NAME = "page.html", "README.md"


class Run(NamedTuple):
    """One run of the suite."""

    seed: int
    ticks: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"seed-{self.seed}-{self.ticks}"


RUNS = (*(Run(seed, BAND_TICKS) for seed in SEEDS), Run(LONG_SEED, LONG_TICKS))


def run_suite(folder: Path, residents: int, jobs: int, clock: Clock, say: Say, runs: tuple[Run, ...] = RUNS) -> bool:
    """Run all, write a file each, a table and a page, and return whether every band held in every run.

    jobs: runs at a time, each in a process of its own. The page's plots are those of the last run.
    """
    done = _one_by_one(runs, residents, clock, say) if jobs == 1 else _at_once(runs, residents, jobs, say)
    documents = [document for document, _ in done]
    folder.mkdir(parents=True, exist_ok=True)
    for run, document in zip(runs, documents, strict=True):
        (folder / f"{run.name}.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    tests = self_test()
    (folder / TABLE_NAME).write_text(_table(runs, documents, tests), encoding="utf-8")
    if plots.available():
        (folder / PAGE_NAME).write_text(_page(runs, documents, tests, done[-1][1]), encoding="utf-8")
    else:
        say(plots.how_to_install())
    for run, document in zip(runs, documents, strict=True):
        say(f"{run.name}: {document['sentence']}")
    say(f"{folder}: {len(runs)} files, {TABLE_NAME}" + (f", {PAGE_NAME}" if plots.available() else ""))
    return all(document["holds"] for document in documents) and not fails(tests)


def run_one(run: Run, residents: int, clock: Clock, say: Say) -> Done:
    """Run one world and return its document and plots."""
    recorded = run_headless(Config(residents=residents), run.seed, run.ticks, clock, _named(run.name, say))
    report = make_report(recorded)
    return as_json(report), plots.draw_all(report) if plots.available() else []


def _one_by_one(runs: tuple[Run, ...], residents: int, clock: Clock, say: Say) -> list[Done]:
    return [run_one(run, residents, clock, say) for run in runs]


def _at_once(runs: tuple[Run, ...], residents: int, jobs: int, say: Say) -> list[Done]:
    _compile()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        # the longest first, or it would run alone at the end
        order = sorted(runs, key=lambda run: -run.ticks)
        waiting = {
            run: pool.submit(partial(run_one, residents=residents, clock=SystemClock(), say=history.say), run)
            for run in order
        }
        done = {}
        for run in order:
            done[run] = waiting[run].result()
            say(f"{run.name} is done")
    return [done[run] for run in runs]


def _compile() -> None:
    """Run every kernel that a run needs once: one process fills the cache on disk, the others only read it."""
    economy = Economy(Config(residents=2_000, max_agents=1, order_book_max=1_024), 0)
    for _ in range(2 * HOURS):
        economy.advance()
    experiment(economy, SHARE_FIRST, 1e4, 100.0)


def _named(name: str, say: Say) -> Say:
    return lambda line: say(f"{name}: {line}")


def _rows(documents: list[dict[str, Any]]) -> list[tuple[str, str, str, list[dict[str, Any]]]]:
    """Return (group, title, band, the figure in every run) for each figure of the first run."""
    return [
        (
            first["group"],
            first["title"],
            first["band"],
            [next(f for f in document["figures"] if f["id"] == first["id"]) for document in documents],
        )
        for first in documents[0]["figures"]
    ]


def _heading(run: Run) -> str:
    return f"seed {run.seed}, {run.ticks:,} ticks"


def _verdict(documents: list[dict[str, Any]]) -> str:
    held = sum(bool(document["holds"]) for document in documents)
    return f"Every band holds in {held} of {len(documents)} runs."


def _table(runs: tuple[Run, ...], documents: list[dict[str, Any]], tests: list[Any]) -> str:
    first = documents[0]
    lines = [
        "# Realism of the default settings",
        "",
        f"{_verdict(documents)} Made by `python3 -m server report --headless --suite`; every number below is from the"
        f" JSON files beside this one. {first['residents']:,} residents, engine version {first['engine_version']},"
        f" revision {first['revision']}, {first['machine']}.",
        "",
        f"[{PAGE_NAME}]({PAGE_NAME}) has the plots (of the last run); what the words and bands mean stands in"
        " [docs/realism.md](../../../docs/realism.md).",
    ]
    group = ""
    for name, title, band, figures in _rows(documents):
        if name != group:
            group = name
            lines += ["", f"## {group}", "", f"| figure | band | {' | '.join(map(_heading, runs))} |"]
            lines += ["|---" * (2 + len(runs)) + "|"]
        cells = [f"{_mark(figure['verdict'])}{figure['value']}" for figure in figures]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (title, band, *cells)) + " |")
    lines += [
        "",
        "## The report on series that are no economy",
        "",
        "| series | passes | band | verdict |",
        "|---|---|---|---|",
    ]
    lines += [f"| {figure.title} | {figure.value} | {figure.band} | {figure.verdict} |" for figure in tests]
    return "\n".join(lines) + "\n"


def _mark(verdict: str) -> str:
    return "" if verdict in (Verdict.HOLDS, Verdict.SHOWN) else f"**{verdict}** "


def _page(runs: tuple[Run, ...], documents: list[dict[str, Any]], tests: list[Any], drawn: list[plots.Plot]) -> str:
    failed = sorted({name for document in documents for name in document["failed"]})
    body = [
        "<h1>Realism of the default settings</h1>",
        page.lead(_verdict(documents), failed),
        page.how_to_read(),
        *_page_tables(runs, documents),
        page.section("The report on series that are no economy", tests),
        f"<h2>Plots: {_heading(runs[-1])}</h2>",
        *(page.show(plot) for plot in drawn),
        page.provenance(),
    ]
    return page.whole("Realism of the default settings", body)


def _page_tables(runs: tuple[Run, ...], documents: list[dict[str, Any]]) -> list[str]:
    parts: list[str] = []
    group = ""
    for name, title, band, figures in _rows(documents):
        if name != group:
            group = name
            heads = "".join(f"<th>{escape(_heading(run))}</th>" for run in runs)
            parts.append(
                ("</table></div>" if parts else "") + f"<h2>{escape(group)}</h2><div class='wide'><table>"
                f"<tr><th>figure</th><th>band</th>{heads}</tr>"
            )
        cells = "".join(
            f"<td>{page.chip(Verdict(figure['verdict']))}<br>{escape(figure['value'])}</td>" for figure in figures
        )
        parts.append(
            f"<tr><td>{escape(title)}<br><span class='real'>real: {escape(figures[0]['reference'])}</span>"
            f"</td><td>{escape(band)}</td>{cells}</tr>"
        )
    return [*parts, "</table></div>"]
