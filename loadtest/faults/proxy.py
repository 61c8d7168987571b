"""A TCP proxy that does to a stream what networks and intermediaries do, and worse.

Of bytes, in both directions: they come late, in other pieces, or the connection is cut, between two frames or within
one. Of WebSocket frames that carry data, from the server: one is left out, comes twice, or after the one behind it. TCP
itself never does that to a connection; a client that notices it notices everything that leads to a gap.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_DATA = (b"snapshot", b"delta", b"event", b"entries", b"lagged")
DATA: Final = tuple(b"\xa4type" + bytes((0xA0 + len(kind),)) + kind for kind in _DATA) + tuple(
    b'"type":"' + kind + b'"' for kind in _DATA
)
"""How maps begin that may be left out, repeated and swapped, in both encodings; so may lists, which deltas are."""
BINARY: Final = 0x82
LISTS: Final = (b"\x95", b"\x96")
FRAME_FAULTS: Final = ("drop", "repeat", "swap")
BYTE_FAULTS: Final = ("delay", "split", "cut", "cut within", "stall")
DELAY_S, STALL_S = 0.2, 1.5
HEAD_BYTES: Final = 32
READ_BYTES: Final = 65_536


class FaultProxy:
    """Stands on a port of its own before a server's, and injects faults while `is_faulty`.

    rate: share of the frames from the server that something happens to. faults: how often what has happened.
    """

    def __init__(self, port: int, rate: float, seed: int) -> None:
        self.faults: Counter[str] = Counter()
        self.is_faulty = True
        self.port = 0
        self._target = port
        self._rate = rate
        self._chance = random.Random(seed)
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FaultProxy:
        """Listen."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everybody off."""
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            # the server is down just now
            writer.transport.abort()
            self._links.discard(task)
            return
        down = asyncio.create_task(self._pump(their_reader, writer, Frames(self._do_to_frame)))
        up = asyncio.create_task(self._pump(reader, their_writer, Pieces(self._do_to_piece)))
        try:
            await asyncio.wait((down, up), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in (down, up):
                pump.cancel()
            await asyncio.gather(down, up, return_exceptions=True)
            writer.transport.abort()
            their_writer.transport.abort()
            self._links.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, units: Frames | Pieces) -> None:
        with suppress(OSError):
            while data := await reader.read(READ_BYTES):
                for fault, unit in units.take(data):
                    if not await self._pass_on(writer, fault, unit):
                        return

    async def _pass_on(self, writer: asyncio.StreamWriter, fault: str | None, unit: bytes) -> bool:
        """Write a unit with what happens to its bytes; return whether the connection goes on."""
        middle = self._chance.randrange(1, len(unit)) if len(unit) > 1 else 0
        match fault:
            case "cut":
                return False
            case "cut within":
                writer.write(unit[:middle])
                await writer.drain()
                return False
            case "delay":
                await asyncio.sleep(self._chance.random() * DELAY_S)
            case "stall":
                # nothing is read meanwhile: the server's buffers fill, and it leaves frames out
                await asyncio.sleep(self._chance.random() * STALL_S)
            case "split":
                writer.write(unit[:middle])
                await writer.drain()
                await asyncio.sleep(0)
                unit = unit[middle:]
        writer.write(unit)
        await writer.drain()
        return True

    def _do_to_frame(self, is_data: bool) -> str | None:
        """Say what happens to a frame of the server."""
        if not self.is_faulty or self._chance.random() >= self._rate:
            return None
        fault = self._chance.choice(FRAME_FAULTS + BYTE_FAULTS if is_data else BYTE_FAULTS)
        self.faults[fault] += 1
        return fault

    def _do_to_piece(self) -> str | None:
        """Say what happens to what a client sends."""
        if not self.is_faulty or self._chance.random() >= self._rate:
            return None
        fault = self._chance.choice(BYTE_FAULTS)
        self.faults[fault] += 1
        return fault


class Pieces:
    """What a client sends: bytes as they come."""

    def __init__(self, decide: Callable[[], str | None]) -> None:
        self._decide = decide

    def take(self, data: bytes) -> list[tuple[str | None, bytes]]:
        """Return the data with what is to happen to it."""
        return [(self._decide(), data)]


class Frames:
    """What a server sends, taken apart: the answer to the handshake, then frames, some of them left out or swapped."""

    def __init__(self, decide: Callable[[bool], str | None]) -> None:
        self._decide = decide
        self._buffer = bytearray()
        self._is_open = False
        self._held: bytes | None = None
        """A frame that comes behind the next one."""

    def take(self, data: bytes) -> list[tuple[str | None, bytes]]:
        """Return the units that are whole now, in the order they leave in, with what is to happen to their bytes."""
        self._buffer += data
        units: list[tuple[str | None, bytes]] = []
        while unit := self._next():
            if not self._is_open:
                self._is_open = True
                units.append((None, unit))
            else:
                units += self._treated(unit)
        return units

    def _treated(self, frame: bytes) -> list[tuple[str | None, bytes]]:
        is_data = _carries_data(frame)
        fault = self._decide(is_data)
        held, self._held = self._held, None
        behind: list[tuple[str | None, bytes]] = [] if held is None else [(None, held)]
        match fault:
            case "drop":
                return behind
            case "repeat":
                return [(None, frame), (None, frame), *behind]
            case "swap":
                # only what carries data comes behind something else, so a held frame waits for one more
                self._held = frame
                return behind
            case _:
                return [(fault, frame), *behind]

    def _next(self) -> bytes | None:
        """Take the next unit from the buffer: headers up to the empty line, then one frame at a time."""
        buffer = self._buffer
        if not self._is_open:
            end = buffer.find(b"\r\n\r\n") + 4
            if end < 4:
                return None
        else:
            if len(buffer) < 2:
                return None
            size = {126: 2, 127: 8}.get(buffer[1] & 127, 0)
            length = int.from_bytes(buffer[2 : 2 + size], "big") if size else buffer[1] & 127
            end = 2 + size + length
            if len(buffer) < 2 + size or len(buffer) < end:
                return None
        unit = bytes(buffer[:end])
        del buffer[:end]
        return unit


def _carries_data(frame: bytes) -> bool:
    header = {126: 4, 127: 10}.get(frame[1], 2)
    is_list = frame[0] == BINARY and frame[header : header + 1] in LISTS
    return is_list or any(mark in frame[:HEAD_BYTES] for mark in DATA)
