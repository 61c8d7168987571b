"""Document 004's sixteen options: each arrives by file, environment and flag, has bounds, and does what it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.auction import ASSETS
from engine.config import Config
from engine.economy import Economy
from engine.events import CATASTROPHE, DISCOVERY, TickReport
from engine.markets import HOURS, ID, NAMES
from engine.messages import Reject
from server import cli
from server.clock import ManualClock
from server.config import DOCUMENT_NAMES, Settings, load
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.deadlines import seconds

#: Default, lowest and highest value of each option.
OPTIONS: dict[str, tuple[float, float, float]] = {
    "maxAgents": (100_000, 1, 1_000_000),
    "tickRate": (100, 10, 60_000),
    "marketOpenHours": (24, 1, 24),
    "baseInflationRate": (0.02, 0.0, 0.5),
    "volatilityThreshold": (0.1, 0.001, 10.0),
    "maxPriceChange": (0.5, 0.01, 0.5),
    "cacheExpiry": (5_000, 0, 3_600_000),
    "rateLimit": (1_000, 1, 10_000_000),
    "historyLimit": (1_000, 10, 100_000),
    "sentimentWeight": (0.4, 0.0, 2.0),
    "fearWeight": (0.3, 0.0, 2.0),
    "greedWeight": (0.3, 0.0, 2.0),
    "herdingThreshold": (0.7, 0.0, 2.0),
    "depletionRate": (0.001, 0.0, 0.1),
    "discoveryProbability": (0.005, 0.0, 1.0),
    "catastropheProbability": (0.0001, 0.0, 1.0),
}
OURS = {spelt: name for name, spelt in DOCUMENT_NAMES.items()}
SMALL = {"residents": 2_000, "maxAgents": 64, "order_book_max": 4_096}
SEED = 3
each_option = pytest.mark.parametrize("option", OPTIONS)


# --- how they arrive ---------------------------------------------------------------------------------------------
@each_option
def test_a_flag_wins_over_the_environment_and_that_over_the_file(option: str, tmp_path: Path) -> None:
    """Each way alone sets the option; of several the later one counts; without any it is document 004's value."""
    default, low, high = OPTIONS[option]
    name, middle = OURS[option], type(default)((low + high) / 2)
    file, environ = ["--config", str(written(tmp_path, {option: low}))], {f"ARENA_{name.upper()}": str(high)}
    flag = [f"--{name.replace('_', '-')}", str(middle)]

    settings = [
        load([], {}),
        load(file, {}),
        load([], environ),
        load(flag, {}),
        load(file, environ),
        load([*file, *flag], {}),
        load([*file, *flag], environ),
    ]

    assert [one.value(name) for one in settings] == [default, low, high, middle, high, middle, middle]


@each_option
def test_out_of_range_is_refused_with_field_value_and_range(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 2 and one sentence, by whichever way the value came, before anything was made."""
    default, low, high = OPTIONS[option]
    name, step = OURS[option], 1 if isinstance(default, int) else 0.01
    data = tmp_path / "never"
    said: list[tuple[int, str]] = []
    values = [low - step, high + step]
    for value in values:
        flag = f"--{name.replace('_', '-')}={value}"
        file = ["--config", str(written(tmp_path, {option: value}))]
        for arguments, environ in ((file, ""), ([], str(value)), ([flag], "")):
            with monkeypatch.context() as patch:
                if environ:
                    patch.setenv(f"ARENA_{name.upper()}", environ)
                said.append((cli.main(["serve", "--data", str(data), *arguments]), capsys.readouterr().err))

    kind = "a whole number" if isinstance(default, int) else "a number"
    expected = [f"arena: {name} must be {kind} in [{low}, {high}], got {value}\n" for value in values for _ in range(3)]
    assert said == [(cli.USAGE, text) for text in expected]
    assert not data.exists()


# --- what they do: agents, time, answers -------------------------------------------------------------------------
async def test_max_agents_is_where_registration_ends(tmp_path: Path) -> None:
    """One more is answered 409, and the world has as many as it may."""
    async with serving(tmp_path, maxAgents=3) as arena:
        for _ in range(3):
            await arena.register()
        async with arena.client() as client:
            response = await client.post("/api/agents/register")
            info = (await client.get("/api/indicators")).json()

    assert (response.status_code, response.json()["code"]) == (409, Reject.AGENTS_FULL)
    assert "3 agents" in response.json()["detail"]
    assert info["values"]["agents"] == 3


@pytest.mark.parametrize("tick_rate", [100, 250])
async def test_tick_rate_is_the_time_between_deadlines(tmp_path: Path, tick_rate: int) -> None:
    """A tick is due every tickRate ms and not a millisecond earlier; the stream's hello says so."""
    async with serving(tmp_path, tickRate=tick_rate) as arena:
        await arena.step(4)
        deadlines = [start.deadline for start in arena.ticker.starts]
        clock, tick = arena.clock, arena.tick
        assert isinstance(clock, ManualClock)
        clock.advance(tick_rate / 1_000 - 0.001)
        async with arena.client() as client:
            early = (await client.get("/api/time")).json()["tick"]
        # a little more than what is left: sums of floats may stop short of a deadline
        clock.advance(0.001_001)
        async with asyncio.timeout(seconds(20)):
            await arena.ticker.wait_tick(tick + 1)
        hello = arena.hub.hello()

    assert np.diff(deadlines) == pytest.approx(tick_rate / 1_000)
    assert early == tick
    assert hello["tick_rate_ms"] == tick_rate


async def test_cache_expiry_is_how_long_an_answer_is_given_again(tmp_path: Path) -> None:
    """A range of the past keeps its answer until then, even when its beginning is no longer kept."""
    rows: dict[int, list[int]] = {}
    for expiry in (1_000, 0):
        async with serving(tmp_path, cacheExpiry=expiry, historyLimit=10, tickRate=100) as arena:
            await arena.step(9)
            first, last = arena.tick - 9, arena.tick - 2
            path = f"/api/history/cpi?from={first}&to={last}"
            rows[expiry] = []
            async with arena.client() as client:
                for steps in (0, 5, 4, 1):
                    await arena.step(steps)
                    response = await client.get(path)
                    rows[expiry].append(len(response.json()["rows"]))
            assert response.headers["cache-control"] == ("public, max-age=1" if expiry else "public, no-cache")

    assert rows == {1_000: [8, 8, 8, 0], 0: [8, 3, 0, 0]}


async def test_rate_limit_is_the_requests_a_minute_and_key(tmp_path: Path) -> None:
    """A tenth of them at once, then 429 with Retry-After; over a minute as many as it says; other keys feel nothing."""
    async with serving(tmp_path, rateLimit=60) as arena:
        bot, other = await arena.register(), await arena.register()
        burst = await statuses(arena, bot, 7)
        async with arena.client(bot.api_key) as client:
            refused = await client.get("/api/time")
        unaffected = await statuses(arena, other, 1)
        taken = 0
        for _ in range(60):
            arena.clock.advance(1.0)  # type: ignore[attr-defined]  # a server stepped by hand has a ManualClock
            taken += (await statuses(arena, bot, 2)).count(200)

    assert burst == [200] * 6 + [429]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["x-ratelimit-limit"] == "60"
    assert unaffected == [200]
    assert taken == 60


async def test_history_limit_is_the_points_kept_of_each_series(tmp_path: Path) -> None:
    """The newest so many, of every series; an older tick is gone."""
    kept: dict[int, list[int]] = {}
    for limit in (10, 1_000):
        async with serving(tmp_path, historyLimit=limit) as arena:
            await arena.step(14)
            last = arena.tick
            async with arena.client() as client:
                answers = [
                    (await client.get(f"/api/history/{series}")).json()["ticks"]
                    for series in ("cpi", "food.price", "oil.reserves")
                ]
            assert answers == [answers[0]] * 3
            kept[limit] = [tick - last for tick in answers[0]]

    assert kept[10] == list(range(-9, 1))
    assert kept[1_000] == list(range(-14, 1))


# --- what they do: markets ---------------------------------------------------------------------------------------
def test_market_open_hours_close_the_asset_markets_for_the_rest_of_the_day() -> None:
    """Outside the hours the 15 asset markets trade nothing and keep their prices; all others go on."""
    short, whole = (lived(config(marketOpenHours=hours), 2 * HOURS) for hours in (8, 24))

    closed = [report for report in short if report.tick % HOURS >= 8]
    # in the very first tick nobody has decided anything yet
    opened = [report for report in short if report.tick % HOURS < 8 and report.tick > 0]
    assert len(closed) == 32
    assert all(report.public.market["volume"][list(ASSETS)].sum() == 0 for report in closed)
    assert all((report.public.market["return_bp"][list(ASSETS)] == 0).all() for report in closed)
    assert all(report.public.market["volume"][list(ASSETS)].sum() > 0 for report in opened)
    assert sum(int(report.public.market["volume"][ID["food"]]) for report in closed) > 0
    assert all(report.public.market["volume"][list(ASSETS)].sum() > 0 for report in whole[1:])


async def test_orders_rest_while_the_markets_are_closed(tmp_path: Path) -> None:
    """A bid far above the price stands through the closed hours and is filled in the first open one."""
    async with serving(tmp_path, marketOpenHours=8) as arena:
        bot = await arena.register()
        while (arena.tick + 1) % HOURS != 20:
            await arena.step()
        price = float(arena.parts.published.view.numbers["market_tick"]["price"][ID["oil"]])
        order = {"type": "limit", "market": "oil", "side": "buy", "quantity": 1, "price": f"{price * 1.3:.6f}"}
        placed = await bot.decided({"client_action_id": "rests", **order})
        at_once = await bot.decided({"client_action_id": "ioc", **order, "time_in_force": "ioc"})
        await arena.step(HOURS - 1 - arena.tick % HOURS)
        waiting = (await bot.receipt("rests"))["outcome"]["status"]
        await arena.step()
        after = (await bot.receipt("rests"))["outcome"]

    assert (placed["status"], waiting) == ("resting", "resting")
    assert (at_once["status"], at_once["code"]) == ("rejected", Reject.MARKET_CLOSED)
    assert (after["status"], after["filled"]) == ("filled", 1)


def test_max_price_change_bounds_every_move_of_a_tick() -> None:
    """At 1 % no price moves by more in a tick, with or without trade; at 50 % some do."""
    moves = {}
    for change in (0.01, 0.5):
        prices = np.array([report.public.market["price"] for report in lived(config(maxPriceChange=change), 3 * HOURS)])
        moves[change] = np.abs(prices[1:] / prices[:-1] - 1.0).max()

    assert 0.009 < moves[0.01] <= 0.01
    assert 0.01 < moves[0.5] <= 0.5


def test_volatility_threshold_is_where_a_volatility_event_begins() -> None:
    """An event begins in exactly the markets whose realised volatility of a day passes ten times the threshold."""
    started = {}
    for threshold in (0.005, 10.0):
        reports = lived(config(volatilityThreshold=threshold), HOURS)
        started[threshold] = {
            event.data["market"] for report in reports for event in report.events if event.name == "volatility_began"
        }
        highest = np.max([report.public.market["volatility_day"] for report in reports], axis=0)
        expected = {NAMES[m] for m in range(1, len(NAMES)) if highest[m] > 10 * threshold}
        assert started[threshold] == expected

    assert len(started[0.005]) > 5
    assert not started[10.0]


# --- what they do: money -----------------------------------------------------------------------------------------
def test_base_inflation_rate_is_the_base_term_of_inflation_and_its_target() -> None:
    """At the first day's end formula, expectation, transfers and interest have moved the way the rate says."""
    low, high = (lived(config(baseInflationRate=rate), HOURS)[-1].public.monetary for rate in (0.02, 0.08))

    assert (low["term_base"], high["term_base"]) == (0.02, 0.08)
    # the base is the neutral growth of money as well: a quarter of it comes off the money term
    assert high["inflation_formula"] - low["inflation_formula"] == pytest.approx(0.06 - 0.25 * 0.06)
    assert high["expected_inflation"] > low["expected_inflation"]
    assert high["transfer"] > low["transfer"]
    assert high["policy_rate"] < low["policy_rate"]


# --- what they do: minds -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("option", "mood"), [("sentimentWeight", "extremity"), ("fearWeight", "fear"), ("greedWeight", "greed")]
)
def test_a_psychology_weight_is_how_much_its_mood_counts(option: str, mood: str) -> None:
    """The volatility multiplier of the world and of each market grows by weight x mood; shocks of traders with it."""
    reports: list[TickReport] = []
    shocks = []
    for weight in (0.0, 1.5):
        economy = Economy(config(**{option: weight}), SEED)
        economy.state.sentiment[:] = 20_000
        economy.state.greed[:] = 12_000
        reports.append(economy.advance())
        shocks.append(economy.state.sigma_q4[ID["oil"]])

    without, with_it = reports
    moods = without.public.psychology
    assert moods[mood] > 0.03
    assert with_it.public.psychology[mood] == moods[mood]
    grown = with_it.public.psychology["volatility_multiplier"] - moods["volatility_multiplier"]
    assert grown == pytest.approx(1.5 * moods[mood])
    by_market = with_it.public.market["volatility_multiplier"] - without.public.market["volatility_multiplier"]
    assert by_market[1:] == pytest.approx(1.5 * without.public.market[mood][1:])
    assert shocks[1] > shocks[0]


def test_herding_threshold_is_what_a_crowd_must_reach_to_panic() -> None:
    """The same frightened crowd panics below 0.7 x the threshold of its herding factor, and does not above."""
    panicking = {}
    for threshold in (0.7, 1.2, 1.4, 2.0):
        economy = Economy(config(herdingThreshold=threshold), SEED)
        economy.state.sentiment[:] = 10_000
        economy.state.fear[:] = 20_000
        report = economy.advance()
        began = [event for event in report.events if event.name == "panic_began"]
        herding = report.public.market["herding"][1:]
        assert 0.84 < herding.min() <= herding.max() < 0.98
        assert report.public.market["is_panic"].sum() == len(began) == report.public.psychology["panic_markets"]
        panicking[threshold] = len(began)

    assert panicking == {0.7: 31, 1.2: 31, 1.4: 0, 2.0: 0}


# --- what they do: resources -------------------------------------------------------------------------------------
def test_depletion_rate_is_the_share_of_the_reserves_that_may_be_extracted() -> None:
    """The quota follows it; at 0 nothing leaves the ground."""
    quotas, extracted = {}, {}
    for rate in (0.0, 0.001, 0.002):
        reports = lived(config(depletionRate=rate), 6)
        quotas[rate] = reports[0].public.resource["quota"].astype(float)
        extracted[rate] = reports[-1].public.resource["extracted_today"]

    assert quotas[0.0].sum() == 0
    assert extracted[0.0].sum() == 0
    assert (extracted[0.001] > 0).any()
    assert quotas[0.002] == pytest.approx(2 * quotas[0.001], rel=0.05)


def test_discovery_probability_is_how_often_resources_are_found() -> None:
    """Never at 0, in about half of the ticks at one half, in every tick at 1; the stream's count goes along."""
    found = {chance: happened(DISCOVERY, discoveryProbability=chance) for chance in (0.0, 0.5, 1.0)}

    assert found[0.0] == 0
    assert 12 <= found[0.5] <= 28
    assert found[1.0] == 40


def test_catastrophe_probability_is_how_often_disaster_strikes() -> None:
    """Never at 0, in about half of the ticks at one half, in every tick at 1; fear follows."""
    struck = {chance: happened(CATASTROPHE, catastropheProbability=chance) for chance in (0.0, 0.5, 1.0)}

    assert struck[0.0] == 0
    assert 12 <= struck[0.5] <= 28
    assert struck[1.0] == 40


# --- helpers -----------------------------------------------------------------------------------------------------
def written(folder: Path, options: dict[str, Any]) -> Path:
    """Write a settings file in document 004's spelling and return where."""
    path = folder / "arena.json"
    path.write_text(json.dumps(options), encoding="utf-8")
    return path


def config(**options: Any) -> Config:
    """Return the engine's part of the settings of a small world, options spelt as document 004 does."""
    named = {OURS.get(name, name): value for name, value in {**SMALL, **options}.items()}
    return load(
        [word for name, value in named.items() for word in (f"--{name.replace('_', '-')}", str(value))], {}
    ).engine


def lived(world: Config, ticks: int) -> list[TickReport]:
    """Return the reports of a world's first ticks."""
    economy = Economy(world, SEED, checks=1)
    return [economy.advance() for _ in range(ticks)]


def happened(channel: str, **options: Any) -> int:
    """Return how many events of a channel 40 ticks bring; their numbers count them."""
    quiet = {"discoveryProbability": 0.0, "catastropheProbability": 0.0}
    reports = lived(config(**{**quiet, **options}), 40)
    numbers = [event.number for report in reports for event in report.events if event.channel == channel]
    assert numbers == list(range(1, len(numbers) + 1))
    return len(numbers)


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[RunningServer]:
    """Run a small world by hand with options from a file in document 004's spelling."""
    settings = load(["--config", str(written(folder, {**SMALL, **options}))], {})
    given = {OURS[name]: settings.value(OURS[name]) for name in options if OURS[name] in Settings.__dataclass_fields__}
    async with run_server(engine=settings.engine, **given) as arena:
        yield arena


async def statuses(arena: RunningServer, bot: Bot, count: int) -> list[int]:
    """Ask so often with a bot's key and return the answers' statuses."""
    async with arena.client(bot.api_key) as client:
        return [(await client.get("/api/time")).status_code for _ in range(count)]
