"""The users: an agent that acts over REST, and a subscriber that follows market_tick.

    locust -f loadtest/locust/locustfile.py --headless --host http://127.0.0.1:8000 --profile smoke

`python -m loadtest.locust` runs it and holds what it counts to thresholds. Entries it adds to locust's own:
AGENT action (from when an action was due until it was accepted), STREAM market_tick (from the publication of a tick
until the kernel had its frame; a frame that does not fit, or is left out, is a failure).
"""

from __future__ import annotations

import random
import time
from typing import Any

from arena_client.errors import ArenaError
from locust import FastHttpUser, LoadTestShape, User, events, task
from locust.env import Environment

from loadtest.follower import Follower
from loadtest.locust.profiles import PROFILES, Profile

CHANNEL = "market_tick"
SPREAD = 0.02
"""Orders are placed up to this share above or below the market's price."""
LOTS_MAX = 3
KINDS = ("take", "take", "take", "rest", "rest", "mood", "cancel")
"""What an agent does next, one of these. Orders that rest are few and taken back: an agent may have 64 of them."""
PAUSE_S = 1.0
"""Before a subscriber whose connection has ended comes again."""


def profile_of(environment: Environment) -> Profile:
    """Return the profile the command line names."""
    assert environment.parsed_options is not None
    return PROFILES[environment.parsed_options.profile or "smoke"]


def mix(environment: Environment, **_: Any) -> None:
    """Let users of both kinds come in the proportion of the profile."""
    profile = profile_of(environment)
    AgentUser.weight, SubscriberUser.weight = profile.agents, profile.subscribers


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
                return round(stage.share * (profile.agents + profile.subscribers)), profile.spawn_per_s
            left -= stage.seconds
        return None


class AgentUser(FastHttpUser):
    """A bot: registers, then acts at its rate, whether or not the server keeps up."""

    def on_start(self) -> None:
        """Register, and know the prices."""
        self.count = 0
        self.period_s = 1 / profile_of(self.environment).actions_per_s
        with self.client.post("/api/agents/register", json={}, catch_response=True) as answer:
            document = answer.json() if answer.status_code == 201 else {}
        self.headers = {"Authorization": f"Bearer {document.get('api_key')}"}
        self.path = f"/api/agents/{document.get('agent_id')}/action"
        rows = self.client.get("/api/markets").json()["markets"]
        self.prices = {row["name"]: float(row["price"]) for row in rows}
        # all at once would be a load of its own
        self.due = time.monotonic() + random.random() * self.period_s

    @task
    def act(self) -> None:
        """Wait until the next action is due and send it."""
        time.sleep(max(0.0, self.due - time.monotonic()))
        due, self.due = self.due, self.due + self.period_s
        self.count += 1
        body = {"client_action_id": f"locust-{self.count}", **self.action()}
        with self.client.post(
            self.path, json=body, headers=self.headers, name="/api/agents/[id]/action", catch_response=True
        ) as answer:
            if answer.status_code != 202:
                answer.failure(f"{answer.status_code} {answer.text[:200] if answer.text else ''}")
                return
        self.environment.events.request.fire(
            request_type="AGENT",
            name="action",
            response_time=(time.monotonic() - due) * 1e3,
            response_length=0,
            exception=None,
            context={},
        )

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


class SubscriberUser(User):
    """A subscriber that checks every frame, and comes back when its connection ends."""

    follower: Follower | None = None

    @task
    def follow(self) -> None:
        """Take what has come, over a new connection when there is none."""
        try:
            if self.follower is None:
                every = profile_of(self.environment).every
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
