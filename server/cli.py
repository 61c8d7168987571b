"""The commands of `arena`, which is `python3 -m server`; without a command it serves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from engine.errors import EngineError, JournalDamaged, SettingError
from server import kernel_cache
from server.config import load, load_gateway
from server.live.errors import LiveError

USAGE = 2
DAMAGED = 3

HELP = """\
usage: arena [COMMAND] [OPTIONS]        (or: python3 -m server [COMMAND] [OPTIONS])

A living economy of 100,000 residents that anyone can join over REST and WebSockets.

commands:
  serve      run the economy and its server (the default)
  gateway    serve streams and reads of an engine that runs elsewhere
  replay     compute a world again from its journal and check every recorded hash
  verify     check every record of a journal, its chain and its snapshots, and say what they are
  keys       make another key for the operator of a world that is stopped
  backup     write a world to one file, encrypted when asked
  restore    make a world from such a file, to its end or to a tick
  report     hold a history to the facts of real markets and economies
  fork       what would have happened if: run a world on from any tick under interventions
  bench      measure this machine's numbers against their bars
  scenario   crash, flood and corner a world, and hold what happens against its untreated twin

  arena COMMAND --help shows what a command takes.

examples:
  arena                                  serve on http://127.0.0.1:8000, world in ./arena-data
  arena serve --port 9000 --data world   another port, another world
  arena gateway --redis redis://127.0.0.1:6379/0 --engine 127.0.0.1:8000
                                         one of many in front of an engine
  arena replay world --check             prove that the journal leads to what was shown
  arena verify world --records           what every record is, in words
  arena report --headless                does it behave like an economy? figures and a page
  arena fork world --at 120000 --without-agent a17
                                         the world without that agent
  arena bench tick_100k --quick          one number, here and now
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that argv (without the program's name) asks for and return the exit status.

    0: done. 1: a check failed. 2: a wrong setting or usage. 3: the journal is damaged.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(HELP)
        return 0
    if arguments[:1] == ["--version"]:
        sys.stdout.write(f"arena {_version()}\n")
        return 0
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "serve"
    command = COMMANDS.get(name)
    if command is None:
        return _refuse(f"unknown command {name!r}; there are {', '.join(COMMANDS)}", USAGE)
    kernel_cache.choose()
    try:
        return command(arguments)
    except SettingError as error:
        return _refuse(str(error), USAGE)
    except JournalDamaged as error:
        return _refuse(str(error), DAMAGED)
    except (EngineError, LiveError, OSError) as error:
        return _refuse(str(error), 1)


def _serve(arguments: list[str]) -> int:
    settings = load(arguments, os.environ)
    from server.app import serve

    return serve(settings) or 0


def _gateway(arguments: list[str]) -> int:
    settings = load_gateway(arguments, os.environ)
    from server.gateway.app import serve

    return serve(settings)


def _replay(arguments: list[str]) -> int:
    from server.live.replay_cmd import main as replay

    return replay(arguments)


def _verify(arguments: list[str]) -> int:
    from server.live.verify_cmd import main as verify

    return verify(arguments)


def _keys(arguments: list[str]) -> int:
    from server.live.keys_cmd import main as keys

    return keys(arguments)


def _backup(arguments: list[str]) -> int:
    from server.live.backup_cmd import backup_main

    return backup_main(arguments)


def _restore(arguments: list[str]) -> int:
    from server.live.backup_cmd import restore_main

    return restore_main(arguments)


def _report(arguments: list[str]) -> int:
    from server.report.command import main as report

    return report(arguments)


def _fork(arguments: list[str]) -> int:
    from server.fork import command

    command.step_back()
    return command.main(arguments)


def _bench(arguments: list[str]) -> int:
    from server.bench import main as bench

    return bench(arguments)


def _scenario(arguments: list[str]) -> int:
    from server.scenarios.command import main as scenario

    return scenario(arguments)


#: Modules are imported when their command is asked for: --help and a wrong flag answer at once.
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "serve": _serve,
    "gateway": _gateway,
    "replay": _replay,
    "verify": _verify,
    "keys": _keys,
    "backup": _backup,
    "restore": _restore,
    "report": _report,
    "fork": _fork,
    "bench": _bench,
    "scenario": _scenario,
}


def _version() -> str:
    try:
        return version("living-economy-arena")
    except PackageNotFoundError:
        return "(a clone, not installed)"


def _refuse(text: str, status: int) -> int:
    sys.stderr.write(f"arena: {text}\n")
    return status
