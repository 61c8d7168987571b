"""Connects and aborts by the thousand while every tick goes to everybody: does a byte ever reach the wrong connection?

    python -m loadtest.churn [--seconds 60] [--out loadtest/results/churn.json]

A server writes to descriptors, and the number of one that has closed belongs to the next connection at once. Here
WebSockets come, subscribe to one of two channels and vanish with a reset, plain HTTP connections take their numbers,
and subscribers that stay check every frame. A frame of another channel, one that comes twice or out of turn, bytes on a
connection that asked for none: each is a foreign byte, and there must be none. Status 1 when there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arena_client import wire

from loadtest.process import warm_server
from loadtest.verdict import conclude
from loadtest.websocket import Connection

CHANNELS = ("psychology_update", "inflation_update")
STAYING = 100
"""Subscribers that see it through."""
COMING, READING = 40, 20
"""Tasks that open WebSockets and abort them, and that open HTTP connections and leave them idle for a moment."""
STAY_MS = 600
"""Longest that a passing connection stays; most go within a few milliseconds, in the middle of their handshake."""
WORLD = ("--residents", "2000", "--tick-rate", "20", "--sockets-max", "5000")
SEED = 1


class Checked(Connection):
    """A subscriber of one channel that takes every byte for foreign that it cannot account for."""

    def __init__(self, channel: str, foreign: list[str]) -> None:
        super().__init__()
        self.channel = channel
        self.frames = 0
        self._foreign = foreign
        self._seq: int | None = None
        self._is_greeted = False

    def opened(self) -> None:
        """Subscribe."""
        self.send({"op": "subscribe", "id": 1, "channel": self.channel})

    def message(self, data: bytes) -> None:
        """Account for a message."""
        try:
            frame = wire.decode(data, wire.SUBPROTOCOL_MSGPACK)
        except wire.WireError as error:
            self._foreign.append(f"not a message: {error}")
            return
        if not self._is_greeted:
            self._is_greeted = frame["type"] == "hello"
            if not self._is_greeted:
                self._foreign.append(f"{frame['type']} of {frame.get('channel')} before the hello")
        elif frame.get("channel", self.channel) != self.channel:
            self._foreign.append(f"{frame['type']} of {frame['channel']} on a subscription to {self.channel}")
        elif frame["type"] in ("snapshot", "delta"):
            self._count(frame)

    def _count(self, frame: dict[str, Any]) -> None:
        if frame["base"] != self._seq:
            self._foreign.append(f"{frame['type']} {frame['seq']} after {frame['base']}, stood at {self._seq}")
        self._seq = frame["seq"]
        self.frames += 1


class Idle(asyncio.Protocol):
    """An HTTP connection that has asked for nothing: whatever comes is foreign."""

    def __init__(self, foreign: list[str]) -> None:
        self._foreign = foreign

    def data_received(self, data: bytes) -> None:
        """Note what nobody asked for."""
        self._foreign.append(f"{len(data)} bytes on a connection that asked for nothing: {data[:40]!r}")


class Churn:
    """Everything that comes and goes on one server."""

    def __init__(self, port: int, seed: int = SEED) -> None:
        self.port = port
        self.foreign: list[str] = []
        self.connected = self.aborted = self.idle = self.passing_frames = self.passing_lost = 0
        self._chance = random.Random(seed)

    async def run(self, seconds: float) -> dict[str, Any]:
        """Let connections come and go for so long and return what was seen."""
        staying = [Checked(CHANNELS[i % 2], self.foreign) for i in range(STAYING)]
        for one in staying:
            await self._open(lambda one=one: one)  # type: ignore[misc]  # mypy knows no default in a lambda
        ending = asyncio.get_running_loop().time() + seconds
        coming = [asyncio.create_task(self._come_and_go(ending)) for _ in range(COMING)]
        reading = [asyncio.create_task(self._take_numbers(ending)) for _ in range(READING)]
        await asyncio.gather(*coming, *reading)
        lost = sum(one.is_closed for one in staying)
        for one in staying:
            one.abort()
        return {
            "seconds": seconds,
            "connects": self.connected,
            "aborts": self.aborted,
            "idle_connections": self.idle,
            "passing_lost": self.passing_lost,
            "frames_to_passing": self.passing_frames,
            "frames_to_staying": sum(one.frames for one in staying),
            "staying": len(staying),
            "staying_lost": lost,
            "foreign": len(self.foreign),
            "foreign_examples": self.foreign[:5],
        }

    async def _open(self, made: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_connection(made, "127.0.0.1", self.port)
        return transport

    async def _come_and_go(self, ending: float) -> None:
        """Open WebSockets and reset them, before, during and after their handshake."""
        loop = asyncio.get_running_loop()
        while loop.time() < ending:
            one = Checked(self._chance.choice(CHANNELS), self.foreign)
            transport = await self._open(lambda one=one: one)  # type: ignore[misc]  # as above
            self.connected += 1
            await asyncio.sleep(self._chance.random() ** 3 * STAY_MS / 1_000)
            self.passing_frames += one.frames
            if one.is_closed:
                self.passing_lost += 1
                continue
            # a reset frees the number at once on the other side, without waiting for an answer
            connected: socket.socket = transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            self.aborted += 1

    async def _take_numbers(self, ending: float) -> None:
        """Open connections that ask for nothing, so that numbers of closed ones are theirs."""
        loop = asyncio.get_running_loop()
        while loop.time() < ending:
            transport = await self._open(lambda: Idle(self.foreign))
            self.idle += 1
            await asyncio.sleep(self._chance.random() * STAY_MS / 1_000)
            transport.abort()


def check(result: dict[str, Any]) -> dict[str, bool]:
    """Return what had to hold, and whether it did."""
    return {
        "no foreign byte": result["foreign"] == 0,
        "nobody who stayed or passed was lost": result["staying_lost"] == result["passing_lost"] == 0,
        "thousands of connects and aborts a minute": result["aborts"] >= 50 * result["seconds"],
        "frames went out meanwhile": result["frames_to_passing"] > 0 and result["frames_to_staying"] > 0,
    }


def main() -> None:
    """Start a server, let connections come and go, print, and leave 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with warm_server(*WORLD) as server:
        result = asyncio.run(Churn(server.port).run(given.seconds))
    sys.exit(conclude(result, check(result), given.out))


if __name__ == "__main__":
    main()
