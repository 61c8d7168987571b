"""`python3 -m tests`: makes the environment when there is none, then checks everything in stages with time budgets.

python3 -m tests                      every stage, with coverage, and a summary
python3 -m tests lint types           some stages
python3 -m tests unit -k auction -x   a stage, the rest goes to pytest
python3 -m tests tests/server -q      plain pytest on what is named
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from server import bootstrap

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
PACKAGES = ("engine", "server", "clients/python/arena_client", "loadtest")
#: Tests of kernels on small inputs. They and those of the phases run a second time interpreted: compiled code reads
#: past an array's end in silence, interpreted code raises.
KERNEL_TESTS = (
    "tests/engine/test_arithmetic.py",
    "tests/engine/test_ladder.py",
    "tests/engine/test_rng.py",
    "tests/engine/test_auction.py",
    "tests/engine/test_order_book.py",
    "tests/engine/test_actions.py",
    "tests/engine/test_receipt_table.py",
    "tests/engine/test_invariants.py",
    "tests/engine/test_kernels.py",
)
PYTEST = (PYTHON, "-m", "coverage", "run", "-m", "pytest", "-q")
#: Status of a pytest in which -k or -m left nothing.
NO_TESTS = 5
#: Commands that run beside each other. No more than two, whatever the machine: each may start servers of its own.
AT_ONCE = min(2, os.cpu_count() or 1)
#: Times the deadlines of tests that run beside others: what they start beside themselves has no processor of its own.
BESIDE_FACTOR = 2.0


@dataclass(frozen=True)
class Stage:
    """Commands that belong together. budget_s: longest the stage may take; more is a failure.

    are_beside: the commands run beside each other, AT_ONCE of them; none needs what another one does.
    """

    name: str
    text: str
    budget_s: float
    commands: tuple[tuple[str, ...], ...]
    environ: dict[str, str] = field(default_factory=dict)
    takes_arguments: bool = False
    are_beside: bool = False


STAGES = (
    Stage(
        "lint",
        "ruff: rules and format",
        60,
        ((PYTHON, "-m", "ruff", "check", "."), (PYTHON, "-m", "ruff", "format", "--check", ".")),
    ),
    Stage(
        "types",
        "mypy --strict; on another processor the kernels are compiled for what follows",
        240,
        ((PYTHON, "-m", "mypy", "--strict", *PACKAGES), (PYTHON, "-m", "tests.support.kernels")),
        # here without coverage, which would follow every line of the compiler
        are_beside=True,
    ),
    Stage(
        "unit",
        "everything but whole servers, kernels compiled",
        1_200,
        # by folder, the longest first, not dealt out test by test: each runs in the order it has alone, so that a
        # failure repeats. What is in no folder named here is in the first
        (
            (*PYTEST, "tests", "--ignore=tests/system", "--ignore=tests/server", "--ignore=tests/engine"),
            (*PYTEST, "tests/server", "--ignore=tests/server/live", "--ignore=tests/server/routes"),
            (*PYTEST, "tests/engine"),
            (*PYTEST, "tests/server/live"),
            (*PYTEST, "tests/server/routes"),
        ),
        takes_arguments=True,
        are_beside=True,
    ),
    Stage(
        "interpreted",
        "the kernels' tests again without compilation",
        360,
        ((*PYTEST, *KERNEL_TESTS), (*PYTEST, "tests/engine/phases")),
        {"NUMBA_DISABLE_JIT": "1"},
        takes_arguments=True,
        are_beside=True,
    ),
    Stage(
        "system",
        "whole servers, whole economies, engines and gateways",
        840,
        ((*PYTEST, "tests/system"),),
        takes_arguments=True,
    ),
)


def main(argv: list[str]) -> int:
    """Run the stages argv names (all when none) and return 0 only when every one passed in its time."""
    bootstrap.enter("tests", bootstrap.DEV, bootstrap.DEV_LOCK)
    if argv[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"{__doc__}\nstages: {', '.join(stage.name for stage in STAGES)}\n")
        return 0
    chosen, rest = _split(argv)
    if rest and not chosen:
        return subprocess.run([PYTHON, "-m", "pytest", *rest], cwd=ROOT, check=False).returncode
    started = time.monotonic()
    stages = chosen or list(STAGES)
    with tempfile.TemporaryDirectory(prefix="arena-tests-") as scratch:
        rows = [(stage, *_run(stage, rest, Path(scratch))) for stage in stages]
        covered = _coverage(Path(scratch))
    failed = [stage.name for stage, verdict, _ in rows if verdict != "passed"]
    # some stages, or some tests of a stage, cannot cover everything
    if not covered and stages == list(STAGES) and not rest:
        failed.append("coverage")
    _say(
        "\n"
        + "\n".join(f"  {stage.name:<12} {verdict:<12} {took:7.1f} s  {stage.text}" for stage, verdict, took in rows)
    )
    _say(f"  {'all' if not failed else 'FAILED: ' + ', '.join(failed)} in {time.monotonic() - started:.1f} s\n")
    return 1 if failed else 0


def _split(argv: list[str]) -> tuple[list[Stage], list[str]]:
    named = {stage.name: stage for stage in STAGES}
    chosen: list[Stage] = []
    rest = list(argv)
    while rest and rest[0] in named:
        chosen.append(named[rest.pop(0)])
    return chosen, rest


def _run(stage: Stage, rest: list[str], scratch: Path) -> tuple[str, float]:
    """Run a stage and return its verdict and how long it took, seconds."""
    factor = float(os.environ.get("ARENA_TEST_TIMEOUT_FACTOR", "1"))
    started = time.monotonic()
    deadline = started + stage.budget_s * factor
    environ = {**os.environ, **stage.environ, "COVERAGE_FILE": str(scratch / f"coverage.{stage.name}")}
    if stage.environ:
        # interpreted and compiled builds must not meet in one cache
        environ["NUMBA_CACHE_DIR"] = str(scratch / f"numba-{stage.name}")
    if stage.are_beside:
        environ["ARENA_TEST_TIMEOUT_FACTOR"] = str(factor * BESIDE_FACTOR)
    commands = [[*command, *(rest if stage.takes_arguments else [])] for command in stage.commands]
    for command in commands:
        _say(f"\n[{stage.name}] {' '.join(Path(word).name if word == PYTHON else word for word in command)}")
    try:
        statuses = _statuses(commands, environ, deadline, AT_ONCE if stage.are_beside else 1)
    except subprocess.TimeoutExpired:
        return "over budget", time.monotonic() - started
    # some of the commands may have none of the tests that were asked for
    told = [status for status in statuses if status != NO_TESTS]
    return "passed" if told and not any(told) else "failed", time.monotonic() - started


def _statuses(commands: list[list[str]], environ: dict[str, str], deadline: float, at_once: int) -> list[int]:
    """Run commands, so many at once, and return their statuses.

    The first one's output is shown as it comes, and that of the others when all have ended, unless they run one by one.
    Raises subprocess.TimeoutExpired behind the deadline, when none of them runs any more.
    """

    def run(command: list[str], output: IO[bytes] | None) -> int:
        left = max(1.0, deadline - time.monotonic())
        return subprocess.run(
            command, cwd=ROOT, env=environ, stdout=output, stderr=output, timeout=left, check=False
        ).returncode

    if at_once == 1:
        return [run(command, None) for command in commands]
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands[1:]]
        for output in reversed(outputs):
            stack.callback(_show, output)
        lanes = stack.enter_context(ThreadPoolExecutor(at_once))
        return list(lanes.map(run, commands, [None, *outputs]))


def _show(output: IO[bytes]) -> None:
    output.seek(0)
    _say(output.read().decode("utf-8", "replace"))


def _coverage(scratch: Path) -> bool:
    """Print what the stages together have executed; return whether it is as much as pyproject.toml asks for."""
    if not any(scratch.glob("coverage.*")):
        return True
    environ = {**os.environ, "COVERAGE_FILE": str(scratch / "coverage")}
    for command in (("combine", "--quiet", str(scratch)), ("report",)):
        done = subprocess.run(
            [PYTHON, "-m", "coverage", *command], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
    _say(f"\n{done.stdout.strip()}")
    return done.returncode == 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
