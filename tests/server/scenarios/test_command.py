"""`arena scenario`: files in, tables out, and a status that tells whether what was promised came."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from server import cli
from server.scenarios.command import main
from server.scenarios.reference import reference
from server.scenarios.suite import load, suite_names

ROOT = Path(__file__).resolve().parents[3]
MINE = """
title = "Rain of money"
shows = "Prices follow money."
residents = 2_000
run_in_days = 3
days = 4
watch = ["unemployment", "volume.food", "is_halted.food"]

[[script]]
do = "join"
agents = "crowd"
count = 5

[[script]]
do = "money"
share = 0.5
hour = 1

[[expect]]
why = "what was printed"
series = "money_supply"
day = 1
low = 0.05
high = 0.4

[[expect]]
series = "money_supply"
take = "recovery"
from_day = 3
low = -0.1
high = {most}
"""


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    """Write a file and return its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def mine(folder: Path, most: float = 0.1) -> str:
    """Write a small scenario of one's own; with `most` below 0 its second expectation fails."""
    return written(folder, MINE.replace("{most}", str(most)))


def test_a_file_of_ones_own_is_run_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Title, response by day, each expectation with figure, band and verdict, what agents did; status 0."""
    status = main([mine(tmp_path)])

    shown = capsys.readouterr().out
    assert status == 0
    assert shown.startswith("mine: Rain of money\n2,000 residents, seed 1, 4 days after 3 of run-in\n")
    assert [line.split()[0] for line in shown.splitlines() if line.endswith("%") and "holds" not in line]
    assert "money_supply ratio, day 1 " in shown
    assert shown.count(" holds") == 2
    assert "note: outside agents sent 5 actions, 0 were refused" in shown


def test_a_broken_promise_ends_with_1_and_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figure and the band stand in one line."""
    status = cli.main(["scenario", mine(tmp_path, most=-0.05)])

    said = capsys.readouterr()
    assert status == 1
    assert "FAILS" in said.out
    [line] = [line for line in said.err.splitlines() if line.startswith("arena:")]
    assert line.startswith("arena: mine: money_supply ratio, recovery, from day 3 is ")
    assert line.endswith(" %, expected -10 % .. -5 %")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = x\n", "is not TOML: Invalid value (at line 1, column 9)"),
        ("title = 'a'\n", "shows is missing; it must be a text"),
        (MINE.replace("{most}", "1") + "colour = 1\n", "mine: expect 2: unknown key 'colour'; allowed: series"),
        (MINE.replace("{most}", "1").replace("0.5", "50"), "script 2 (money): share must be a number in [-0.9, 10]"),
    ],
)
def test_a_malformed_file_is_refused(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, one line, no traceback."""
    assert main([written(tmp_path, text)]) == 2

    error = capsys.readouterr().err
    assert error.startswith("arena: ")
    assert said in error
    assert error.count("\n") == 1


def test_what_is_neither_name_nor_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The names there are, are told."""
    assert main(["market_crush"]) == 2

    assert capsys.readouterr().err.startswith(
        "arena: no scenario and no file 'market_crush'; scenarios are all_bots_leave"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--residents", "5"], "all_bots_leave: residents must be a whole number in [2000, 20000000], got 5"),
        (["--seed", "-1", "market_crash"], "market_crash: seed must be a whole number in"),
        (["--sensitivity", "market_crash"], "--sensitivity moves every parameter: it takes no scenario"),
        (["--sensitivity", "--residents", "5"], "residents must be a whole number in [2000, 20000000], got 5"),
    ],
)
def test_a_wrong_option_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and what is allowed."""
    assert main(arguments) == 2

    assert said in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "1001", "x", "1.5"])
def test_a_wrong_number_of_seeds_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage, what was given and what is allowed."""
    with pytest.raises(SystemExit) as ended:
        main(["market_crash", "--seeds", given])

    assert ended.value.code == 2
    assert f"--seeds: must be a whole number in [1, 1000], got '{given}'" in capsys.readouterr().err


def test_where_nothing_can_be_written_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file stands where the folder of the results should be: that is said before minutes are spent."""
    (tmp_path / "taken").touch()

    assert cli.main(["scenario", "--seeds", "1000", "--out", str(tmp_path / "taken")]) == 2

    assert "--out must be a folder that can be written to" in capsys.readouterr().err


def test_a_scenario_that_the_world_cannot_do_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A find above what reserves may hold is dropped by the world, so the scenario is one that cannot be run."""
    text = MINE.replace("{most}", "1").replace(
        'do = "money"\nshare = 0.5', 'do = "discovery"\nresource = "oil"\nsize = 1'
    )

    assert main([written(tmp_path, text)]) == 2
    assert "a find of 1 would lift reserves above 1.2 x their base" in capsys.readouterr().err


def test_two_scenarios_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their results could not be told apart."""
    assert main([mine(tmp_path), mine(tmp_path)]) == 2

    assert capsys.readouterr().err.startswith("arena: two scenarios are called mine: run one after the other")


def test_several_seeds_give_ranges_and_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each figure's range over the seeds is printed; JSON keeps every figure, CSV the days of the first seed."""
    out = tmp_path / "out"

    status = main([mine(tmp_path), "--seeds", "2", "--seed", "5", "--out", str(out)])

    shown = capsys.readouterr().out
    document = json.loads((out / "scenarios.json").read_text())
    [scenario] = document["scenarios"]
    with (out / "scenarios" / "mine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert status == 0
    assert "2,000 residents, seeds 5, 6" in shown
    assert " .. " in shown
    assert (scenario["name"], scenario["seeds"], scenario["holds"]) == ("mine", [5, 6], True)
    assert [len(expectation["measured"]) for expectation in scenario["expectations"]] == [2, 2]
    assert scenario["expectations"][0]["days"] == [1, 1]
    assert scenario["script"][1] == {"do": "money", "share": 0.5, "hour": 1}
    assert [row["day"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert float(rows[1]["money_supply"]) > float(rows[1]["money_supply untreated"])
    assert set(document) == {"machine", "revision", "scenarios"}


def test_json_is_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json is for programs: one document on standard output, progress elsewhere."""
    main([mine(tmp_path), "--json"])

    assert json.loads(capsys.readouterr().out)["scenarios"][0]["title"] == "Rain of money"


def test_the_suite_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Every scenario that comes with the product, in a line each."""
    assert main(["--list"]) == 0

    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == suite_names()


def test_the_page_carries_the_reference_word_for_word(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/scenarios.md and --reference say the same, made of the rules themselves."""
    assert main(["--reference"]) == 0

    assert capsys.readouterr().out == reference() + "\n"
    assert reference() in (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")


def test_the_pages_own_example_can_be_run(tmp_path: Path) -> None:
    """The file that docs/scenarios.md teaches with is read as it is printed."""
    page = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    [example] = [part.split("```")[0] for part in page.split("```toml\n")[1:]]

    scenario = load(written(tmp_path, example))

    assert scenario.expectations
    assert scenario.steps
