"""The command line: serve is the default, mistakes end with a sentence and a status, help costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import cli
from server.live.world import FolderLock
from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[2]


def arena(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m server` with this Python in the clone."""
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("ARENA_")}, **environ},
        capture_output=True,
        text=True,
        timeout=seconds(60),
        check=False,
    )


def test_help_lists_the_commands_with_examples() -> None:
    """--help names every command that exists, and none that does not."""
    done = arena("--help")

    listed = done.stdout.split("commands:")[1].split("arena COMMAND")[0].split("\n")
    assert done.returncode == 0
    assert [line.split()[0] for line in listed if line.strip()] == list(cli.COMMANDS)
    assert "examples:" in done.stdout


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_each_command_has_help_of_its_own(command: str) -> None:
    """Every command answers --help with its usage and an example."""
    done = arena(command, "--help")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: arena " + command)
    assert "example" in done.stdout


def test_flags_without_a_command_are_those_of_serve(tmp_path: Path) -> None:
    """`python3 -m server --port X` serves: a wrong value is refused by the settings."""
    done = arena("--port", "70000")

    assert done.returncode == cli.USAGE
    assert done.stderr == "arena: port must be a whole number in [0, 65535], got 70000\n"


def test_a_wrong_variable_is_refused_before_anything_starts() -> None:
    """The environment is held to the same ranges as everything else."""
    done = arena("serve", ARENA_TICK_RATE="5")

    assert done.returncode == cli.USAGE
    assert done.stderr == "arena: tick_rate must be a whole number in [10, 60000], got 5\n"


def test_a_missing_settings_file_is_named() -> None:
    """A file that is not there is an error with its name and not a traceback."""
    done = arena("serve", "--config", "no-such.toml")

    assert done.returncode == 1
    assert "no-such.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_in_use_is_a_sentence(tmp_path: Path) -> None:
    """The second server of a folder says whose it is and what to do, without a traceback."""
    lock = FolderLock(tmp_path)
    try:
        done = arena("serve", "--data", str(tmp_path), "--port", "0", "--log-level", "error")
    finally:
        lock.release()

    assert done.returncode == 1
    assert done.stderr == (
        f"arena: {tmp_path} belongs to a running process (id {os.getpid()}):"
        " stop it, or use another folder with --data\n"
    )


def test_an_unknown_command_lists_the_known() -> None:
    """A command nobody knows is refused with those that exist."""
    done = arena("sevre")

    assert done.returncode == cli.USAGE
    assert done.stderr == f"arena: unknown command 'sevre'; there are {', '.join(cli.COMMANDS)}\n"


def test_help_imports_neither_numba_nor_a_server() -> None:
    """Importing the command line compiles nothing, connects to nothing and is quick."""
    script = (
        "import sys; from server.cli import main; main(['--help']);"
        "sys.stderr.write(' '.join(m for m in ('numba', 'uvicorn', 'starlette', 'redis') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stderr == ""


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints one line, in a clone as well."""
    assert cli.main(["--version"]) == 0

    assert capsys.readouterr().out.startswith("arena ")
