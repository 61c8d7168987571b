"""The named profiles: how many users of which kind, for how long, and the thresholds that must hold.

Thresholds are for two calm cores that the server and locust share; --bar sets another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Stage(NamedTuple):
    """A part of a run. share: of the profile's users that are there; seconds: it lasts, spawning included."""

    share: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Who comes, and what must hold.

    agents: that act over REST, each actions_per_s times a second. readers: of every route of ROUTES and AWAITED in
    turn, each reads_per_s times a second. subscribers: of market_tick, each with a frame every so many ticks, a number
    from the first to the second one: those who have the same one have their frames in the same ticks. spawn_per_s:
    users that come a second. flags: of a server of our own. at_most, at_least: thresholds by name of
    loadtest.locust.__main__.FIGURES.
    """

    says: str
    agents: int
    readers: int
    subscribers: int
    stages: tuple[Stage, ...]
    spawn_per_s: float
    actions_per_s: float = 1.0
    reads_per_s: float = 5.0
    every: tuple[int, int] = (1, 1)
    flags: tuple[str, ...] = ()
    at_most: dict[str, float] = field(default_factory=dict)
    at_least: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def users(self) -> int:
        """How many there are when all are."""
        return self.agents + self.readers + self.subscribers


#: What readers read: everything a customer polls. {id}: their own agent. Other analyses are left out: they are computed
#: beside the tick for whoever asks first and may take longer than an answer should.
ROUTES = (
    "/api/indicators",
    "/api/markets",
    "/api/markets/food",
    "/api/psychology",
    "/api/monetary",
    "/api/scarcity",
    "/api/agents/{id}",
    "/api/history/cpi?limit=100",
    "/api/events?limit=50",
    "/api/info",
    "/api/time",
    "/api/status",
)

#: What is answered after the next auction, because what is asked for is sealed until then: as late as a tick is long.
AWAITED = ("/api/markets/food/curves?points=20",)

#: Document 004 asks for 50 ms of the API and 10 ms of the stream. Percentiles of actions and reads are against
#: the time they were due, and locust's own waiting is in them: its Python shares the machine with the server.
_CALM_AT_MOST = {"action_ms_p95": 50.0, "read_ms_p95": 50.0, "frame_ms_p99": 25.0, "failed_share": 0.0}
_FULL_AT_MOST = {"action_ms_p95": 100.0, "action_ms_p99": 250.0, "frame_ms_p99": 50.0, "failed_share": 0.001}
_ON_TIME = {"ticks_on_time_share": 0.95}

PROFILES = {
    "smoke": Profile(
        says="is it alive: a few of each kind for some seconds",
        agents=8,
        readers=4,
        subscribers=8,
        stages=(Stage(1.0, 5.0),),
        spawn_per_s=16,
        actions_per_s=2.0,
        flags=("--residents", "2000"),
        # a machine that also compiles something must not fail it: that the server answers at all is what it is for
        at_most={"action_ms_p95": 250.0, "read_ms_p95": 250.0, "frame_ms_p99": 250.0, "failed_share": 0.0},
        at_least={"actions_per_s": 8.0, "reads_per_s": 8.0, "frames_per_s": 40.0, "ticks_on_time_share": 0.5},
    ),
    "bots_1k": Profile(
        says="a thousand bots, one action a second each",
        agents=1_000,
        readers=0,
        subscribers=50,
        stages=(Stage(1.0, 90.0),),
        spawn_per_s=50,
        at_most=_FULL_AT_MOST,
        at_least={"actions_per_s": 700.0, "frames_per_s": 400.0, **_ON_TIME},
    ),
    "subscribers_10k": Profile(
        says="ten thousand subscribers, each with a frame every 80 to 100 ticks: what one process of Python can read",
        agents=20,
        readers=4,
        subscribers=10_000,
        stages=(Stage(1.0, 160.0),),
        # a handshake costs it 3 ms, a frame .45: with 200 a second it had no time left for those that act
        spawn_per_s=100,
        every=(80, 100),
        # no threshold for how long actions take: they wait for ten thousand others in locust itself, for a second
        at_most={"frame_ms_p99": 50.0, "failed_share": 0.001},
        at_least={"actions_per_s": 12.0, "frames_per_s": 600.0, **_ON_TIME},
    ),
    "spike": Profile(
        says="calm, ten times as many at once, calm again",
        agents=500,
        readers=20,
        subscribers=100,
        stages=(Stage(0.1, 25.0), Stage(1.0, 35.0), Stage(0.1, 25.0)),
        spawn_per_s=200,
        at_most=_FULL_AT_MOST,
        at_least={"actions_per_s": 150.0, "frames_per_s": 300.0, **_ON_TIME},
    ),
    "responses": Profile(
        says="how long each route takes while 200 bots act and 50 subscribers follow",
        agents=200,
        readers=20,
        subscribers=50,
        stages=(Stage(1.0, 75.0),),
        spawn_per_s=40,
        # a tick of 100 ms more for what waits for one
        at_most={**_CALM_AT_MOST, "route_ms_p99_worst": 100.0, "awaited_ms_p99": 200.0},
        at_least={"actions_per_s": 150.0, "reads_per_s": 75.0, "frames_per_s": 375.0, **_ON_TIME},
    ),
    "soak": Profile(
        says="an hour at an ordinary load: nothing creeps",
        agents=200,
        readers=20,
        subscribers=100,
        stages=(Stage(1.0, 3_600.0),),
        spawn_per_s=20,
        at_most={**_CALM_AT_MOST, "memory_mb_per_minute": 1.0},
        at_least={"actions_per_s": 190.0, "frames_per_s": 950.0, **_ON_TIME},
    ),
}
