"""The programs in C: a receiver that counts what arrives and notices what does not, and the least a sender does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from loadtest.micro.native import Receiver, Sender, Stalls, compiled
from tests.support.deadlines import seconds

pytestmark = pytest.mark.timeout(300)
HUB = [sys.executable, "-m", "loadtest.micro.hub_server", "400"]


def test_the_loop_in_c_sends_every_frame_to_everybody() -> None:
    """50 connections, 5 ticks: 250 frames, all of them whole, each tick complete."""
    command = [str(compiled("send_loop")), "50", "400"]
    with Sender(command, core=None) as sender, Receiver(sender.port, 50, core=None, is_polling=True) as receiver:
        sent = sender.run(5)
        seen = receiver.command("report")

    assert (sent, seen["frames"], seen["payload_bytes"]) == (250, 250, 250 * 400)
    assert (seen["open"], seen["ticks"], seen["ticks_partial"]) == (50, 3, 0)
    assert 0 < seen["latency_ms"]["p50"] <= seen["latency_ms"]["p99"]


def test_the_hub_alone_sends_every_frame_to_everybody() -> None:
    """The same receiver, subscribed, sees consecutive frames of the size asked for."""
    with Sender(HUB, core=None) as sender, Receiver(sender.port, 250, "psychology_update", core=None) as receiver:
        receiver.command("begin")
        sent = sender.run(10)
        while (seen := receiver.command("report"))["frames"] < sent:
            pass

        assert sender.cpu_ns() > 0

    assert (sent, seen["gaps"], seen["closed_early"]) == (2_500, 0, 0)
    assert 390 <= seen["payload_bytes"] / seen["frames"] <= 430


def test_a_storm_ends_with_everybody_in_step() -> None:
    """All are cut and come back at once, resume where they stood, and miss nothing."""
    with Sender(HUB, core=None) as sender, Receiver(sender.port, 300, "psychology_update", core=None) as receiver:
        sender.run(3)
        sender.begin(60)
        storm = receiver.command("storm")

    assert (storm["open"], storm["in_step"], storm["lost"], storm["gaps"]) == (300, 300, 0, 0)
    assert (storm["resumed"], storm["lagged"]) == (300, 0)
    assert 0 < storm["open_s"] <= storm["in_step_s"] < 6


def test_a_machine_that_stands_still_is_noticed() -> None:
    """Stopped by a signal, a process is not run, whatever comes first: to its threads the machine stood still."""
    with Stalls() as machine:
        begin = time.monotonic()
        os.kill(machine.pid, signal.SIGSTOP)
        # the stall itself: it has to take its time
        threading.Event().wait(0.2)
        os.kill(machine.pid, signal.SIGCONT)
        processors = len(os.sched_getaffinity(0)) if machine.is_granted else 0
        deadline = time.monotonic() + seconds(10.0)
        found: list[tuple[float, float]] = []
        while len(found) < processors and time.monotonic() < deadline:
            found = [(since, until) for since, until in machine.report() if until - since > 0.15]

        assert len(found) == processors
        assert all(begin - 0.05 < since < until for since, until in found)
