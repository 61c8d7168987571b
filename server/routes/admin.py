"""The operator's surface: events, parameters, pause and step, the state hash. On a port of its own, loopback only.

Every command is in the journal before it is answered; what shapes the world happens in the tick the answer names.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from engine.commands import Command, InjectEvent, Pause, Resume, SetParameter, Step
from engine.economy import hash_copy
from engine.errors import SettingError
from engine.phases.emission import NATURAL
from server import schemas
from server.errors import Code, Conflict
from server.live.admission import invalid
from server.live.recorder import Recorder
from server.live.ticker import Ticker
from server.live.world import World
from server.routes import PRIVATE, Call, Handler, json_response

Model = TypeVar("Model", bound=BaseModel)

STEP_WAIT_S = 10.0
"""How long an answer waits for the last tick of a step."""


def handlers(world: World, recorder: Recorder, ticker: Ticker) -> dict[str, Handler]:
    """Return the handlers of the operator's surface."""

    async def state_hash(call: Call) -> Response:
        latest = ticker.latest_hash
        if latest is None or ticker.is_paused:
            async with ticker.settled():
                tick, arrays = world.economy.copy_arrays()
            value = await asyncio.get_running_loop().run_in_executor(None, hash_copy, tick, arrays)
        else:
            # every tenth tick's, so that nobody waits for a copy of a large world
            tick, value = latest
        at_tick, recovered = world.recovered
        return _answer(
            {
                "tick": tick,
                "state_hash": value.hex(),
                "recovered": {"tick": at_tick, "state_hash": recovered.hex()},
            }
        )

    def record(command: Command) -> int:
        """Journal a command."""
        try:
            return recorder.command(command)
        except SettingError as error:
            raise invalid([{"field": error.field, "problem": "is not allowed", "allowed": error.allowed}]) from None

    async def shape(command: Command) -> Response:
        """Journal a command that shapes the next tick; answer when it is durable."""
        seq, tick = record(command), ticker.next_tick
        await recorder.durable(seq)
        return _answer({"seq": seq, "tick": tick}, 202)

    async def pulse(seq: int, status: int = 200) -> Response:
        """Answer how the world ticks, when a command about that is durable."""
        await recorder.durable(seq)
        now = "paused" if ticker.is_paused else "running"
        return _answer({"seq": seq, "status": now, "tick": ticker.published_tick}, status)

    async def events(call: Call) -> Response:
        asked = _body(schemas.InjectedEvent, await call.body())
        return await shape(InjectEvent(asked.name, asked.resource, float(asked.size), asked.kind or NATURAL))

    async def parameters(call: Call) -> Response:
        asked = _body(schemas.Parameter, await call.body())
        return await shape(SetParameter(asked.name, asked.value))

    async def pause(call: Call) -> Response:
        _body(schemas.Nothing, await call.body())
        # at once: behind the record no tick begins
        seq = record(Pause())
        ticker.pause()
        async with ticker.settled():
            return await pulse(seq)

    async def resume(call: Call) -> Response:
        _body(schemas.Nothing, await call.body())
        seq = record(Resume())
        ticker.resume()
        return await pulse(seq)

    async def step(call: Call) -> Response:
        asked = _body(schemas.Steps, await call.body())
        if not ticker.is_paused:
            raise Conflict(Code.NOT_PAUSED, "the world ticks by itself: pause it first", temporary=True)
        seq = record(Step(asked.ticks))
        last = ticker.step(asked.ticks)
        try:
            async with asyncio.timeout(STEP_WAIT_S):
                await ticker.wait_tick(last)
        except TimeoutError:
            # they go on; the status tells how far they are
            return await pulse(seq, 202)
        return await pulse(seq)

    return {
        "admin_state_hash": state_hash,
        "admin_events": events,
        "admin_parameters": parameters,
        "admin_pause": pause,
        "admin_resume": resume,
        "admin_step": step,
    }


def _body(model: type[Model], value: Any) -> Model:
    """Return a decoded body as a model. Raises BadRequest that names every mistake."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(schemas.mistakes(error, model)) from None


def _answer(document: dict[str, Any], status: int = 200) -> Response:
    return json_response(orjson.dumps(document), status, PRIVATE)
