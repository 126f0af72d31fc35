"""The emulator's loop, between ordinary descriptors that keep frames apart as TAP devices do."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dhtvpn.lab.link import MULTICAST_REPORTS, Emulator, Wire
from dhtvpn.lab.link_schedule import Conditions, OneWay

PATIENCE_S = 5.0


def wire(conditions: Conditions, seed: int = 1) -> Wire:
    return Wire("one", "eth0", "other", "site1", conditions, seed)


class Running:
    """An emulator in a thread; ``ends[n]`` are the far ends of both devices of wire ``n``."""

    def __init__(self, wires: list[Wire], stack: ExitStack) -> None:
        self.ends: list[tuple[socket.socket, socket.socket]] = []
        devices = []
        for _ in wires:
            pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
            for device, end in pairs:
                stack.enter_context(device)
                stack.enter_context(end)
                device.setblocking(False)
                end.settimeout(PATIENCE_S)
            self.ends.append((pairs[0][1], pairs[1][1]))
            devices.append((pairs[0][0].fileno(), pairs[1][0].fileno()))
        self.emulator = Emulator(wires, devices)
        thread = threading.Thread(target=self.emulator.run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self.emulator.stop)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_a_wire_reads_as_it_was_written() -> None:
    one = wire(Conditions(0.025, 0.001, 0.5, 0.25), seed=7)
    assert Wire.from_json(one.to_json()) == one


def test_frames_pass_both_ways_and_stay_on_their_wire(stack: ExitStack) -> None:
    running = Running([wire(Conditions()), wire(Conditions(delay_s=0.001))], stack)
    for near, far in [*running.ends, *[(far, near) for near, far in running.ends]]:
        for number in range(200):
            near.send(number.to_bytes(2, "big"))
        assert [far.recv(100) for _ in range(200)] == [number.to_bytes(2, "big") for number in range(200)]
    running.emulator.stop()
    assert running.emulator.counters()["carried"] == 800
    assert running.emulator.counters()["carried_bytes"] == 1600


def test_multicast_reports_are_not_carried_and_take_no_share_of_the_chance(stack: ExitStack) -> None:
    running = Running([wire(Conditions(loss=0.5), seed=3)], stack)
    near, far = running.ends[0]
    expected = OneWay(Conditions(loss=0.5), 2 * 3)
    for number in range(100):
        near.send(MULTICAST_REPORTS + b"report")
        near.send(bytes([number]))
        expected.offer(bytes([number]), 0.0)
    survivors = expected.take(1.0)
    assert [far.recv(100) for _ in survivors] == survivors


def test_each_wire_has_its_own_delay(stack: ExitStack) -> None:
    slow, fast = Conditions(delay_s=0.08), Conditions(delay_s=0.01)
    running = Running([wire(slow), wire(fast)], stack)
    began = time.monotonic()
    running.ends[0][0].send(b"slow")
    running.ends[1][1].send(b"fast")
    assert running.ends[1][0].recv(100) == b"fast"
    assert time.monotonic() - began >= 0.01
    assert running.ends[0][1].recv(100) == b"slow"
    assert time.monotonic() - began >= 0.08


def test_a_wire_that_loses_everything_carries_nothing(stack: ExitStack) -> None:
    running = Running([wire(Conditions(loss=1.0)), wire(Conditions())], stack)
    for _ in range(50):
        running.ends[0][0].send(b"lost")
    running.ends[1][0].send(b"through")
    assert running.ends[1][1].recv(100) == b"through"
    while running.emulator.counters()["lost"] < 50:
        os.sched_yield()
    running.ends[0][1].setblocking(False)
    with pytest.raises(BlockingIOError):
        running.ends[0][1].recv(100)
