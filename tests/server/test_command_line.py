"""What the commands say alike."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from server.cli import DAMAGED, USAGE
from server.command_line import refuse, whole
from server.live import backup_cmd, keys_cmd, replay_cmd, verify_cmd


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("64", 64), ("007", 7)])
def test_a_whole_number_is_read(text: str, number: int) -> None:
    """Both ends are allowed."""
    assert whole(1, 64)(text) == number


@pytest.mark.parametrize("text", ["0", "65", "-1", "1.0", "", "x", "٣"])
def test_what_is_no_such_number_is_refused_with_the_range(text: str) -> None:
    """Not with a list of all there are."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"^a whole number from 1 to 64, got '{text}'$"):
        whole(1, 64)(text)


def test_a_number_without_an_end() -> None:
    """Only the lower end is said."""
    assert whole(5)("123456789012345678") == 123456789012345678
    with pytest.raises(argparse.ArgumentTypeError, match=r"^a whole number from 5 on, got '4'$"):
        whole(5)("4")


def test_a_refusal_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the command; the status is handed on."""
    assert refuse("verify", OSError("no"), 3) == 3

    assert capsys.readouterr() == ("", "arena verify: no\n")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("replay", replay_cmd.main),
        ("verify", verify_cmd.main),
        ("keys", lambda arguments: keys_cmd.main([*arguments, "--new-operator"])),
        ("backup", lambda arguments: backup_cmd.backup_main([*arguments, "file"])),
    ],
)
def test_every_command_refuses_a_folder_without_a_world_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, command: object
) -> None:
    """Status 2, nothing on stdout."""
    assert callable(command)
    assert command([str(tmp_path)]) == USAGE != DAMAGED

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"arena {name}: {tmp_path} holds no ")
