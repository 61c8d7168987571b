"""The command: what it prints, writes and leaves, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.controls import control
from engine.analysis.figures import BAND_TICKS
from engine.analysis.recording import ASSETS
from engine.errors import SettingError
from engine.markets import MARKETS
from server.clock import ManualClock
from server.report.command import FAILS, HOLDS, REFUSED, UNPROVEN, main, status
from server.report.document import make_report
from server.report.history import RECORDING_NAME, History, keep, load
from tests.support.lively import lively
from tests.support.recordings import healthy

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording in which every band holds."""
    returns, volume = np.zeros((BAND_TICKS, MARKETS), np.int64), np.full((BAND_TICKS, MARKETS), 100, np.int64)
    for m in ASSETS:
        returns[:, m], volume[:, m] = lively(BAND_TICKS, 1)
    folder = tmp_path_factory.mktemp("sound")
    keep(History(healthy(returns=returns, volume=volume)), folder / RECORDING_NAME)
    return folder


def run(*arguments: str) -> int:
    """Run the command in this process."""
    return main(arguments, ManualClock())


def test_a_sound_history_holds(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0, the verdict in the last line, and three files in the folder."""
    assert run(str(sound), "--out", str(tmp_path / "out")) == HOLDS

    assert capsys.readouterr().out.endswith("Every band holds.\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [RECORDING_NAME, "report.html", "report.json"]


def test_a_failing_fact_is_status_1(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The control on the same recording: shuffled returns fail the fact it names, and the output says so."""
    assert run(str(sound), "--control", "shuffled", "--out", str(tmp_path)) == FAILS

    assert "clustering must fail, and it does." in capsys.readouterr().out


def test_json_is_what_is_written(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the document and nothing else; the same stands in report.json."""
    run(str(sound), "--json", "--out", str(tmp_path))

    printed = capsys.readouterr().out
    assert json.loads(printed)["holds"] is True
    assert (tmp_path / "report.json").read_text() == printed


def test_a_short_run_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty ticks of a small world: everything is shown, nothing is NaN, and the status is not 0."""
    assert run("--headless", "--residents", "2000", "--ticks", "50", "--out", str(tmp_path)) == FAILS

    printed = capsys.readouterr().out
    assert "this history has 50" in printed
    assert "needs 2,232 ticks, has 50" in printed
    assert not re.search(r"\bnan\b", printed)


def test_a_control_that_fails_nothing_is_found(sound: Path) -> None:
    """A control whose fact stays is status 4: the report has not proved that it can fail."""
    history = load(sound / RECORDING_NAME)

    assert status(make_report(history, control("shuffled"))) == UNPROVEN
    assert status(make_report(history)) == HOLDS


def test_the_selftest_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """The report on iid normal returns and on GARCH, in a few seconds."""
    assert run("--selftest") == HOLDS

    assert "at most 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "exactly one of them"),
        (("world", "--headless"), "exactly one of them"),
        (("--headless", "--ticks", "0"), r"ticks must be a whole number in \[1, 1000000\], got 0"),
        (("--headless", "--seed", "-1"), "seed must be a whole number"),
        (("--headless", "--residents", "7"), "residents must be a whole number in"),
        (("--headless", "--control", "luck"), "control must be one of iid_orders, "),
        (("world", "--control", "policy_off"), "shuffled for a recorded history; the others need --headless"),
        (("--headless", "--suite", "--control", "shuffled"), "alone with --headless"),
        (("world", "--ticks", "5"), "--ticks must be left out with DIR, .*, got 5"),
        (("world", "--seed", "2"), "--seed must be left out with DIR"),
        (("world", "--residents", "2000"), "--residents must be left out with DIR"),
        (("--headless", "--suite", "--ticks", "5"), "--ticks must be left out with --suite"),
        (("--headless", "--suite", "--seed", "5"), "--seed must be left out with --suite"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], said: str) -> None:
    """Before any time is spent, with what was given and what is allowed."""
    with pytest.raises(SettingError, match=said):
        run(*arguments)


def test_a_folder_without_history_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names what a history would be; the status is not that of a band that fails."""
    assert run(str(tmp_path), "--out", str(tmp_path / "out")) == REFUSED

    assert "holds neither a journal nor" in capsys.readouterr().err


def test_where_nothing_can_be_written_nothing_is_run(tmp_path: Path) -> None:
    """A file stands where the folder should be: that is said before a million ticks are run."""
    (tmp_path / "taken").touch()

    with pytest.raises(SettingError, match="--out must be a folder that can be written to"):
        run("--headless", "--ticks", "1000000", "--out", str(tmp_path / "taken" / "out"))


def test_without_matplotlib_the_figures_still_print(sound: Path, tmp_path: Path) -> None:
    """Data and table come, the page does not, and the message says how to install what is missing."""
    script = (
        "import sys, importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest);"
        "from server.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "report", str(sound), "--out", str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == HOLDS, done.stderr
    assert "Every band holds." in done.stdout
    assert "install" in done.stderr
    assert "'matplotlib>=3.10'" in done.stderr
    assert not (tmp_path / "report.html").exists()
