"""TCP streams by iperf3, with CUBIC on both sides."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab.machine import Machine

PORT = 5201
START_S = 10.0
PATIENCE_S = 30.0
"""Beyond the length of the stream, until iperf3 counts as stuck."""


@dataclass(frozen=True)
class Transfer:
    """What arrived, all streams and directions together."""

    bits_per_s: float
    received_bytes: int


@contextmanager
def server(machine: Machine, address: str) -> Iterator[None]:
    """An iperf3 server for one test. Raises DhtVpnError when it does not start."""
    child = machine.popen(["iperf3", "-s", "-1", "-B", address, "-p", str(PORT)])
    try:
        machine.wait_for_port("tcp", PORT, child, START_S)
        yield
    finally:
        end(child)
        machine.reap()


def client(address: str, seconds: int, *, streams: int = 1, both: bool = False) -> list[str]:
    """The command line of a client that prints JSON."""
    words = ["iperf3", "-c", address, "-p", str(PORT), "-t", str(seconds), "-C", "cubic", "-J"]
    words += ["--connect-timeout", "5000", "-P", str(streams)]
    return [*words, "--bidir"] if both else words


def transfer(
    sender: Machine, receiver: Machine, address: str, seconds: int, *, streams: int = 1, both: bool = False
) -> Transfer:
    """Run one test to its end. Raises DhtVpnError."""
    with server(receiver, address):
        words = client(address, seconds, streams=streams, both=both)
        done = sender.run(words, check=False, timeout_s=seconds + PATIENCE_S)
    return parse(done.stdout)


def parse(text: str) -> Transfer:
    """What an iperf3 client said with -J. Raises DhtVpnError with iperf3's own complaint."""
    try:
        document: dict[str, Any] = json.loads(text)
        if document.get("error"):
            raise DhtVpnError(f"iperf3: {document['error']}")
        end_of_test = document["end"]
        sums = [end_of_test["sum_received"], end_of_test.get("sum_received_bidir_reverse")]
        ways = [way for way in sums if way is not None]
        return Transfer(
            sum(float(way["bits_per_second"]) for way in ways), sum(int(way["bytes"]) for way in ways)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DhtVpnError("iperf3 printed nothing that could be read") from error


def end(child: subprocess.Popen[str], patience_s: float = 5.0) -> None:
    """End a child of ours, politely first."""
    child.terminate()
    try:
        child.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
