"""The users: an agent that acts over REST, a reader of every route, a subscriber that follows market_tick.

    locust -f loadtest/locust/locustfile.py --headless --host http://127.0.0.1:8000 --profile smoke

`python -m loadtest.locust` runs it and holds what it counts to thresholds. Entries it adds to locust's own:
AGENT action (from when an action was due until it was accepted), READ and a route (from when it was due until the
answer was there), AWAIT and a route (the same of one that is answered after the next auction), STREAM market_tick (from
the publication of a tick until the kernel had its frame; a frame that does not fit, or is left out, is a failure).
"""

from __future__ import annotations

import gc
import random
import time
from itertools import cycle
from typing import Any

from arena_client.errors import ArenaError
from locust import FastHttpUser, LoadTestShape, User, events, task
from locust.env import Environment

from loadtest.follower import Follower
from loadtest.locust.profiles import AWAITED, PROFILES, ROUTES, Profile

CHANNEL = "market_tick"
SPREAD = 0.02
"""Orders are placed up to this share above or below the market's price."""
LOTS_MAX = 3
OLD_EVERY = 1_000_000
"""Collections of the middle generation before one of the old: it goes through all that the users hold, which for ten
thousand subscribers takes seconds in which nobody acts. They leave no cycles behind."""
KINDS = ("take", "take", "take", "rest", "rest", "mood", "cancel")
"""What an agent does next, one of these. Orders that rest are few and taken back: an agent may have 64 of them."""
PAUSE_S = 1.0
"""Before a subscriber whose connection has ended comes again."""


def profile_of(environment: Environment) -> Profile:
    """Return the profile the command line names."""
    assert environment.parsed_options is not None
    return PROFILES[environment.parsed_options.profile or "smoke"]


def mix(environment: Environment, **_: Any) -> None:
    """Let users of each kind come in the proportion of the profile, and nothing hold them all up."""
    gc.set_threshold(*gc.get_threshold()[:2], OLD_EVERY)
    profile = profile_of(environment)
    AgentUser.weight, ReaderUser.weight = profile.agents, profile.readers
    SubscriberUser.weight = profile.subscribers
    environment.user_classes = [kind for kind in environment.user_classes if kind.weight]


events.init.add_listener(mix)


class Stages(LoadTestShape):
    """The stages of the profile, one after the other."""

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now and how fast they come; None when it is over."""
        assert self.runner is not None
        profile = profile_of(self.runner.environment)
        left = time.perf_counter() - self.start_time
        for stage in profile.stages:
            if left < stage.seconds:
                return round(stage.share * profile.users), profile.spawn_per_s
            left -= stage.seconds
        return None


class PacedUser(FastHttpUser):
    """A registered customer that does something at its rate, whether or not the server keeps up."""

    abstract = True
    per_s = 1.0

    def on_start(self) -> None:
        """Register."""
        with self.client.post("/api/agents/register", json={}, catch_response=True) as answer:
            document = answer.json() if answer.status_code == 201 else {}
        self.agent_id = document.get("agent_id")
        self.headers = {"Authorization": f"Bearer {document.get('api_key')}"}
        # all at once would be a load of its own
        self.due = time.monotonic() + random.random() / self.per_s

    def wait_due(self) -> float:
        """Wait for the next time something is due and return it."""
        time.sleep(max(0.0, self.due - time.monotonic()))
        due, self.due = self.due, self.due + 1 / self.per_s
        return due

    def tell(self, kind: str, name: str, due: float) -> None:
        """Count something that was due then and is done now."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=(time.monotonic() - due) * 1e3,
            response_length=0,
            exception=None,
            context={},
        )


class AgentUser(PacedUser):
    """A bot that acts."""

    def on_start(self) -> None:
        """Register, and know the prices."""
        self.per_s = profile_of(self.environment).actions_per_s
        self.count = 0
        rows = self.client.get("/api/markets").json()["markets"]
        self.prices = {row["name"]: float(row["price"]) for row in rows}
        super().on_start()

    @task
    def act(self) -> None:
        """Send the next action when it is due."""
        due = self.wait_due()
        self.count += 1
        body = {"client_action_id": f"locust-{self.count}", **self.action()}
        path = f"/api/agents/{self.agent_id}/action"
        name = "/api/agents/[id]/action"
        with self.client.post(path, json=body, headers=self.headers, name=name, catch_response=True) as answer:
            if answer.status_code != 202:
                answer.failure(f"{answer.status_code} {answer.text[:200] if answer.text else ''}")
                return
        self.tell("AGENT", "action", due)

    def action(self) -> dict[str, Any]:
        """Return what to do next: mostly orders near the price of a market."""
        kind = random.choice(KINDS)
        if kind == "mood":
            return {"type": "set_sentiment", **{name: round(random.random(), 3) for name in MOODS}}
        if kind == "cancel":
            return {"type": "cancel_all"}
        market = random.choice(list(self.prices))
        return {
            "type": "limit",
            "market": market,
            "side": random.choice(("buy", "sell")),
            "quantity": random.randint(1, LOTS_MAX),
            "price": f"{self.prices[market] * (1 + random.uniform(-SPREAD, SPREAD)):.6f}",
            "time_in_force": "gtc" if kind == "rest" else "ioc",
        }


MOODS = ("sentiment", "fear", "greed", "confidence")


class ReaderUser(PacedUser):
    """A customer that reads one route after the other."""

    def on_start(self) -> None:
        """Register: its own agent is one of the things it reads. Begin anywhere, so that readers are not in step."""
        self.per_s = profile_of(self.environment).reads_per_s
        routes = ROUTES + AWAITED
        first = random.randrange(len(routes))
        self.routes = cycle(routes[first:] + routes[:first])
        super().on_start()

    @task
    def read(self) -> None:
        """Read the next route when it is due."""
        due = self.wait_due()
        route = next(self.routes)
        path = route.format(id=self.agent_id)
        with self.client.get(path, headers=self.headers, name=route, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code} {answer.text[:200] if answer.text else ''}")
                return
        self.tell("AWAIT" if route in AWAITED else "READ", route, due)


class SubscriberUser(User):
    """A subscriber that checks every frame, and comes back when its connection ends."""

    follower: Follower | None = None

    @task
    def follow(self) -> None:
        """Take what has come, over a new connection when there is none."""
        try:
            if self.follower is None:
                every = random.randint(*profile_of(self.environment).every)
                assert self.host is not None
                self.follower = Follower(self.host, CHANNEL, every)
            for arrival in self.follower.receive():
                self.tell(arrival.late_ms, arrival.size)
            for loss in self.follower.take_losses():
                self.tell(0.0, 0, ArenaError(loss))
        except (OSError, ArenaError) as error:
            self.tell(0.0, 0, error)
            self.on_stop()
            time.sleep(PAUSE_S)

    def on_stop(self) -> None:
        """Hang up."""
        if self.follower is not None:
            self.follower.close()
            self.follower = None

    def tell(self, late_ms: float, size: int, error: Exception | None = None) -> None:
        """Count a frame, or what went wrong with one."""
        self.environment.events.request.fire(
            request_type="STREAM",
            name=CHANNEL,
            response_time=late_ms,
            response_length=size,
            exception=error,
            context={},
        )
