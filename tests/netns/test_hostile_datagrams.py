"""Bytes from strangers at a running node: dropped and counted, and everything goes on."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from joined import eventually, join_all, log_text, overlay, pings, status

from dhtvpn.discovery.wire import Request, Rpc, encode_request
from dhtvpn.lab import topologies
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Topology
from dhtvpn.nat.demux import DHT_PREFIX_BYTES
from dhtvpn.nat.stun_messages import binding_request

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

ROUNDS = 400
MEMORY_GROWTH_KB = 8_192
"""What the control process may grow by; the datagrams sent are ten times as much."""


def genuine(rng: random.Random) -> Iterator[bytes]:
    """One datagram of every kind that a node understands, as a stranger can make it."""
    yield binding_request(rng.randbytes(12))
    for rpc in Rpc:
        target = b"" if rpc is Rpc.PING else rng.randbytes(20)
        payload = rng.randbytes(500) if rpc in (Rpc.STORE, Rpc.PUSH) else b""
        request = Request(rpc, rng.randbytes(20), target=target, payload=payload, token=rng.randbytes(8))
        yield DHT_PREFIX_BYTES + encode_request(rng.randbytes(20), request)
    for kind, size in ((1, 148), (2, 92), (3, 64), (4, 128), (5, 128)):
        yield bytes([kind, 0, 0, 0]) + rng.randbytes(size - 4)


def hostile(rng: random.Random) -> Iterator[bytes]:
    """Each of them whole, cut, lengthened and altered, and plain noise."""
    for data in genuine(rng):
        yield data
        yield data[: rng.randrange(len(data))]
        yield data + rng.randbytes(rng.randrange(1, 300))
        altered = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            altered[rng.randrange(1, len(altered))] ^= 1 << rng.randrange(8)
        yield bytes(altered)
    yield rng.randbytes(rng.randrange(1, 1400))
    yield DHT_PREFIX_BYTES + rng.randbytes(rng.randrange(0, 1200))
    yield b""


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_a_storm_of_bad_datagrams(lab: Lab) -> None:
    seed = int.from_bytes(os.urandom(4))
    rng = random.Random(seed)
    network = lab(topologies.PUBLIC)
    join_all(network)
    server, desk = network.node("server"), network.node("desk")
    target = (str(server.ipv4), status(server)["node"]["udp_port"])
    address = overlay(server)[0]
    pids = [pid for pid in server.processes() if Path(f"/proc/{pid}/comm").read_text() != ""]
    before = {pid: resident_kb(pid) for pid in pids}
    with desk.socket() as stranger:
        for number in range(ROUNDS):
            for data in hostile(rng):
                stranger.sendto(data, target)
            if number % 100 == 50:
                assert pings(desk, address).returncode == 0, f"seed {seed}"
    eventually(lambda: pings(desk, address).returncode == 0, f"life goes on (seed {seed})")
    drops = status(server)["drops"]
    rooms = {name.partition(".")[0] for name in drops}
    assert {"stun", "dht", "wireguard", "port"} <= rooms, (seed, drops)
    assert drops["port.kernel"] > ROUNDS, (seed, drops)
    assert drops["port.kernel_data"] > ROUNDS, (seed, drops)
    assert sum(drops.values()) > 5 * ROUNDS
    grown = {pid: resident_kb(pid) - before[pid] for pid in pids}
    assert max(grown.values()) < MEMORY_GROWTH_KB, (seed, grown)
    said = log_text(server)
    assert "Traceback" not in said and " ERROR " not in said, (seed, said[-2000:])
    assert all(peer["state"] == "connected" for peer in status(server)["peers"])
