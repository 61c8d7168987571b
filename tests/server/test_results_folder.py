"""A folder for results is made, or refused before the work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import SettingError
from server.results_folder import make_ready


def test_a_folder_is_made_with_those_above_it_and_left_empty(tmp_path: Path) -> None:
    """Twice is as good as once, and nothing stays in it."""
    for _ in range(2):
        make_ready(tmp_path / "a" / "b")

    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_takes_no_files_is_refused() -> None:
    """Not even root writes to /proc: the option, the folder and the reason are named."""
    with pytest.raises(SettingError, match=r"^--out must be a folder that can be written to \(.+\), got '/proc/self'$"):
        make_ready(Path("/proc/self"))


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    """Of the folder or of one above it; the option is called as the user knows it."""
    (tmp_path / "file").touch()

    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingError, match=r"^--somewhere must be a folder"):
            make_ready(folder, "--somewhere")
