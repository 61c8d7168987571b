"""The server put together, in flow order: the only place that constructs.

    world (journal, replay) -> recorder -> admission -> ticker -> view, history, events, hub -> routes

The socket listens before the world is open and answers 503 until it is. One lifespan opens and closes everything. The
operator's surface is an application of its own on a port of its own, on loopback only, served by the same process.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, TypeVar, cast

import numpy as np
import structlog
import uvicorn
from arena_client import wire
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Lifespan

from engine.config import Config
from engine.economy import WARM_UP_TICKS, Economy
from engine.events import CATASTROPHE, DISCOVERY, Event, TickReport
from engine.journal import Genesis
from engine.ladder import REFERENCE_LOW
from engine.messages import ACTION, Kind
from engine.order_book import estate_offer
from engine.phases.psychology import consol_value, share_value
from engine.state import CATASTROPHES, DISCOVERIES, OTHER_EVENTS
from server import __version__, batches, bodies, descriptors, keys, logs, send_loop
from server.acceptor import Acceptor, take_over
from server.clock import Clock, SystemClock
from server.config import Settings
from server.errors import Code
from server.live import archive, columnar, owner_index, receipts
from server.live.accounts import AccountReader
from server.live.admission import Admission, Limits, TimeBudget, to_level
from server.live.agent_channel import AgentTopic
from server.live.analytics import Analytics
from server.live.anomaly_log import AnomalyLog
from server.live.archive import Archive
from server.live.cache import AnswerCache
from server.live.collector import Collector
from server.live.desk import Desk
from server.live.elsewhere import Elsewhere
from server.live.errors import JournalFailed, ReadOnly
from server.live.frames import quantise, sent_ns
from server.live.history import EVENTS_MAX, FOLDER_NAME, EventLog, History, open_history
from server.live.hub import Hub, Private
from server.live.keeper import Keeper
from server.live.narrowing import Books
from server.live.pace import Pace
from server.live.publisher import Publisher, Relayed
from server.live.recorder import Recorder
from server.live.switches import Switches
from server.live.tick_log import log_tick
from server.live.ticker import Ticker
from server.live.turns import Turns
from server.live.view import Published, View
from server.live.watchdog import Watchdog
from server.live.workers import SYSTEM, Workers
from server.live.world import Known, World, open_world
from server.memory import bound_free, give_back
from server.metrics import Metrics
from server.middleware import Envelope, Gate
from server.protocols import FRAMES_PER_S, HOT, websocket_options
from server.redis_door import connect
from server.registry import OPERATIONS
from server.routes import (
    EXCEPTION_HANDLERS,
    admin,
    agents,
    analysis,
    batch,
    bind,
    economy,
    history,
    problem_of,
    service,
    sse,
)
from server.routes.gateway import Trust, gateway_routes
from server.routes.hot import HotAction, HotRoute
from server.routes.stream import stream_endpoint

BACKLOG = 4_096
LOOPBACK = "127.0.0.1"
SWITCH_S = 0.001
"""After so long a thread that computes gives the interpreter to the event loop; Python's own 5 ms are a late tick."""
GRACEFUL_S = 8
"""Longest that answers in flight may take when the server stops."""
UNREAD_ROUNDS = 8
"""Turns of the event loop in which connections are accepted and requests read before connections are closed."""
STOP_S = 9.0
"""Longest that a stop waits for anything; what ends the process takes the rest of the 10 s of DESIGN R11."""

log = structlog.get_logger("arena.app")


@dataclass
class Arena:
    """All parts of a running server, for whoever embeds or tests it."""

    settings: Settings
    metrics: Metrics
    clock: Clock
    world: World
    recorder: Recorder
    admission: Admission
    ticker: Ticker
    published: Published
    history: History
    keeper: Keeper
    events: EventLog
    hub: Hub
    anomalies: AnomalyLog
    analytics: Analytics
    desk: Desk
    relayed: Relayed
    publisher: Publisher | None
    """None without Redis."""

    @property
    def economy(self) -> Economy:
        """The economy itself."""
        return self.world.economy


class Opening:
    """How far the server is. arena: all parts, once the world is open; failure: what ended it, or kept it shut."""

    def __init__(self) -> None:
        self.arena: Arena | None = None
        self.hot: HotAction | None = None
        """Answers actions at sight, once the world is open."""
        self.failure: BaseException | None = None
        self.is_stopping = False
        self.monotonic: Callable[[], float] = SystemClock().monotonic
        self.stop_deadline: float | None = None
        """When the stop must be over, by monotonic(); None until it has begun."""
        self.is_open = asyncio.Event()
        """Set when the world is open, and when it never will be."""

    def refusal(self) -> Code | None:
        """Return why requests are not taken now, None while they are."""
        if self.is_stopping:
            return Code.STOPPING
        return Code.STARTING if self.arena is None else None

    def find_hot(self) -> HotAction | None:
        """Return what answers actions at sight, None while requests are not taken."""
        return self.hot if self.refusal() is None else None

    def tick(self) -> int | None:
        """Return the published tick, None before there is one."""
        return None if self.arena is None else self.arena.published.view.tick


def serve(settings: Settings) -> int:
    """Run the server until it is told to stop; return 0. Raises what kept the world from opening or ended it."""
    logs.configure(settings.log, settings.log_level)
    sys.setswitchinterval(SWITCH_S)
    if shortage := descriptors.shortage(descriptors.raise_limit(), settings.sockets_max):
        log.warning("descriptors_too_few", hint=shortage)
    opening, metrics = Opening(), Metrics()
    app = create_app(
        settings,
        metrics=metrics,
        opening=opening,
        on_ended=lambda: server.stop(),
        on_operator_key=_show_operator_key,
    )
    server = Server(server_config(app, settings), opening, metrics, operator_config(app, settings))
    server.run()
    if opening.failure is not None:
        raise opening.failure
    return 0


def create_app(
    settings: Settings,
    *,
    metrics: Metrics | None = None,
    clock: Clock | None = None,
    opening: Opening | None = None,
    on_ended: Callable[[], None] = lambda: None,
    on_operator_key: Callable[[str], None] = lambda key: None,
    warm_up_ticks: int = WARM_UP_TICKS,
) -> Starlette:
    """Return the whole server as an ASGI application; its lifespan opens the world in the background.

    Its `state.operator` is the operator's surface, an application without a lifespan. opening: tells whoever embeds
    the application how far it is. on_ended: called when the world could not be opened or its tasks failed.
    on_operator_key: given the operator's key, once in a world's life. warm_up_ticks: of a new world, fewer for tests.
    """
    metrics = Metrics() if metrics is None else metrics
    clock = SystemClock() if clock is None else clock
    opening = Opening() if opening is None else opening
    opening.monotonic = clock.monotonic

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        running = asyncio.create_task(_run(opening, settings, metrics, clock, warm_up_ticks, app, on_operator_key))
        running.add_done_callback(lambda task: _note_end(task, opening, on_ended))
        try:
            yield {HOT: opening.find_hot, FRAMES_PER_S: settings.client_frames_per_s}
        finally:
            opening.is_stopping = True
            if opening.arena is None:
                # the thread that opens the world is left behind: it has acknowledged nothing
                running.cancel()
            else:
                if opening.arena.publisher is not None:
                    opening.arena.publisher.close()
                await opening.arena.hub.close()
                opening.arena.ticker.stop()
            await asyncio.wait([running])

    alive = frozenset(item.path for item in OPERATIONS if item.starting)
    hot = Middleware(HotRoute, find=opening.find_hot)
    app = _application(opening, metrics, clock, alive, settings.gateway_secret, lifespan, hot)
    app.state.operator = _application(opening, metrics, clock, frozenset(), None, None)
    return app


def _application(
    opening: Opening,
    metrics: Metrics,
    clock: Clock,
    alive: frozenset[str],
    secret: str | None,
    lifespan: Lifespan[Starlette] | None,
    *inner: Middleware,
) -> Starlette:
    """Return an application without routes. alive: paths that are answered while the world is being opened.

    secret: of the gateways that are believed about their clients, None for none. inner: what is next to the routes.
    """
    return Starlette(
        middleware=[
            Middleware(Trust, secret=secret),
            Middleware(Envelope, metrics=metrics, clock=clock, tick=opening.tick),
            Middleware(Gate, alive=alive, shut=opening.refusal),
            *inner,
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )


class Server(uvicorn.Server):
    """uvicorn, accepting in our way, and ending with our exit status instead of the signal that stopped it.

    operator: how the operator's surface is served, None when it is not.
    """

    def __init__(
        self, config: uvicorn.Config, opening: Opening, metrics: Metrics, operator: uvicorn.Config | None = None
    ) -> None:
        super().__init__(config)
        self._operator = operator
        self._metrics = metrics
        self.is_listening = asyncio.Event()
        """Set when connections are taken."""
        self._opening = opening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the lifespan and listen."""
        await super().startup(sockets)
        self._accept_at_public_port()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        if self._operator is not None:
            await self._listen_for_operator(self._operator, port)
        self.is_listening.set()

    def _accept_at_public_port(self) -> None:
        # the event loop of Windows has no readers to accept with, and uvicorn's servers stay
        if sys.platform != "win32":
            room = descriptors.room_of_connections()
            connections = self.server_state.connections
            make = self._protocol_of(self.config)
            acceptor = take_over(self.servers, make, lambda: len(connections), room, self._metrics)
            self.servers = [cast(asyncio.Server, acceptor)]

    def _protocol_of(self, config: uvicorn.Config) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of a connection."""

        def connected() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn itself does
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        return connected

    async def _listen_for_operator(self, config: uvicorn.Config, port: int) -> None:
        """Listen on the operator's port as well; its connections are drained with the others. port: the public one."""
        config.load()
        # where the public port is any free one, so is this
        wanted = config.port or (port + 1 if self.config.port else 0)
        connected = self._protocol_of(config)
        try:
            server = await asyncio.get_running_loop().create_server(connected, LOOPBACK, wanted, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            hint = "choose another with --operator-port, or --operator false"
            log.error("operator_port_not_free", port=wanted, error=str(error), hint=hint)
            self.servers[0].close()
            await self.lifespan.shutdown()
            sys.exit(1)
        self.servers.append(server)
        log.info("operator_listening", url=f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/api/admin")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the wish to stop, and do not raise them again afterwards."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is in flight, then end the lifespan, all within STOP_S."""
        self._opening.stop_deadline = self._opening.monotonic() + STOP_S
        # what has arrived is taken in first: a connection that is idle only because its request is still unread
        # would be closed, as the kill driver saw on a machine that had not let this process run
        await _turns(UNREAD_ROUNDS)
        # who is beginning must be among the connections that are told to go: nobody else would tell it
        for server in self.servers:
            server.close()
            if isinstance(server, Acceptor):
                await server.begun()
        # what the last of them has sent
        await _turns(UNREAD_ROUNDS)
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Begin to shut down: answer what is in flight, close sockets with 1012, end the lifespan."""
        self.should_exit = True


async def _turns(count: int) -> None:
    """Let so many turns of the event loop pass."""
    for _ in range(count):
        await asyncio.sleep(0)


def server_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn serves the application: uvloop and httptools where they exist, our WebSocket class."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACEFUL_S,
        **websocket_options(),
    )


def operator_config(app: Starlette, settings: Settings) -> uvicorn.Config | None:
    """Return how the operator's surface of an application is served, None when it is not."""
    if not settings.operator:
        return None
    operator = replace(settings, host=LOOPBACK, port=settings.operator_port)
    return server_config(app.state.operator, operator)


async def _run(
    opening: Opening,
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    warm_up_ticks: int,
    app: Starlette,
    on_operator_key: Callable[[str], None],
) -> None:
    """Open the world, serve it, tick until the ticker and the hub are told to stop, close it."""

    def open_arena() -> tuple[Arena, Watchdog, Collector]:
        bound_free()
        log.info("loading_kernels", hint="the first start of a release compiles them, which takes a minute or two")
        warm_kernels()
        columnar.load()
        opened = build(settings, metrics, clock, warm_up_ticks)
        give_back()
        return opened

    arena, watchdog, collector = await _in_thread(open_arena)
    app.router.routes.extend(routes_of(arena))
    app.state.operator.router.routes.extend(operator_routes_of(arena))
    opening.hot = HotAction(arena.admission, arena.recorder, arena.published, metrics, clock)
    watchdog.start()
    collector.start()
    arena.keeper.start()
    opening.arena = arena
    log.info("ready", tick=arena.published.view.tick, epoch=arena.world.epoch, residents=arena.economy.config.residents)
    if arena.world.is_paused:
        log.warning("world_paused", hint="POST /api/admin/resume on the operator's port lets it tick")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(arena.ticker.run(), name="ticker")
            if settings.operator and not arena.world.registry.has_operator:
                tasks.create_task(_make_operator_key(arena, on_operator_key))
            tasks.create_task(arena.hub.run(), name="hub")
            if arena.publisher is not None:
                tasks.create_task(arena.publisher.run(), name="publisher")
            # both run up to their first wait, so that whoever waited for the world finds it going
            await asyncio.sleep(0)
            opening.is_open.set()
    finally:
        collector.stop()
        watchdog.stop()
        await arena.analytics.close()
        arena.keeper.stop()
        await asyncio.to_thread(arena.keeper.join)
        await arena.world.close(opening.stop_deadline)
    log.info("stopped", tick=arena.published.view.tick)


async def _make_operator_key(arena: Arena, show: Callable[[str], None]) -> None:
    """Give a world its first operator's key and show it once it is durable."""
    key = keys.mint()
    try:
        await arena.recorder.durable(arena.recorder.issue_operator_key(keys.digest(key)))
    except (ReadOnly, JournalFailed) as error:
        log.error("no_operator_key", error=str(error))
    else:
        show(key)


def _show_operator_key(key: str) -> None:
    """Print a key; it goes into no log."""
    sys.stdout.write(f"operator key, shown this once (`arena keys DIR --new-operator` makes another): {key}\n")
    sys.stdout.flush()


def _note_end(task: asyncio.Task[None], opening: Opening, on_ended: Callable[[], None]) -> None:
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        opening.failure = failure
        opening.is_open.set()
        on_ended()


def build(
    settings: Settings, metrics: Metrics, clock: Clock, warm_up_ticks: int, workers: Workers = SYSTEM
) -> tuple[Arena, Watchdog, Collector]:
    """Build all parts, in the order in which an action meets them; takes as long as the replay of the journal."""
    past = _Past(settings, metrics)
    try:
        world = open_world(
            settings,
            metrics,
            clock,
            on_genesis=past.open,
            on_replayed=past.take,
            warm_up_ticks=warm_up_ticks,
            workers=workers,
        )
    except BaseException:
        past.history.close()
        raise
    past.finish(world.opened_at, world.past_events)
    recorder = Recorder(world.journal, world.queue, world.receipts, world.registry, metrics, world.replayed.commands)
    switches = Switches(recorder, world.economy.state, metrics)
    recorder.followers += [world.agents.accepted, switches.accepted]
    budget, pace = TimeBudget(settings.intake_share, clock), Pace(world.queue, settings.tick_rate / 1_000, clock)
    admission = Admission(recorder, Limits.of(settings, clock), budget, pace, Turns(clock), metrics)
    report = world.economy.report()
    if not past.told:
        past.begin(report, clock.unix_ns())
    newest = past.told[-1]
    view = View(report, world.epoch, newest.unix_ns, states=newest.states)
    published = Published(view, world.economy.state, past.history.day)
    events = past.event_log(world.economy)

    accounts = AccountReader(world.economy)
    topic = AgentTopic(
        world.epoch,
        world.agents,
        lambda agent: accounts.document(agent) if world.registry.get(agent) is not None else None,
        lambda: ticker.settled(),
        lambda: hub.now(),
        lambda unix_ns: sent_ns(unix_ns, hub.origin_unix_ms),
    )
    desk = Desk(admission, recorder, switches, problem_of)
    hub = Hub(
        world.epoch,
        settings,
        metrics,
        clock,
        authenticator(world),
        origin_unix_ms(world),
        books=Books(world.economy.state),
        private=Private(topic, desk),
        workers=workers,
    )
    past.restore(hub, world.economy)
    relayed = Relayed(settings.tick_rate)

    def revoke(key_hash: bytes) -> None:
        hub.revoke(key_hash)
        relayed.revoke(key_hash)

    world.registry.on_revoked = revoke
    publisher = _publisher(settings, hub, published, relayed, metrics, clock)

    keeper = Keeper(past.history, _archive(settings, past.history, world.epoch, metrics, clock), workers)

    def remember(view: View) -> None:
        past.history.record(view.tick, view.states, view.marked_unix_ns)
        keeper.tick(view.tick)
        events.add(view.report.events)

    watchdog, collector = Watchdog(metrics, clock), Collector()
    ticker = Ticker(
        world,
        recorder,
        tick_rate_ms=settings.tick_rate,
        metrics=metrics,
        clock=clock,
        watchdog=watchdog,
        collector=collector,
        on_computed=(hub.prepare,),
        on_publish=(
            published.publish,
            # whoever waits for the tick has it before it is written down for others
            hub.publish,
            remember,
            lambda view: switches.publish(view.tick),
            log_tick,
            past.anomalies.follow,
            *([] if publisher is None else [publisher.publish]),
        ),
        workers=workers,
    )
    analytics = Analytics(
        past.history,
        published,
        world.economy,
        ticker,
        tick_rate_ms=settings.tick_rate,
        expiry_ms=settings.cache_expiry,
        clock=clock,
        metrics=metrics,
        workers=workers,
    )
    arena = Arena(
        settings,
        metrics,
        clock,
        world,
        recorder,
        admission,
        ticker,
        published,
        past.history,
        keeper,
        events,
        hub,
        past.anomalies,
        analytics,
        desk,
        relayed,
        publisher,
    )
    return arena, watchdog, collector


def authenticator(world: World) -> Callable[[bytes], list[str] | None]:
    """Return what tells whose agents the key of a digest speaks for, None for a key that opens nothing."""

    def authenticate(key_hash: bytes) -> list[str] | None:
        owner = world.registry.owner_of_key(key_hash)
        return None if owner is None else [f"a{number}" for number in world.registry.agents_of(owner)]

    return authenticate


def origin_unix_ms(world: World) -> int:
    """Return what sent_ns counts from: when the world was made, so that it is the same after a restart."""
    return round(datetime.fromisoformat(world.genesis.created).timestamp() * 1_000)


def _publisher(
    settings: Settings, hub: Hub, published: Published, relayed: Relayed, metrics: Metrics, clock: Clock
) -> Publisher | None:
    if settings.redis is None:
        return None
    redis = connect(settings.redis)
    return Publisher(redis, hub, published, relayed, expiry_ms=settings.cache_expiry, metrics=metrics, clock=clock)


def _archive(settings: Settings, history: History, epoch: str, metrics: Metrics, clock: Clock) -> Archive | None:
    if settings.archive_days == 0 or not settings.history_files:
        return None
    return Archive(
        settings.data / FOLDER_NAME / archive.FOLDER_NAME,
        history,
        epoch,
        days=settings.archive_days,
        megabytes=settings.archive_megabytes,
        metrics=metrics,
        clock=clock,
    )


def routes_of(arena: Arena) -> list[BaseRoute]:
    """Return the routes of everything the registry names, over these parts."""
    published, clock = arena.published, arena.clock
    accounts = AccountReader(arena.economy)
    answers = AnswerCache(arena.settings.cache_expiry, clock)
    handlers = {
        **economy.handlers(published, arena.history, arena.analytics, answers),
        **analysis.handlers(published, arena.analytics, arena.anomalies),
        **agents.handlers(arena.admission, arena.recorder, accounts, arena.ticker, published),
        **batch.handlers(arena.admission, arena.recorder, accounts, arena.ticker, published),
        **sse.handlers(arena.hub),
        **history.handlers(published, arena.history, arena.events, answers),
        **service.handlers(
            arena.settings,
            __version__,
            arena.world,
            arena.recorder,
            published,
            arena.history,
            arena.metrics,
            clock,
            lambda: "off" if arena.publisher is None else arena.publisher.state,
        ),
    }
    stream = WebSocketRoute("/ws", stream_endpoint(arena.hub), name="stream")
    elsewhere = Elsewhere(clock, arena.hub.caps)
    arena.hub.elsewhere = elsewhere.count
    for_gateways = gateway_routes(arena.hub, arena.relayed, authenticator(arena.world), arena.desk, elsewhere)
    return [*bind(handlers, arena.admission), stream, *for_gateways]


def operator_routes_of(arena: Arena) -> list[BaseRoute]:
    """Return the routes of the operator's surface."""
    return [*bind(admin.handlers(arena.world, arena.recorder, arena.ticker), arena.admission, operators=True)]


class _Told(NamedTuple):
    """What was told of a tick before this start. unix_ns: when its mark was made."""

    tick: int
    states: Mapping[str, wire.State]
    unix_ns: int


class _Past:
    """What those get who are asked about the time before this start: from the history's files, and from the replay."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.history = History(settings.history_limit)
        self.anomalies = AnomalyLog(metrics)
        self.told: deque[_Told] = deque(maxlen=settings.resume_frames + 1)
        self._events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self._begins_after = -1
        self._is_recalled = False

    def open(self, genesis: Genesis) -> Known | None:
        """Find what earlier runs of this world left of its history; return which ticks, None for nothing."""
        settings = self._settings
        self._begins_after = genesis.start_tick
        if not settings.history_files:
            return None
        self.history = open_history(
            settings.data / FOLDER_NAME,
            genesis.epoch,
            begin=genesis.start_tick,
            limit=settings.history_limit,
            days=settings.history_days,
            months=settings.history_months,
            lost=self._metrics.history_rows_lost.inc,
        )
        first = self.history.whole_from()
        return Known(first, self.history.newest) if first <= self.history.newest else None

    def take(self, report: TickReport, unix_ns: int) -> None:
        """Take a replayed tick; unix_ns: when its mark was made."""
        if not self._is_recalled:
            self._recall(report.tick - 1)
        states = quantise(report.public)
        self.history.record(report.tick, states, unix_ns)
        self.anomalies.replay(report.public)
        self.told.append(_Told(report.tick, states, unix_ns))
        self._events.extend(report.events)

    def finish(self, opened_at: int, events: list[Event]) -> None:
        """Take in that everything is replayed; events: of the time up to the tick that began after."""
        if not self._is_recalled:
            self._recall(opened_at)
        if (room := EVENTS_MAX - len(self._events)) > 0:
            self._events.extendleft(reversed(events[-room:]))

    def begin(self, report: TickReport, unix_ns: int) -> None:
        """Take the state a world begins with: it is shown, but after a restart nobody has it any more."""
        states = quantise(report.public)
        self.history.begin(report.tick, states, unix_ns)
        self.told.append(_Told(report.tick, states, unix_ns))

    def _recall(self, last: int) -> None:
        """Take from the history what was told up to the tick that the replay begins after; what is newer is cut."""
        self._is_recalled = True
        history = self.history
        # the tick a world begins after is nobody's any more
        oldest = max(history.whole_from(), self._begins_after + 1)
        history.forget(last + 1)
        if history.newest != last:
            return
        self.anomalies.recall(history, oldest)
        for tick in range(max(oldest, last - self._settings.resume_frames), last + 1):
            found = history.at(tick)
            assert found is not None, f"tick {tick} is hot"
            self.told.append(_Told(tick, found[0], 1_000_000 * found[1]))

    def event_log(self, economy: Economy) -> EventLog:
        """Return the log of all events so far; the world counts them, so their numbers are the same after any start."""
        counters = economy.state.counters
        count = int(counters[DISCOVERIES] + counters[CATASTROPHES] + counters[OTHER_EVENTS])
        log = EventLog(first_id=count - len(self._events) + 1)
        log.add(self._events)
        return log

    def restore(self, hub: Hub, economy: Economy) -> None:
        """Give the hub what subscribers may resume from."""
        counters = economy.state.counters
        held = Counter(event.channel for event in self._events)
        totals = {DISCOVERY: int(counters[DISCOVERIES]), CATASTROPHE: int(counters[CATASTROPHES])}
        hub.begin_events({channel: total - held[channel] for channel, total in totals.items()})
        hub.restore_events(self._events)
        for one in self.told:
            hub.restore(one.tick, one.states)
        self.told.clear()


def warm_kernels() -> None:
    """Load or compile every kernel the first requests and ticks would otherwise wait for, in a world of its own."""
    economy = Economy(Config(residents=2_000, max_agents=16, order_book_max=1_024), 0)
    rows = np.zeros(3, ACTION)
    rows["seq"], rows["agent_id"], rows["owner"] = (1, 2, 3), 1, 1
    rows["kind"], rows["market"] = (Kind.REGISTER, Kind.LIMIT, Kind.CANCEL), (-1, 9, -1)
    rows["side"], rows["quantity"], rows["level"] = 1, 1, REFERENCE_LOW
    rows["valid_until"] = 1_000
    economy.advance(rows)
    economy.advance()
    reader = AccountReader(economy)
    reader.document(1)
    reader.verdict(rows[1:2], "warm")
    to_level(Decimal("1.5"), "sell")
    receipts.warm()
    owner_index.warm()
    batches.warm()
    bodies.warm()
    estate_offer(1)
    share_value(1.0, 0.04)
    consol_value(1.0, 0.04)
    send_loop.warm()


T = TypeVar("T")


async def _in_thread(work: Callable[[], T]) -> T:
    """Return what work returns, run in a thread that does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(error: BaseException | None, result: T | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        outcome: tuple[BaseException | None, T | None]
        try:
            outcome = None, work()
        except BaseException as error:  # whatever it is belongs to whoever waits
            outcome = error, None
        # the loop is closed when nobody waits any more
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="opening", daemon=True).start()
    return await future
