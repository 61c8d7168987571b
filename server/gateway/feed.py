"""Keeps a gateway's hub in step with its engine's, and knows whether the engine is there.

    Redis    a bundle after every tick, a sign of life between: taken when it goes on where the hub stands
    engine   asked for what is missing: at the start, after a gap, and again and again while Redis says nothing

So a message that Redis lost, or Redis itself lost, is a detour and not a hole. When neither says anything for AWAY_S
the engine is away: subscribers are told `stale` once, and everything goes on where it stood when it is back.
Source: DESIGN D10, R9, R10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from server import redis_keys
from server.clock import Clock
from server.gateway.upstream import Headers, Unanswered, Unsent, Upstream
from server.live import relay
from server.live.hub import Hub
from server.metrics import Metrics
from server.redis_door import LOST
from server.routes.gateway import FRAMES

QUIET_S: Final = 0.6
"""Redis has said nothing for so long, though a sign of life was due twice: the engine is asked itself."""
ASK_S: Final = 0.1
"""Seconds between two questions while Redis says nothing."""
ASK_LIMIT_S: Final = 1.0
AWAY_S: Final = 1.5
"""Nothing from anywhere for so long: the engine is away."""
FIRST_LIMIT_S: Final = 10.0
"""The first bundle brings the whole ring and all events: a few MB."""
LISTEN_S: Final = 5.0
"""A connection to Redis that has brought nothing for so long is given up for another one."""
RETRY_S: Final = (0.1, 1.0)

log = structlog.get_logger("arena.gateway")


class Feed:
    """Brings bundles into a hub. `run` does it until cancelled.

    on_revoked: called with the hash of each revoked key; None: more than are named may have been revoked.
    on_away: awaited when the engine has gone away and everybody was told; until it returns the engine is not asked.
    """

    def __init__(
        self,
        hub: Hub,
        redis: Redis,
        upstream: Upstream,
        headers: Headers,
        metrics: Metrics,
        clock: Clock,
        *,
        on_revoked: Callable[[bytes | None], None],
        on_away: Callable[[], Awaitable[None]],
    ) -> None:
        self.is_in_step = asyncio.Event()
        """Set once the hub has had everything the engine has."""
        self.is_away = False
        self.mismatch: str | None = None
        """Why the engine's bundles cannot be read, None while they can."""
        self._hub = hub
        self._redis = redis
        self._upstream = upstream
        self._headers = headers
        self._metrics = metrics
        self._clock = clock
        self._on_revoked = on_revoked
        self._on_away = on_away
        self._heard = clock.monotonic()
        self._is_closing = False
        self._heard_redis = clock.monotonic() - QUIET_S
        self._revoked = ("", 0)
        """Which engine process last said how many keys it has revoked."""
        self._epoch_known = asyncio.Event()
        self._missing = asyncio.Event()
        """Set when the engine must be asked at once."""

    @property
    def away_s(self) -> float | None:
        """For how many seconds the engine has been silent while it is away, None while it is there."""
        return self._clock.monotonic() - self._heard if self.is_away else None

    @property
    def has_redis(self) -> bool:
        """Whether Redis has said something lately."""
        return self._clock.monotonic() - self._heard_redis < QUIET_S

    async def run(self) -> None:
        """Follow the engine."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask_on(), name="asking")
            tasks.create_task(self._listen_on(), name="listening")

    # the engine itself

    async def _ask_on(self) -> None:
        """Ask the engine whenever Redis falls short, and notice that it is away."""
        while True:
            has_redis = self.has_redis
            self._metrics.gateway_redis_up.set(int(has_redis))
            if not has_redis or self._missing.is_set() or not self.is_in_step.is_set():
                self._missing.clear()
                await self._ask()
            if self._is_closing or self._clock.monotonic() - self._heard >= AWAY_S:
                await self._note_away()
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_S):
                    await self._missing.wait()

    async def _ask(self) -> None:
        question = {"epoch": self._hub.epoch, "since": relay.positions(self._hub)}
        limit_s = ASK_LIMIT_S if self.is_in_step.is_set() else FIRST_LIMIT_S
        try:
            answer = await self._upstream.exchange(
                b"POST", FRAMES.encode(), self._headers, relay.pack(question), limit_s
            )
            if answer.status != 200:
                self._refused(answer.status)
                return
            told = relay.read(answer.body)
        except (Unsent, Unanswered):
            return
        except relay.Mismatch as error:
            self._note_mismatch(str(error))
            return
        await self._take(told, "engine")

    def _refused(self, status: int) -> None:
        if status == 404:
            self._note_mismatch("the engine knows no gateways: is gateway_secret the same for both?")

    # Redis

    async def _listen_on(self) -> None:
        """Listen to the engine's channel, over one connection after another."""
        wait_s = RETRY_S[0]
        while True:
            # the engine has to say which world it is first
            await self._epoch_known.wait()
            heard = self._heard_redis
            try:
                await self._listen(self._hub.epoch)
            except LOST as error:
                if self._heard_redis > heard or wait_s == RETRY_S[0]:
                    log.warning("redis_lost", error=str(error), hint="the engine is asked itself")
                # nobody needs to wait for its silence
                self._heard_redis = min(self._heard_redis, self._clock.monotonic() - QUIET_S)
                self._missing.set()
            wait_s = RETRY_S[0] if self._heard_redis > heard else min(2 * wait_s, RETRY_S[1])
            await self._clock.sleep_until(self._clock.monotonic() + wait_s)

    async def _listen(self, epoch: str) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(redis_keys.ticks(epoch))
            heard = self._clock.monotonic()
            while epoch == self._hub.epoch:
                message = await subscription.get_message(timeout=LISTEN_S / 5)
                if message is not None:
                    heard = self._clock.monotonic()
                    await self._take_published(message["data"])
                elif self._clock.monotonic() - heard > LISTEN_S:
                    return

    async def _take_published(self, data: bytes) -> None:
        try:
            told = relay.read(data)
        except relay.Mismatch as error:
            self._note_mismatch(str(error))
            return
        self._heard_redis = self._clock.monotonic()
        if self.is_in_step.is_set():
            await self._take(told, "redis")

    # bundles

    async def _take(self, told: Mapping[str, Any], source: str) -> None:
        """Bring a bundle into the hub; what does not fit is asked for."""
        self._metrics.gateway_bundles.labels(source).inc()
        if told["epoch"] == self._hub.epoch:
            self._apply(told, source)
        elif source == "engine":
            await self._begin_epoch(told)
        else:
            self._missing.set()

    def _apply(self, told: Mapping[str, Any], source: str) -> None:
        try:
            is_whole = relay.take(self._hub, told)
        except relay.Gap as error:
            self._note_gap(error, source)
            return
        except relay.Mismatch as error:
            self._note_mismatch(str(error))
            return
        if is_whole:
            self._note_there(told)
        else:
            self._missing.set()

    async def _begin_epoch(self, told: Mapping[str, Any]) -> None:
        log.info("epoch", epoch=told["epoch"], tick=told["tick"])
        had_world = self._epoch_known.is_set()
        self.is_in_step.clear()
        self._hub.begin_epoch(told["epoch"], told["origin_unix_ms"], told["tick_rate_ms"])
        self._epoch_known.set()
        self._apply(told, "engine")
        if had_world:
            await self._hub.greet_all()

    def _note_gap(self, error: relay.Gap, source: str) -> None:
        self._metrics.gateway_gaps.inc()
        log.info("gap", source=source, reason=str(error))
        if source == "engine":
            # what the engine itself sends does not fit: only a beginning from nothing will do
            self._hub.forget()
        self._missing.set()

    def _note_there(self, told: Mapping[str, Any]) -> None:
        self._heard = self._clock.monotonic()
        self._note_revoked(told["instance"], told["revoked_count"], told["revoked"])
        self.mismatch = None
        if told["is_closing"]:
            # it says so itself: nobody needs to wait for its silence
            self._is_closing = True
            self._missing.set()
            return
        self._is_closing = False
        if self.is_away or not self.is_in_step.is_set():
            self.is_away = False
            self._metrics.gateway_engine_up.set(1)
            log.info("engine_there", tick=told["tick"], epoch=told["epoch"])
        self.is_in_step.set()

    def _note_revoked(self, instance: str, count: int, named: list[bytes]) -> None:
        (before_instance, before), self._revoked = self._revoked, (instance, count)
        if instance != before_instance or count - before > len(named):
            # an engine that has started anew counts from nothing: what was revoked meanwhile is not named
            self._on_revoked(None)
            return
        for key_hash in named[len(named) - max(0, count - before) :]:
            self._on_revoked(key_hash)

    async def _note_away(self) -> None:
        if self.is_away or not self.is_in_step.is_set():
            return
        self.is_away = True
        self._metrics.gateway_engine_up.set(0)
        self._metrics.gateway_outages.inc()
        log.warning("engine_away", tick=self._hub.tick)
        await self._hub.go_stale()
        await self._on_away()

    def _note_mismatch(self, reason: str) -> None:
        if reason != self.mismatch:
            log.error("engine_not_understood", reason=reason)
        self.mismatch = reason
