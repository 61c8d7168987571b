"""Actions of a gateway's sockets: what the engine's answer means, what is measured, and how the way to it ends."""

from __future__ import annotations

import asyncio
from typing import Any

from loadtest.process import free_port
from server import keys
from server.clock import ManualClock
from server.errors import Code
from server.gateway.desk import RemoteDesk
from server.gateway.forward import Forwarder
from server.gateway.owners import Owners
from server.gateway.upstream import Upstream
from server.live import relay
from server.live.desk import Identity
from server.metrics import Metrics
from tests.support.deadlines import seconds
from tests.support.http_peer import Peer, Serve, answering, forever, serving
from tests.support.streams import until

ME = Identity(1, keys.digest("ak_me"))


class Station:
    """A desk whose engine is at a port; what it answers is kept."""

    def __init__(self, port: int, limit_s: float = 5.0) -> None:
        self.metrics = Metrics(is_gateway=True)
        self.upstream = Upstream(("127.0.0.1", port), 4, self.metrics, limit_s=seconds(limit_s))
        forwarder = Forwarder(self.upstream, "what-only-gateways-know", self.metrics)
        owners = Owners(self.upstream, self.upstream, [], ManualClock())
        self.desk = RemoteDesk(owners, forwarder, [(b"host", b"engine")])
        self.answers: list[dict[str, Any]] = []

    async def act(self, count: int = 1) -> list[dict[str, Any]]:
        """Hand actions on and return their answers."""
        for _ in range(count):
            self.desk.submit(ME, "a1", {"type": "limit"}, self.answers.append)
        await until(lambda: len(self.answers) == count, 10.0)
        return self.answers

    def sample(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return self.metrics.registry.get_sample_value(f"arena_{name}", labels) or 0.0


def told(status: int, body: bytes) -> bytes:
    """Return an answer of the engine."""
    return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


async def test_the_engines_answer_is_handed_back_and_its_time_measured() -> None:
    """As a request over REST is: one counter, one histogram."""
    async with serving(forever(told(200, relay.pack({"type": "ack", "receipt": {"seq": 7}})))) as peer:
        station = Station(peer.port)

        assert await station.act(2) == [{"type": "ack", "receipt": {"seq": 7}}] * 2
        assert station.sample("gateway_forwarded_total", result="answered") == 2
        assert station.sample("gateway_forward_seconds_count") == 2
        station.upstream.close()


async def test_each_failure_says_what_is_known() -> None:
    """503: surely not applied. 504: it may have been; in the words of REST."""
    cases = (
        (told(503, b""), 503, Code.ENGINE_AWAY, "takes nothing now"),
        (told(500, b""), 504, Code.UNKNOWN_FATE, "answers 500: it may or may not be applied"),
        (told(200, b"\xc1"), 504, Code.UNKNOWN_FATE, "no msgpack"),
        (b"", 504, Code.UNKNOWN_FATE, "was lost"),
    )
    for answer, status, code, words in cases:
        async with serving(answering(answer)) as peer:
            station = Station(peer.port)
            (error,) = await station.act()
            assert (error["status"], error["code"]) == (status, code)
            assert words in error["detail"]
            station.upstream.close()
    nobody = Station(free_port())
    (error,) = await nobody.act()
    assert (error["status"], error["code"]) == (503, Code.ENGINE_AWAY)


async def test_what_is_under_way_ends_with_the_desk() -> None:
    """No task is left behind for an engine that never answers."""
    begun = asyncio.Event()

    def silent(peer: Peer) -> Serve:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await peer.read(reader)
            begun.set()
            await reader.read()

        return handle

    async with serving(silent) as peer:
        before = asyncio.all_tasks()
        station = Station(peer.port, limit_s=60.0)
        station.desk.submit(ME, "a1", {}, station.answers.append)
        await asyncio.wait_for(begun.wait(), seconds(10.0))
        ours = [task for task in asyncio.all_tasks() - before if "RemoteDesk" in repr(task.get_coro())]
        assert len(ours) == 1

        await asyncio.wait_for(station.desk.close(), seconds(10.0))

        assert all(task.done() for task in ours)
        station.upstream.close()
    await station.desk.close()
