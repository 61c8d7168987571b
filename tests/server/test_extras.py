"""What is missing is told with a command that brings it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from server import extras

ROOT = Path(__file__).resolve().parents[2]


def test_requirements_are_those_of_the_extras() -> None:
    """Whoever follows a message gets what `pip install '.[studies,backup]'` would have brought."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert sorted(extras.REQUIREMENTS.values()) == sorted([*named["studies"], *named["backup"]])


def test_the_command_fills_the_python_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own pip; with uv where uv made the environment, which then has none."""
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    assert extras.how_to_install("pyrage") == f"{sys.executable} -m pip install 'pyrage>=1.3'"

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert extras.how_to_install("pyarrow") == f"uv pip install --python {sys.executable} 'pyarrow>=21'"


def test_no_message_names_a_package_that_no_index_has() -> None:
    """An extra cannot be had by the project's name: it is in no index."""
    found = subprocess.run(
        ["git", "grep", "-l", "living-economy-arena" + r"\["], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (found.returncode, found.stdout) == (1, "")
