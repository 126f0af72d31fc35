"""What is measured between two machines, with the tools that anybody would use: ping and iperf3."""

import json
import re
import subprocess
import threading
import time

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab.machine import Machine

PING_INTERVAL_S = 0.05
"""Between two echo requests while waiting for the first reply: the precision of the figure."""

IPERF_PORT = 5201
IPERF_START_S = 5.0

_RTT = re.compile(r"= ([0-9.]+)/([0-9.]+)/([0-9.]+)/")


def first_reply(
    machine: Machine, address: str, started: float, deadline_s: float, stop: threading.Event
) -> float | None:
    """Seconds from ``started`` (monotonic) to the first echo reply from ``address``; None without one.

    ping gives up at once while there is no route, so it is called again until ``deadline_s`` seconds
    after ``started`` have gone by or ``stop`` is set.
    """
    # With -w ping goes on sending until one reply (-c 1), an ICMP error, or two seconds have passed.
    ping = ["ping", "-n", "-q", "-c", "1", "-w", "2", "-i", str(PING_INTERVAL_S), address]
    while not stop.is_set() and time.monotonic() - started < deadline_s:
        if machine.run(ping, check=False).returncode == 0:
            return time.monotonic() - started
        stop.wait(PING_INTERVAL_S)
    return None


def answers(machine: Machine, address: str, patience_s: int = 3) -> bool:
    """Whether ``address`` answers an echo request within ``patience_s`` seconds."""
    ping = ["ping", "-n", "-q", "-c", "1", "-w", str(patience_s), "-i", "0.2", address]
    return machine.run(ping, check=False).returncode == 0


def round_trip_ms(machine: Machine, address: str, count: int = 10) -> float | None:
    """Mean round trip in milliseconds over ``count`` echo requests; None when none came back."""
    done = machine.run(["ping", "-n", "-q", "-c", str(count), "-i", "0.05", "-W", "2", address], check=False)
    match = _RTT.search(done.stdout)
    return float(match[2]) if match else None


def tcp_mbit_s(sender: Machine, receiver: Machine, address: str, seconds: int) -> float | None:
    """Mbit/s that arrive at ``address`` on ``receiver`` in one TCP stream (CUBIC); None when it fails."""
    port = str(IPERF_PORT)
    server = receiver.popen(["iperf3", "-s", "-1", "-B", address, "-p", port])
    try:
        receiver.wait_for_port("tcp", IPERF_PORT, server, IPERF_START_S)
        client = ["iperf3", "-c", address, "-p", port, "-t", str(seconds), "-C", "cubic", "-J"]
        done = sender.run([*client, "--connect-timeout", "5000"], timeout_s=seconds + 30.0)
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e6
    except (DhtVpnError, ValueError, KeyError, TypeError):
        return None
    finally:
        server.terminate()
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
        receiver.reap()
