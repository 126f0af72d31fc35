"""Stands in for ``dhtvpn.daemon``: the real local API on a real socket, over a node that is made up."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

from dhtvpn import errors
from dhtvpn.control.server import ControlServer
from dhtvpn.node.config import NodeConfig

__all__ = ["NodeConfig", "run_node"]

PRESHARED_KEY = "cHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHM="


def peer(name: str, number: int, state: str = "connected") -> dict[str, Any]:
    up = state == "connected"
    return {
        "name": name,
        "id": f"{number:08d}abcdefgh",
        "ipv4": f"10.77.0.{number}",
        "ipv6": f"fd77:1234:5678:9abc:1234:5678:9abc:{number:x}",
        "state": state,
        "path": "direct" if up else None,
        "endpoint": "[2001:db8:1234:5678:9abc:def0:1234:5678]:51820" if up else None,
        "relay": None,
        "rtt_ms": 123.4 if up else None,
        "cipher": "aes-256-gcm" if up else None,
        "mtu": 1440 if up else None,
        "rx_bytes": 123_456_789 if up else 0,
        "tx_bytes": 987_654_321_000 if up else 0,
        "last_handshake_s": 93.5 if up else None,
        "found_by": "kademlia" if up else "remembered",
    }


def source(
    name: str, *, works: bool, detail: str, peers_found: int = 0, records_published: int = 0
) -> dict[str, Any]:
    return {
        "name": name,
        "works": works,
        "detail": detail,
        "peers_found": peers_found,
        "records_published": records_published,
    }


class FakeNode:
    """A ``NodeApi`` with two peers. ``changes`` wakes those who wait for a change."""

    def __init__(self, network: str = "home") -> None:
        self.network = network
        self.peers = [peer("laptop", 2), peer("phone", 3, "connecting")]
        self.changes = asyncio.Event()
        self.leaving = asyncio.Event()
        self.stock: dict[str, dict[str, Any]] = {}
        self.ping_ended = asyncio.Event()

    def status(self) -> dict[str, Any]:
        return {
            "network": {"name": self.network, "id": "dv1-44joefr2", "mode": "open"},
            "node": {
                "name": "desk",
                "id": "00000001",
                "ipv4": "10.77.0.1",
                "ipv6": "fd77:1234:5678:9abc::1",
                "interface": "dhtvpn0",
                "udp_port": 51820,
            },
            "nat": {"mapping": "endpoint-independent", "public_endpoints": ["192.0.2.7:51820"]},
            "port_mapping": {"enabled": True, "detail": "behind no router that translates", "gateways": []},
            "dht": {"nodes": 3, "records_published": 2},
            "sources": [
                source("hint", works=False, detail="no --peer given"),
                source("lan", works=True, detail="eth0, wlan0", peers_found=1),
                source("kademlia", works=True, detail="3 nodes known", records_published=2),
            ],
            "peers": self.peers,
            "drops": {"record.signature": 2, "nat.stun": 1},
            "engine": {"pid": 7, "restarts": 2, "offloads": ["udp_segment", "udp_gro"]},
            "confinement": None,
            "uptime_s": 3725.5,
        }

    async def ping(self, peer: str, count: int, interval_s: float) -> AsyncIterator[dict[str, Any]]:
        try:
            if peer == "bug":
                raise KeyError("network-id dv1secret")
            found = [each for each in self.peers if each["name"] == peer]
            if not found:
                raise errors.NotFoundError(f"no peer {peer!r}")
            for seq in range(1, count + 1):
                lost = found[0]["state"] != "connected"
                yield {
                    "seq": seq,
                    "rtt_ms": None if lost else 1.25 * seq,
                    "path": found[0]["path"],
                    "endpoint": found[0]["endpoint"],
                    "relay": None,
                }
                await asyncio.sleep(interval_s if seq < count else 0)
        finally:
            self.ping_ended.set()

    async def changed(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self.changes.wait(), timeout_s)
        except TimeoutError:
            return
        self.changes.clear()

    async def leave(self) -> None:
        self.leaving.set()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        yield {"time": 1.0, "kind": "start", "text": "hello"}
        await asyncio.Event().wait()

    def stock_peers(self) -> list[dict[str, Any]]:
        return list(self.stock.values())

    async def add_stock_peer(self, name: str, public_key_b64: str) -> dict[str, Any]:
        if name in self.stock:
            raise errors.UsageError(f"there is a stock peer called {name!r} already")
        ipv4, ipv6 = "10.77.0.9", "fd77:1234:5678:9abc::9"
        self.stock[name] = {"name": name, "public_key": public_key_b64, "ipv4": ipv4, "ipv6": ipv6}
        return {
            **self.stock[name],
            "preshared_key": PRESHARED_KEY,
            "node_public_key": "bm9kZW5vZGVub2Rlbm9kZW5vZGVub2Rlbm9kZW5vZGU=",
            "endpoint": "192.0.2.7:51820",
            "allowed_ips": ["10.77.0.1/32", "fd77:1234:5678:9abc::1/128"],
        }

    async def remove_stock_peer(self, name: str) -> None:
        if self.stock.pop(name, None) is None:
            raise errors.NotFoundError(f"no stock peer {name!r}")


async def run_node(config: Any, report: Callable[[str, str], None], ready: Callable[[], None]) -> None:
    """What the command expects of ``dhtvpn.daemon.run_node``; FAKE_FAILURE names an error to end with."""
    report("start", f"starting as {config.hostname} on port {config.port}")
    match os.environ.get("FAKE_FAILURE"):
        case None:
            pass
        case "exit":
            os._exit(7)
        case "hang":
            await asyncio.Event().wait()
        case name:
            raise getattr(errors, name)("the fake refuses: do nothing")
    node = FakeNode(config.network)
    server = ControlServer(node, config.socket_path)
    await server.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, node.leaving.set)
    try:
        report("ready", "answering")
        ready()
        await node.leaving.wait()
        report("stop", "leaving")
    finally:
        await server.close()
