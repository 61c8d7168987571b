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
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from server import bootstrap

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
PACKAGES = ("engine", "server", "clients/python/arena_client", "loadtest")
#: Tests of kernels on small inputs. They run a second time interpreted: compiled code reads past an array's end in
#: silence, interpreted code raises.
KERNEL_TESTS = (
    "tests/engine/test_arithmetic.py",
    "tests/engine/test_ladder.py",
    "tests/engine/test_rng.py",
    "tests/engine/test_auction.py",
    "tests/engine/test_order_book.py",
    "tests/engine/test_actions.py",
    "tests/engine/test_receipt_table.py",
    "tests/engine/phases",
)
PYTEST = (PYTHON, "-m", "coverage", "run", "-m", "pytest", "-q")
#: Status of a pytest in which -k or -m left nothing.
NO_TESTS = 5
#: Times the deadlines of tests that run beside others: they have a part of the machine only.
BESIDE_FACTOR = 2.0


@dataclass(frozen=True)
class Stage:
    """Commands that belong together. budget_s: longest the stage may take; more is a failure.

    are_beside: the commands run at once, not one after another.
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
        # about the same work; what waits for sockets and files beside what computes. Kept apart by folder, not dealt
        # out test by test: each half runs in the order it has alone, so a failure repeats
        (
            (*PYTEST, "tests", "--ignore=tests/system", "--ignore=tests/server"),
            (*PYTEST, "tests/server"),
        ),
        takes_arguments=True,
        are_beside=True,
    ),
    Stage(
        "interpreted",
        "the kernels' tests again without compilation",
        360,
        ((*PYTEST, *(name for name in KERNEL_TESTS if (ROOT / name).exists())),),
        {"NUMBA_DISABLE_JIT": "1"},
        takes_arguments=True,
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
    full = [[*command, *(rest if stage.takes_arguments else [])] for command in stage.commands]
    together = [full] if stage.are_beside else [[command] for command in full]
    if stage.are_beside:
        environ["ARENA_TEST_TIMEOUT_FACTOR"] = str(factor * BESIDE_FACTOR)
    statuses: list[int] = []
    for commands in together:
        for command in commands:
            _say(f"\n[{stage.name}] {' '.join(Path(word).name if word == PYTHON else word for word in command)}")
        try:
            statuses += _at_once(commands, environ, deadline)
        except subprocess.TimeoutExpired:
            return "over budget", time.monotonic() - started
    # one half may have none of the tests that were asked for
    told = [status for status in statuses if status != NO_TESTS]
    return "passed" if told and not any(told) else "failed", time.monotonic() - started


def _at_once(commands: list[list[str]], environ: dict[str, str], deadline: float) -> list[int]:
    """Run commands beside each other and return their statuses.

    The first one's output is shown as it comes, that of the others when all have ended.
    Raises subprocess.TimeoutExpired behind the deadline, when none of them runs any more.
    """
    with ExitStack() as stack:
        running = []
        for command in commands:
            later = stack.enter_context(tempfile.TemporaryFile()) if running else None
            if later is not None:
                stack.callback(_show, later)
            running.append(subprocess.Popen(command, cwd=ROOT, env=environ, stdout=later, stderr=later))
            stack.callback(_end, running[-1])
        return [process.wait(max(1.0, deadline - time.monotonic())) for process in running]


def _show(output: IO[bytes]) -> None:
    output.seek(0)
    _say(output.read().decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


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
