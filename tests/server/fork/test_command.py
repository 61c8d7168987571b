"""arena fork: what it writes, prints and leaves, over folders at rest and folders in use."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from engine.fork import ADDED_AGENTS
from engine.markets import NAMES
from engine.messages import Kind
from server.clock import ManualClock
from server.fork import results
from server.fork.command import NICE, main
from server.fork.page import PLOTTED
from server.live.journal import segment_paths
from server.live.rewind import economy_at
from server.live.world import FolderLock, read_genesis
from server.report import plots
from tests.support.deadlines import seconds
from tests.support.live import WARM_UP_TICKS, live_world

GOOD = 12
START = WARM_UP_TICKS - 1
TICKS = 30
ROOT = Path(__file__).resolve().parents[3]


class Lived:
    """A folder with a recorded world. agents: ids; joined: the ticks they registered in; last: hash at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agents: list[str] = []
        self.joined: list[int] = []
        self.last = b""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """Return a world in which two agents traded, the second from the tenth tick on."""
    lived = Lived(tmp_path_factory.mktemp("fork") / "world")

    async def live() -> None:
        async with live_world(lived.folder, snapshot_ticks=10, resume_frames=4) as arena:
            numbers: list[int] = []
            for tick in range(TICKS):
                if tick in (0, 10):
                    lived.joined.append(arena.world.economy.tick + 1)
                    numbers.append((await arena.register(f"key {tick}")).agent)
                for number in numbers:
                    arena.act(number, f"a-{tick}", Kind.MARKET, market=GOOD, side=1, quantity=40)
                await arena.tick()
            lived.agents = [f"a{number}" for number in numbers]
            lived.last = arena.world.economy.state_hash()

    asyncio.run(live())
    return lived


def test_nothing_changed_is_the_original(world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both hashes are the recorded last one, no series differs, and it says so."""
    status = main([str(world.folder), "--at", str(START + 3), "--out", str(tmp_path / "out")])

    printed, document = capsys.readouterr().out, told(tmp_path / "out")
    assert status == 0
    assert document["original_hash"] == document["branch_hash"] == world.last.hex()
    assert document["hashes_checked"] >= 1
    assert "branch the same" in printed
    assert printed.endswith("no series differs: the branch is the original\n")


def test_a_fork_names_its_parent_and_itself(world: Lived, tmp_path: Path) -> None:
    """Its own epoch, the parent's epoch, tick and hash there; files with their checksums; the seed nowhere."""
    for name in ("one", "two"):
        run(world, tmp_path / name, "--without-agent", world.agents[1], at=START + 3)

    genesis, one, two = read_genesis(world.folder), told(tmp_path / "one"), told(tmp_path / "two")
    assert one["epoch"] != two["epoch"]
    parent_hash = economy_at(world.folder, START + 3).economy.state_hash().hex()
    assert one["parent"] == two["parent"] == {"epoch": genesis.epoch, "tick": START + 3, "state_hash": parent_hash}
    assert one["interventions"] == {"without_agents": [world.agents[1]]}
    assert one["branch_hash"] == two["branch_hash"] != one["original_hash"] == world.last.hex()
    assert [file["name"] for file in one["files"]] == [results.PARQUET, results.PAGE]
    for file in one["files"]:
        data = (tmp_path / "one" / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    everything = b"".join(path.read_bytes() for path in (tmp_path / "one").iterdir())
    assert genesis.seed.encode() not in everything
    assert bytes.fromhex(genesis.seed) not in everything


def test_the_series_are_those_of_both_worlds(world: Lived, tmp_path: Path) -> None:
    """A line per series and tick, equal until the agent's registration, with the agent's wealth in the original."""
    run(world, tmp_path / "out", "--without-agent", world.agents[1])

    table = pyarrow.parquet.read_table(tmp_path / "out" / results.PARQUET).to_pylist()
    price = [row for row in table if row["series"] == f"market.{NAMES[GOOD]}.price"]
    wealth = [row for row in table if row["series"] == f"agent.{world.agents[1]}.wealth"]
    assert tuple(table[0]) == results.COLUMNS
    assert [row["tick"] for row in price] == list(range(START + 1, START + TICKS + 1))
    assert {row["difference"] for row in price if row["tick"] < world.joined[1]} == {0.0}
    assert price[-1]["difference"] == price[-1]["branch"] - price[-1]["original"] < 0.0
    assert price[-1]["cumulative"] == pytest.approx(sum(row["difference"] for row in price))
    assert wealth[-1]["original"] != 0.0 == wealth[-1]["branch"]
    assert next(row["tick"] for row in wealth if row["original"]) > world.joined[1]


def test_copies_give_bands_in_every_output(world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Low and high in the series, in the manifest's effects, in the table and on the page; the first pair stays."""
    run(world, tmp_path / "alone", "--without-agent", world.agents[1])
    run(world, tmp_path / "out", "--without-agent", world.agents[1], "--copies", "3", "--ticks", "40")

    rows = pyarrow.parquet.read_table(tmp_path / "out" / results.PARQUET).to_pylist()
    name = "indicators.money_supply"
    last = next(row for row in reversed(rows) if row["series"] == name)
    effect = next(one for one in told(tmp_path / "out")["effects"] if one["series"] == name)
    assert last["difference_low"] < last["difference"] < last["difference_high"]
    assert effect["low"] < effect["difference"] < effect["high"]
    assert (told(tmp_path / "out")["copies"], told(tmp_path / "out")["confidence"]) == (3, 0.95)
    assert "95 % band" in capsys.readouterr().out
    assert "3 pairs of worlds" in (tmp_path / "out" / results.PAGE).read_text()
    alone = pyarrow.parquet.read_table(tmp_path / "alone" / results.PARQUET).to_pylist()
    first = {(row["series"], row["tick"]): row["branch"] for row in rows}
    assert {(row["series"], row["tick"]): row["branch"] for row in alone}.items() <= first.items()
    assert all(math.isnan(row["difference_low"]) for row in alone)


def test_the_page_has_everything_in_itself(world: Lived, tmp_path: Path) -> None:
    """Plots, the table and the interventions; no script, nothing loaded from anywhere."""
    run(world, tmp_path / "out", "--without-agent", world.agents[1])

    page = (tmp_path / "out" / results.PAGE).read_text()
    assert page.count("<img") == min(PLOTTED, sum(bool(one["difference"]) for one in told(tmp_path / "out")["effects"]))
    assert world.agents[1] in page
    assert not re.search(r"<script|<link|(src|href)=['\"](?!data:)|url\(|@import", page)


def test_a_file_of_interventions_is_carried_out(
    world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An event, a setting and actions of a new agent; what became of the actions is told."""
    file = tmp_path / "what_if.toml"
    file.write_text(
        """
        [[event]]
        at = 30
        name = "catastrophe_struck"
        resource = "oil"
        size = 0.5
        [[agent]]
        name = "buyer"
        at = 31
        [[action]]
        at = 32
        agent = "buyer"
        type = "market"
        market = "food"
        side = "buy"
        quantity = 5
        every = 10
        [[action]]
        at = 32
        agent = "buyer"
        type = "repay"
        amount = 1
        """
    )

    run(world, tmp_path / "out", "--with", str(file))

    printed, document = capsys.readouterr().out, told(tmp_path / "out")
    assert [(one["type"], one["outcome"], one["count"]) for one in document["added_actions"]] == [
        ("market", "filled", 3),
        ("register", "done", 1),
        ("repay", "rejected", 1),
    ]
    assert "added repay: 1 rejected: the amount is above the debt (204)" in printed
    reserves = next(one for one in document["effects"] if one["series"] == "resource.oil.reserves")
    assert reserves["relative"] < -0.2
    assert any(one["series"] == f"agent.a{ADDED_AGENTS}.wealth" for one in document["effects"])


def test_a_folder_in_use_can_be_forked_and_is_left_alone(world: Lived, tmp_path: Path) -> None:
    """Its owner holds the lock; nothing in the folder changes."""
    lock = FolderLock(world.folder)
    before = {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}

    status = run(world, tmp_path / "out", "--ticks", "3")

    assert status == 0
    assert {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()} == before
    lock.release()


def test_without_the_extra_series_are_csv_and_that_is_said(
    world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pyarrow, no matplotlib: the same numbers as text, no page, and how to get both."""
    run(world, tmp_path / "with", "--without-agent", world.agents[1])
    monkeypatch.setattr(results, "find_spec", lambda name: None)
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    capsys.readouterr()

    status = run(world, tmp_path / "out", "--without-agent", world.agents[1])

    printed = capsys.readouterr().out
    assert status == 0
    assert "series as CSV: Parquet needs pyarrow" in printed
    assert "no page: plots need matplotlib" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [results.MANIFEST, results.CSV]
    with (tmp_path / "out" / results.CSV).open(newline="") as text:
        rows = list(csv.DictReader(text))
    parquet = pyarrow.parquet.read_table(tmp_path / "with" / results.PARQUET).to_pylist()
    assert [(row["series"], int(row["tick"]), float(row["branch"])) for row in rows] == [
        (row["series"], row["tick"], row["branch"]) for row in parquet
    ]


def test_json_goes_to_stdout_alone(world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a program reads is the manifest; progress and remarks go beside."""
    status = run(world, tmp_path / "out", "--json", "--ticks", "2")

    printed = capsys.readouterr()
    assert status == 0
    assert json.loads(printed.out) == told(tmp_path / "out")
    assert "forking at tick" in printed.err


def test_what_one_may_not_expect_is_said(world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent that was there already falls silent only; ticks behind the record have no recorded inputs."""
    run(world, tmp_path / "out", "--without-agent", world.agents[0], "--ticks", "60", at=START + 5)

    printed = capsys.readouterr().out
    assert f"{world.agents[0]} registered before tick {START + 6}: it does nothing any more" in printed
    assert f"the record ends at tick {START + TICKS}: nobody recorded acts in the last 35 ticks" in printed


def test_progress_is_told_once_a_second(world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rewinding and forking say how far they are."""

    class Hurried(ManualClock):
        def monotonic(self) -> float:
            self.advance(2.0)
            return super().monotonic()

    main([str(world.folder), "--at", str(START + 9), "--out", str(tmp_path / "out")], Hurried())

    printed = capsys.readouterr().out
    assert re.search(rf"^rewinding: \d+ of {START + 9}$", printed, re.MULTILINE)
    assert f"forking: {TICKS - 9} of {TICKS - 9}" in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--at", "5000"), f"tick 5000 is not recorded; the journal holds ticks {START} to {START + TICKS}"),
        (("--at", str(START), "--without-agent", "a999"), "without_agents must be one of a"),
        (("--at", str(START), "--without-agent", "17"), "without_agents must be one of a"),
        (("--at", str(START), "--with", "nowhere.toml"), "nowhere.toml"),
        (("--at", str(START + TICKS)), f"--ticks must be given: the record ends at tick {START + TICKS}"),
    ],
)
def test_what_cannot_be_forked_leaves_2_and_no_folder(
    world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    """Wrong ticks, agents and files are named with what is allowed, and nothing is made."""
    status = main([str(world.folder), *options, "--out", str(tmp_path / "out")])

    assert status == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err[:12]) == ("", "arena fork: ")
    assert said in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--at=-1",), "argument --at: a whole number from 0"),
        (("--at", "1", "--copies", "0"), "argument --copies: a whole number from 1 to 1000, got '0'"),
        (("--at", "1", "--ticks", "0"), "argument --ticks: a whole number from 1"),
        (("--at", "1", "--threads", "65"), "argument --threads: a whole number from 1 to 64"),
        ((), "the following arguments are required: --at"),
    ],
)
def test_a_wrong_option_shows_the_usage(capsys: pytest.CaptureFixture[str], option: tuple[str, ...], said: str) -> None:
    """Status 2 and what is allowed."""
    with pytest.raises(SystemExit) as raised:
        main(["world", *option])

    assert raised.value.code == 2
    assert said in capsys.readouterr().err


def test_results_are_never_written_over(world: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds something is refused before anything is computed."""
    (tmp_path / "mine").write_text("kept")

    status = run(world, tmp_path)

    assert status == 2
    assert f"--out must be a new or empty folder, got '{tmp_path}'" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "kept"


def test_damage_leaves_3_and_a_world_that_differs_1(world: Lived, tmp_path: Path) -> None:
    """As the other commands that read a journal."""
    shutil.copytree(world.folder, tmp_path / "damaged")
    shutil.rmtree(tmp_path / "damaged" / "snapshots")
    path = segment_paths(tmp_path / "damaged")[0]
    data = bytearray(path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes()))
    data[1_200] ^= 1
    path.write_bytes(data if path.suffix != ".gz" else gzip.compress(data))
    damaged = Lived(tmp_path / "damaged")

    assert run(damaged, tmp_path / "out", at=START + 5) == 3


def test_the_process_steps_back() -> None:
    """The command lowers its own priority before it works."""
    program = "import os; from server.fork.command import step_back; step_back(); print(os.nice(0))"
    before = os.nice(0)

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/clients/python"},
        capture_output=True, text=True, timeout=seconds(60), check=True,
    )  # fmt: skip

    assert int(done.stdout) == min(19, before + NICE)


def run(world: Lived, out: Path, *options: str, at: int = START) -> int:
    """Fork a world into a folder and return the exit status."""
    return main([str(world.folder), "--at", str(at), "--out", str(out), *options])


def told(folder: Path) -> dict[str, Any]:
    """Return a fork's manifest."""
    document: dict[str, Any] = json.loads((folder / results.MANIFEST).read_text())
    return document
