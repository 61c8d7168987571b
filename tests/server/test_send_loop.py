"""The compiled loop of writes does what its twin in Python does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from server.send_loop import send_to_each


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Give pairs of connected sockets that do not block and take little."""
    made = [socket.socketpair() for _ in range(4)]
    for ours, theirs in made:
        ours.setblocking(False)
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    yield made
    for pair in made:
        for one in pair:
            one.close()


def naive(descriptors: list[int], data: bytes) -> list[int]:
    """Write to each descriptor with os.write."""
    taken = []
    for descriptor in descriptors:
        try:
            taken.append(os.write(descriptor, data) if descriptor >= 0 else -1)
        except OSError:
            taken.append(-1)
    return taken


@pytest.mark.parametrize("send", [send_to_each, naive])
def test_each_takes_what_it_has_room_for(send: object, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """All of it, a part, nothing when full, nothing when closed by the other side, nothing for -1."""
    assert callable(send)
    open_, full, gone, _ = (ours.fileno() for ours, _ in pairs)
    large = bytes(range(256)) * 1_024
    pairs[2][1].close()

    small = send([open_, -1, gone], b"small")
    part = send([full], large)
    none = send([full], b"small")

    assert small == [5, -1, -1]
    assert 0 < part[0] < len(large)
    assert none == [-1]
    assert pairs[0][1].recv(100) == b"small"
    got = b"".join(iter(lambda: _read(pairs[1][1]), b""))
    assert got == large[: part[0]]


def test_nobody_is_no_mistake() -> None:
    """An empty list takes nothing."""
    assert send_to_each([], b"data") == []


def _read(one: socket.socket) -> bytes:
    try:
        return one.recv(1 << 20)
    except BlockingIOError:
        return b""
