"""The command: runs scenarios of the suite or of files, or moves every parameter, and says what held."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import ScenarioInvalid
from engine.studies.scenario import run as study
from engine.studies.scenario import sensitivity
from engine.studies.scenario.run import Result
from engine.studies.scenario.script import Scenario
from server.clock import Clock, SystemClock
from server.provenance import revision, this_machine
from server.results_folder import make_ready
from server.scenarios import kept, tables
from server.scenarios.progress import Progress
from server.scenarios.reference import reference
from server.scenarios.suite import load, suite_names

OK, FAILED, USAGE = 0, 1, 2
EXAMPLES = """\
examples:
  arena scenario                             every scenario of the suite
  arena scenario market_crash                one of them
  arena scenario mine.toml --residents 5000  your own file, in a smaller world
  arena scenario --list                      what there is
  arena scenario --reference                 every key a file may have
  arena scenario --seeds 5 --out results     five seeds each; scenarios.json and the series as CSV
  arena scenario --sensitivity               each parameter moved down and up
"""


def main(args: Sequence[str], clock: Clock | None = None) -> int:
    """Run what args names and print it; return 1 when an expectation fails, 2 when a scenario cannot be run."""
    given = _parser().parse_args(args)
    progress = Progress(clock or SystemClock())
    try:
        if given.list:
            _print(_listing())
            return OK
        if given.reference:
            _print(reference())
            return OK
        if given.out:
            make_ready(given.out)
        if given.sensitivity:
            return _sensitivity(given, progress)
        scenarios = [load(name, given.residents, given.seed) for name in given.names or suite_names()]
        names = Counter(scenario.name for scenario in scenarios)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ScenarioInvalid(f"two scenarios are called {twice[0]}: run one after the other, or rename a file")
        return _run_all(scenarios, given, progress)
    except ScenarioInvalid as error:
        progress.clear()
        sys.stderr.write(f"arena: {error}\n")
        return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena scenario",
        description="Run scenarios: a treated world against its untreated twin; status 1 when an expectation fails.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME|FILE", help="of the suite, or a file; default: the suite")
    parser.add_argument("--list", action="store_true", help="list the suite")
    parser.add_argument("--reference", action="store_true", help="print every key a file may have")
    parser.add_argument("--sensitivity", action="store_true", help="move each parameter of the specification instead")
    parser.add_argument("--residents", type=int, metavar="N", help="population, instead of the file's")
    parser.add_argument("--seed", type=int, metavar="S", help="of all chance, instead of the file's")
    parser.add_argument("--seeds", type=_count, metavar="N", help="so many seeds, from the first on; default 1")
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write JSON, and the series as CSV, there")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1_000):
        raise argparse.ArgumentTypeError(f"must be a whole number in [1, 1000], got {text!r}")
    return int(text)


def _run_all(scenarios: list[Scenario], given: argparse.Namespace, progress: Progress) -> int:
    count = given.seeds or 1
    # by seed first: scenarios of a seed share their start and their twin
    planned = [replace(scenario, seed=scenario.seed + k) for k in range(count) for scenario in scenarios]
    told = progress.over("scenarios", study.ticks_of(planned))
    by_name: dict[str, list[Result]] = {}
    for result in study.run_all(planned, told):
        by_name.setdefault(result.scenario.name, []).append(result)
        progress.clear()
        if count == 1 and not given.json:
            _print(tables.result_table(result) + "\n")
    documents = [kept.result_document(results) for results in by_name.values()]
    summary = {"machine": this_machine(), "revision": revision(), "scenarios": documents}
    if given.json:
        _print(json.dumps(summary, indent=1))
    elif count > 1:
        _print("\n\n".join(tables.ranges_table(results) for results in by_name.values()))
    if given.out:
        kept.write(given.out, "scenarios.json", summary)
        for name, results in by_name.items():
            kept.write_series(given.out / "scenarios" / f"{name}.csv", results[0])
    failed = [name for name, results in by_name.items() if not all(result.holds for result in results)]
    for name in failed:
        sys.stderr.write(f"arena: {name}: {tables.failures(by_name[name])}\n")
    return FAILED if failed else OK


def _listing() -> str:
    lines = []
    for name in suite_names():
        scenario = load(name, None, None)
        lines.append(
            f"{name:<32} {scenario.title} ({scenario.config.residents:,} residents, {scenario.days} days,"
            f" {len(scenario.expectations)} expectations)"
        )
    return "\n".join(lines)


def _sensitivity(given: argparse.Namespace, progress: Progress) -> int:
    if given.names:
        raise ScenarioInvalid("--sensitivity moves every parameter: it takes no scenario")
    first = 1 if given.seed is None else given.seed
    seeds = tuple(range(first, first + (given.seeds or len(sensitivity.SEEDS))))
    residents = given.residents or sensitivity.RESIDENTS
    told = progress.over("sensitivity", sensitivity.ticks_of(sensitivity.PARAMETERS, len(seeds)))
    effects = sensitivity.study(residents=residents, seeds=seeds, progress=told)
    progress.clear()
    document = {
        "machine": this_machine(),
        "revision": revision(),
        "residents": residents,
        "seeds": list(seeds),
        "effects": [kept.effect_document(effect) for effect in effects],
    }
    _print(json.dumps(document, indent=1) if given.json else tables.effects_table(effects, residents))
    if given.out:
        kept.write(given.out, "sensitivity.json", document)
    failed = [effect for effect in effects if not effect.holds]
    for effect in failed:
        sys.stderr.write(f"arena: {effect.parameter.spelt}: {effect.figure.text} does not {tables.verb(effect)}\n")
    return FAILED if failed else OK


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
