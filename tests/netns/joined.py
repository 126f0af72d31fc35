"""What the end-to-end tests do again and again: join members, wait for them, look at them."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network

CONNECT_TIMEOUT_S = 20
POLL_S = 0.05


def join_all(network: Network, *names: str) -> str:
    """Start the bootstrap nodes, create a network on the first member, let all join and connect to each
    other; returns the network-id."""
    network.start_bootstraps()
    members = names or tuple(host.name for host in network.topology.members)
    network_id = network.create(members[0])
    for member in members:
        network.join(member, network_id)
    for member in members:
        wait_connected(network.node(member), len(members) - 1)
    return network_id


def wait_connected(machine: Machine, peers: int) -> None:
    machine.cli("wait", "--peers", str(peers), "--timeout", str(CONNECT_TIMEOUT_S))


def status(machine: Machine) -> dict[str, Any]:
    return machine.cli_json("status")


def peer_of(machine: Machine, name: str) -> dict[str, Any]:
    """The entry of the one peer called ``name`` in the status of ``machine``."""
    (peer,) = [peer for peer in status(machine)["peers"] if peer["name"] == name]
    return dict(peer)


def overlay(machine: Machine) -> tuple[str, str]:
    """The overlay addresses of ``machine``, IPv4 and IPv6."""
    node = status(machine)["node"]
    return node["ipv4"], node["ipv6"]


def eventually(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> float:
    """Wait until ``condition()`` is true; returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_S)
    return time.monotonic() - began


def pings(machine: Machine, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    """One echo request, answered within three seconds or not; the exit code tells."""
    return machine.run(["ping", "-n", "-c", "1", "-w", "3", *options, address], check=False)


def log_text(machine: Machine, network: str = "lab") -> str:
    """What the detached node of ``network`` has said so far."""
    return (machine.state_dir / "networks" / network / "node.log").read_text()


def traces(machine: Machine) -> dict[str, object]:
    """Everything that a node may leave on a machine: compared before and after."""
    run = machine.run
    sockets = machine.state_dir / "run"
    return {
        "interfaces": machine.interfaces(),
        "routes": sorted(run(["ip", "route", "show", "table", "all"]).stdout.splitlines()),
        "routes6": sorted(run(["ip", "-6", "route", "show", "table", "all"]).stdout.splitlines()),
        "rules": run(["ip", "rule"]).stdout + run(["ip", "-6", "rule"]).stdout,
        "nftables": run(["nft", "list", "ruleset"]).stdout,
        "processes": machine.processes(),
        "sockets": sorted(path.name for path in sockets.iterdir()) if sockets.is_dir() else [],
        "resolv.conf": json.dumps(run(["cat", "/etc/resolv.conf"], check=False).stdout),
    }
