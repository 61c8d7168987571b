"""Where a committed number comes from: the commit it was measured at and the machine it was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def revision() -> str:
    """Return the commit the tree stands at, with a plus when files differ from it."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:
            return ""  # no git on this machine
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    # results themselves are written into the tree
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!loadtest/results")
    return f"{commit}{'+' if changed else ''}" if commit else "not a clone"


def this_machine() -> str:
    """Return processor, cores, memory, system and versions that matter, without any name of the host."""
    model, memory = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
        memory = f", {int(Path('/proc/meminfo').read_text().split()[1]) / 1e6:.0f} GB"
    except OSError:
        pass  # not Linux: the processor's name has to do
    return (
        f"{model}, {os.cpu_count()} cores{memory}, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, numba {version('numba')}, numpy {version('numpy')}"
    )
