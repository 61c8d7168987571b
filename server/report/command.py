"""`arena report`: records or reads a history, prints every figure with its verdict, writes data and a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from engine.analysis.controls import CONTROLS, Control, control
from engine.analysis.facts import self_test
from engine.analysis.figures import BAND_TICKS, fails
from engine.config import Config
from engine.errors import SettingError
from server.clock import Clock, SystemClock
from server.command_line import refuse, whole
from server.live.errors import FolderInUse, WorldRefused
from server.provenance import ROOT
from server.report import plots
from server.report.document import Report, as_json, as_table, figure_lines, make_report
from server.report.history import RECORDING_NAME, History, keep, read_history, run_headless, say
from server.report.page import render_page
from server.report.suite import run_suite
from server.results_folder import make_ready

HOLDS, FAILS, REFUSED, UNPROVEN = 0, 1, 2, 4
"""Exit status: every band holds; one fails, or the history is too short; there is no history to read; a control that
does not fail its fact."""
TICKS_MAX = 1_000_000
"""A recording of so many ticks takes 0.8 GB of memory."""
SUITE_FOLDER = ROOT / "loadtest" / "results" / "realism"
EXAMPLES = """\
examples:
  arena report --headless                    20,000 ticks of a fresh world: about half a minute
  arena report arena-data --out last-week    what the world of a stopped server did
  arena report --headless --control shuffled a world that must fail, to see that the report can
  arena report --headless --suite --jobs 2   the committed results again: about five minutes
"""


def main(args: Sequence[str], clock: Clock | None = None) -> int:
    """Run the command and return its exit status.

    Raises SettingError, JournalDamaged and OSError for the command line to say.
    """
    options = _parser().parse_args(args)
    _leave_nothing_out(options)
    _check(options)
    try:
        return _report(options, clock or SystemClock())
    except (FolderInUse, WorldRefused) as error:
        return refuse("report", error, REFUSED)


def _report(options: argparse.Namespace, clock: Clock) -> int:
    if options.selftest:
        return _self_test(options)
    if options.suite:
        seeds_hold = run_suite(options.out or SUITE_FOLDER, options.residents, options.jobs, clock, say)
        return HOLDS if seeds_hold else FAILS
    chosen = control(options.control) if options.control else None
    folder = options.out or Path("arena-report")
    make_ready(folder)
    history = _history(options, chosen, clock)
    say("measuring")
    report = make_report(history, chosen)
    sys.stdout.write(_json(as_json(report)) if options.json else as_table(report) + "\n")
    sys.stdout.flush()
    _write(report, folder)
    return status(report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena report",
        description="Hold a history to the stylised facts of markets and economies, each with its band, a reference"
        " and a verdict. Exit status 1 when a band fails.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="data folder of a stopped server, or an earlier report's"
    )
    parser.add_argument("--headless", action="store_true", help="run a fresh world instead of reading one")
    parser.add_argument("--ticks", type=int, metavar="N", help=f"to run, default {BAND_TICKS:,}")
    parser.add_argument("--seed", type=int, metavar="S", help="of what is run or shuffled, default 1")
    parser.add_argument("--residents", type=int, metavar="R", help=f"of what is run, default {Config().residents:,}")
    parser.add_argument("--threads", type=whole(1, 64), default=1, metavar="N", help="1 to 64, default 1")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for data and page, default arena-report")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--selftest", action="store_true", help="hold the report itself to series that must not pass")
    parser.add_argument(
        "--control", metavar="NAME", help=f"a world that must fail: {', '.join(item.name for item in CONTROLS)}"
    )
    parser.add_argument(
        "--suite", action="store_true", help="five seeds of 20,000 ticks and one of 100,000, into loadtest/results"
    )
    parser.add_argument("--jobs", type=whole(1, 64), default=1, metavar="N", help="runs of --suite at once")
    return parser


def _leave_nothing_out(options: argparse.Namespace) -> None:
    """Refuse what has no effect beside what else is given, and put in what was not given."""
    for name, default in (("ticks", BAND_TICKS), ("seed", 1), ("residents", Config().residents)):
        value = getattr(options, name)
        if value is None:
            setattr(options, name, default)
        elif options.folder is not None and not (name == "seed" and options.control):
            raise SettingError(f"--{name}", value, "left out with DIR, which is read as it is: it is for --headless")
        elif options.suite and name != "residents":
            raise SettingError(f"--{name}", value, "left out with --suite, whose worlds have their own")


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together before time is spent on it."""
    if not 1 <= options.ticks <= TICKS_MAX:
        raise SettingError("ticks", options.ticks, f"a whole number in [1, {TICKS_MAX}]")
    if not 0 <= options.seed < 1 << 256:
        raise SettingError("seed", options.seed, "a whole number in [0, 2^256)")
    if options.control:
        control(options.control)
    if options.selftest:
        return
    if (options.folder is None) == (not options.headless):
        given = "both" if options.headless else "neither"
        raise SettingError("DIR and --headless", given, "exactly one of them: a folder to read, or a world to run")
    if options.suite and (options.folder or options.control):
        raise SettingError("--suite", "a folder or a control", "alone with --headless: it runs worlds of its own")
    if options.control and options.folder and options.control != "shuffled":
        raise SettingError("--control", options.control, "shuffled for a recorded history; the others need --headless")


def _history(options: argparse.Namespace, chosen: Control | None, clock: Clock) -> History:
    if options.headless:
        config = Config(residents=options.residents)
        return run_headless(config, options.seed, options.ticks, clock, say, control=chosen, threads=options.threads)
    history = read_history(options.folder, clock, say, threads=options.threads)
    if chosen is None:
        return history
    return History(chosen.recording(history.recording, options.seed), history.metaorders)


def _write(report: Report, folder: Path) -> None:
    (folder / "report.json").write_text(_json(as_json(report)), encoding="utf-8")
    keep(report.history, folder / RECORDING_NAME)
    written = ["report.json", RECORDING_NAME]
    if plots.available():
        (folder / "report.html").write_text(render_page(report, plots.draw_all(report)), encoding="utf-8")
        written.insert(0, "report.html")
    else:
        say(plots.how_to_install())
    say(f"{folder}: {', '.join(written)}")


def status(report: Report) -> int:
    """Return the exit status of a report: that of its bands, or of a control that proves nothing."""
    if report.control is not None and report.control.fails not in report.failed and not report.is_short:
        return UNPROVEN
    return FAILS if report.failed or report.is_short else HOLDS


def _self_test(options: argparse.Namespace) -> int:
    figures = self_test()
    if options.json:
        rows = [{"id": f.id, "value": f.value, "band": f.band, "verdict": f.verdict} for f in figures]
        sys.stdout.write(_json(rows))
    else:
        sys.stdout.write("\n".join(figure_lines("The report on series that are no economy", figures)) + "\n")
    return FAILS if fails(figures) else HOLDS


def _json(document: Any) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode() + "\n"
