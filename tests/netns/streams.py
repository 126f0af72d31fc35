"""A TCP stream through a tunnel, how fast it is, and what the processes of a node take."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from joined import eventually, overlay

from dhtvpn.lab.machine import Machine

PORT = 5201


def process_ids(machine: Machine) -> dict[str, int]:
    """Of the control process and the engine."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in machine.processes()}
    return {
        "engine" if "dhtvpn.dataplane" in line else "control": pid
        for pid, line in lines.items()
        if "dhtvpn" in line
    }


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


class Meter:
    """What has arrived of the stream at ``machine``, by its TCP socket: nothing else is counted."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def received(self) -> int:
        told = self._machine.run(["ss", "-tinH", f"sport = :{PORT}"]).stdout
        return sum(map(int, re.findall(r"bytes_received:([0-9]+)", told)))

    def mbit_s(self, seconds: float) -> float:
        before, began = self.received(), time.monotonic()
        time.sleep(seconds)
        return (self.received() - before) * 8e-6 / (time.monotonic() - began)


@contextmanager
def stream(sender: Machine, receiver: Machine) -> Iterator[None]:
    """A TCP stream without end from ``sender`` to ``receiver``."""
    address = overlay(receiver)[0]
    server = receiver.popen(["iperf3", "-s", "-1", "-B", address, "-p", str(PORT)])
    receiver.wait_for_port("tcp", PORT, server, 5.0)
    client = sender.popen(["iperf3", "-c", address, "-p", str(PORT), "-t", "600", "-C", "cubic"])
    try:
        meter = Meter(receiver)
        eventually(lambda: meter.mbit_s(0.2) > 10, "the stream runs")
        yield
        assert client.poll() is None, "the stream ended"
    finally:
        for process in (client, server):
            process.kill()
            process.wait()


@contextmanager
def firewall(machine: Machine, source: Machine) -> Iterator[None]:
    """Drop everything from ``source`` before anybody sees it."""
    machine.run(
        ["nft", "-f", "-"],
        stdin="table inet flood { chain first { type filter hook prerouting priority -300; "
        f"ip saddr {source.ipv4} drop; }}; }}",
    )
    try:
        yield
    finally:
        machine.run(["nft", "delete", "table", "inet", "flood"])
