"""Where a command's results go: whether they can be written is known before the work, not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from engine.errors import SettingError


def make_ready(folder: Path, option: str = "--out") -> None:
    """Make a folder for results, and the folders above it, and see that it takes files.

    option: what the user gave it as. Raises SettingError when it does not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingError(option, str(folder), f"a folder that can be written to ({error.strerror})") from error
