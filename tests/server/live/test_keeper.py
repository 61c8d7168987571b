"""The history of a world in its folder: found again after a stop, a crash, a power cut; what a full disk does to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.live.history import SERIES, SPAN, WAITING_MAX, History, open_history
from server.live.keeper import Keeper
from server.live.series import unpack
from server.live.tiers import DAY
from server.live.view import View
from tests.support.logged import logged
from tests.support.published import EPOCH, World

LIMIT = 100
CPI = SERIES["cpi"]


def opened(folder: Path, limit: int = LIMIT, epoch: str = EPOCH, lost: Callable[[], None] = lambda: None) -> History:
    """Open the history in a folder."""
    return open_history(folder / "history", epoch, limit=limit, days=60, months=10, lost=lost)


def recorded(history: History, views: list[View]) -> None:
    """Record what was published."""
    for view in views:
        history.record(view.tick, view.states, view.tick * 1_000_000_000)


def published(count: int) -> list[View]:
    """Return so many ticks."""
    world = World(tick=100)
    return [world.view() for _ in range(count)]


VIEWS = published(400)


def shown(history: History) -> list[object]:
    """Return what a client can see: the hot ticks of some series, days, candles, whole states."""
    ticks = history.page(SERIES["food.price"], None, None, 1, 1_000)
    days = history.page(CPI, 0, None, DAY, 1_000, aggregate="mean")
    return [
        ticks,
        days,
        history.candles(9, 0, None, DAY, 1_000),
        history.at(history.oldest),
        history.at(history.newest),
    ]


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("overlap", [60, 160])
def test_a_restart_and_a_replay_show_what_was_shown(is_clean: bool, overlap: int, tmp_path: Path) -> None:
    """After a stop, or killed with rows that waited; the replay tells the last ticks again, hot ones or all of them."""
    history = opened(tmp_path)
    recorded(history, VIEWS[:-5])
    history.is_kept = True
    recorded(history, VIEWS[-5:])
    before = shown(history)
    if is_clean:
        history.close()

    again = opened(tmp_path)
    held = again.newest
    recorded(again, VIEWS[-overlap:])

    assert held == (500 if is_clean else 100 + 395 // DAY * DAY)
    assert shown(again) == before
    assert again.points == LIMIT


def test_what_is_newer_than_the_recovered_tick_is_cut(tmp_path: Path) -> None:
    """The ring may know ticks that the journal lost: nobody sees them after the restart."""
    history = opened(tmp_path)
    recorded(history, VIEWS)
    history.close()
    reference = History(LIMIT)
    recorded(reference, VIEWS[:-40])

    again = opened(tmp_path)
    recorded(again, VIEWS[-60:-40])

    assert again.newest == reference.newest
    assert again.page(CPI, None, None, 1, 1_000).rows == reference.page(CPI, None, None, 1, 1_000).rows[-again.points :]
    assert again.at(again.newest + 1) is None
    newest_day = again.page(CPI, 0, None, DAY, 99, aggregate="sum").rows[-1]
    values = [view.numbers["inflation_update"]["cpi"] for view in VIEWS if 456 <= view.tick <= again.newest]
    assert newest_day[:2] == [456, 456_000]
    assert newest_day[2] == pytest.approx(sum(values), rel=1e-12)


def test_a_replay_that_leaves_a_gap_starts_over(tmp_path: Path) -> None:
    """What was kept too long ago does not fit to what is replayed; days before it stay."""
    history = opened(tmp_path)
    recorded(history, VIEWS[:100])
    history.close()

    again = opened(tmp_path)
    recorded(again, VIEWS[150:])

    assert again.page(CPI, None, None, 1, 1_000).ticks == list(range(401, 501))
    days = again.page(CPI, 0, None, DAY, 99).ticks
    assert days == [*range(120, 200 - DAY + 1, DAY), *range(264, 501, DAY)]


@pytest.mark.parametrize(
    ("changes", "held"), [({"limit": 10}, 500), ({"limit": 5_000}, 500), ({"epoch": "f" * 16}, -1)]
)
def test_another_limit_is_taken_another_world_is_not(changes: dict[str, int | str], held: int, tmp_path: Path) -> None:
    """history_limit may be changed over a restart; the history of another world is begun anew, said in the log."""
    history = opened(tmp_path)
    recorded(history, VIEWS)
    history.close()

    with logged() as log:
        again = opened(tmp_path, **changes)  # type: ignore[arg-type]  # of parametrize
    recorded(again, VIEWS[-20:])

    assert again.newest == 500
    assert again.points == (min(again.limit, 400) if held > 0 else 20)
    assert ("history_rebuilt" in log.lines("warning")) == (held < 0)


def test_a_full_disk_costs_memory_then_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once; reads go on over what waits; when there is room again the files go on; what was lost is counted."""
    lost: list[int] = []
    history = opened(tmp_path, limit=1_000, lost=lambda: lost.append(1))
    views = published(WAITING_MAX + 300)
    recorded(history, views[:200])
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with logged() as log:
        recorded(history, views[200:500])
    assert history.points == 500
    assert [row[2] for row in history.page(CPI, None, None, 1, 999).rows] == [
        view.numbers["inflation_update"]["cpi"] for view in views[:500]
    ]
    assert "No space left" in log.lines("error")["history_not_written"]["error"]
    assert lost == []

    recorded(history, views[500:])
    assert history.points == WAITING_MAX
    # those before the first one that waited were on the disk
    assert len(lost) == len(views) - 200 // DAY * DAY - WAITING_MAX

    monkeypatch.setattr(os, "pwrite", real)
    with logged() as log:
        history.flush()
    assert history.waiting == 0
    assert history.points == WAITING_MAX
    assert "history_written_again" in log.lines("info")
    history.close()
    assert opened(tmp_path, limit=1_000).points == WAITING_MAX


def test_a_folder_that_cannot_be_used_leaves_a_history_in_memory(tmp_path: Path) -> None:
    """A file stands in its place: said in the log, everything else works."""
    (tmp_path / "history").write_bytes(b"")

    with logged() as log:
        history = opened(tmp_path)
    recorded(history, VIEWS)

    assert "history_not_kept" in log.lines("error")
    assert history.points == LIMIT
    assert history.at(450) == (dict(VIEWS[349].states), 450_000)


def test_the_keeper_writes_by_the_day_and_everything_when_it_stops(tmp_path: Path) -> None:
    """In its own thread; whoever reads meanwhile sees every tick."""
    history = opened(tmp_path)
    keeper = Keeper(history, None)
    keeper.start()
    for view in VIEWS:
        history.record(view.tick, view.states, view.tick * 1_000_000_000)
        keeper.tick(view.tick)
        assert history.newest == view.tick
        found = history.at(view.tick)
        assert found is not None
        assert found[0] == view.states
    keeper.stop()
    keeper.join()

    assert history.waiting == 0
    again = opened(tmp_path)
    assert (again.newest, again.points) == (500, LIMIT)
    assert unpack(again.hot.read(500, 1)[0]) == VIEWS[-1].states
    assert again.tiers[0].ring.newest == 456


def test_files_stay_as_small_as_what_is_in_them(tmp_path: Path) -> None:
    """Of a young world: 10 KB a tick and 22 KB a day."""
    history = opened(tmp_path, limit=SPAN)
    recorded(history, VIEWS)
    history.close()

    assert sum(path.stat().st_blocks * 512 for path in (tmp_path / "history").iterdir()) < 6_000_000
