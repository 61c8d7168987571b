"""The programs in C that benchmarks and load tests need: compiled when first asked for, started, talked to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from loadtest.process import environment

SOURCES = Path(__file__).parent
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread")
SERVER_CORE, RECEIVER_CORE = 0, 1


@cache
def compiled(name: str) -> Path:
    """Return the program made from name.c, kept while this process lives. Raises OSError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError("the receiver is written in C and needs a compiler: install gcc or clang")
    program = Path(_folder().name) / name
    done = subprocess.run(
        [compiler, *FLAGS, "-o", str(program), str(SOURCES / f"{name}.c")], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(f"{name}.c does not compile:\n{done.stderr}")
    return program


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="arena-native-")


class Receiver:
    """receiver.c while it runs: count connections to a port, each subscribed to a channel where one is named.

    core: of the processor it stays on, None for any. is_polling: it never sleeps, so that nobody pays for waking it.
    """

    def __init__(
        self,
        port: int,
        count: int,
        channel: str | None = None,
        *,
        core: int | None = RECEIVER_CORE,
        is_polling: bool = False,
    ) -> None:
        self._process = subprocess.Popen(
            [str(compiled("receiver")), str(port), str(count), *([channel] if channel else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        _pin(self._process.pid, core)
        self.opened = self._read()
        if self.opened["open"] != count:
            raise RuntimeError(f"{self.opened['open']} of {count} connections opened")
        if is_polling:
            self.command("poll")

    def __enter__(self) -> Receiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def command(self, line: str) -> dict[str, Any]:
        """Give a command of receiver.c and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the receiver ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Sender:
    """A program that speaks as loadtest.peers.broadcasting does, while it runs. core: as for the receiver."""

    def __init__(self, command: list[str], *, core: int | None = SERVER_CORE) -> None:
        root = SOURCES.parents[1]
        found = environment()
        self._process = subprocess.Popen(
            command,
            cwd=root,
            env={**found, "PYTHONPATH": os.pathsep.join([str(root), found["PYTHONPATH"]])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        _pin(self._process.pid, core)
        self.port = int(self._read())

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, ticks: int) -> None:
        """Let it tick, without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{ticks}\n")
        self._process.stdin.flush()

    def run(self, ticks: int) -> int:
        """Let it tick and return how many frames it has sent."""
        self.begin(ticks)
        return int(self._read())

    def cpu_ns(self) -> int:
        """Return the processor time of all its threads so far."""
        return cpu_ns(self._process.pid)

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return line


class Stalls:
    """stalls.c while it runs: knows when the machine did not run a thread that comes before all others.

    is_granted: whether the system let it have such threads; without them it knows of none.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(compiled("stalls"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.is_granted: bool = self._read()["granted"]

    def __enter__(self) -> Stalls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def report(self) -> list[tuple[float, float]]:
        """Return from when to when the machine stood still so far (monotonic seconds), each processor's for itself."""
        assert self._process.stdin is not None
        self._process.stdin.write("report\n")
        self._process.stdin.flush()
        return [(begin, end) for begin, end in self._read()["stalls"]]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def cpu_ns(pid: int) -> int:
    """Return the processor time of all threads of a process, to the nanosecond (Linux)."""
    return sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def _pin(pid: int, core: int | None) -> None:
    if core is not None and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(pid, {core})
