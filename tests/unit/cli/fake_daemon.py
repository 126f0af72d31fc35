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


def why_document(about: dict[str, Any], *, relayed: bool) -> dict[str, Any]:
    """About a direct peer, or one that symmetric NATs keep behind a relay."""
    relay = {"kind": "member", "members": ["server"]}
    by_relay = {"path": "relayed", "endpoint": None, "relay": relay}
    side = {
        "mapping": "address-and-port-dependent" if relayed else "endpoint-independent",
        "filtering": "address-and-port-dependent",
        "candidates": [{"endpoint": "198.18.2.2:4690", "kind": "reflexive"}],
    }
    pair = {
        "local": "192.168.1.2:4690",
        "remote": "198.18.2.2:4690",
        "kind": "reflexive",
        "result": "no answer" if relayed else "succeeded",
        "reason": "the two NATs let no such check through" if relayed else None,
        "nominated": not relayed,
        "requests": 9 if relayed else 1,
        "rtt_ms": None if relayed else 20.5,
    }
    direct = {"path": "direct", "endpoint": about["endpoint"], "relay": None}
    chosen = by_relay if relayed else direct
    return {
        "peer": {**about, **chosen},
        "path": {**chosen, "why": "a relay works", "since": 1.0} if about["path"] else None,
        "own": side,
        "theirs": side,
        "record_age_s": 60.0,
        "attempts": 3,
        "checking": False,
        "checked_s": 12.0,
        "pairs": [pair],
        "prediction": {"guesses": ["198.18.3.3:30001"], "failed": 1} if relayed else None,
        "ways": [relay] if relayed else [],
        "changes": [{"time": 1.0, "from": None, "to": chosen, "why": "a relay works"}],
        "advice": [{"code": "port-mapping", "text": "turn on port mapping in a router"}] if relayed else [],
    }


def mesh_document() -> dict[str, Any]:
    """This node, a laptop that it reaches, a phone that the laptop reaches."""

    def member(identity: str, name: str | None, *, own: bool = False) -> dict[str, Any]:
        return {"id": identity, "name": name, "ipv4": None, "state": "connected", "self": own}

    def edge(one: str, other: str, rtt_ms: float, *through: str) -> dict[str, Any]:
        path, known = ("relayed", "likely") if through else ("direct", "measured")
        ends = {"from": one, "to": other, "path": path, "through": list(through)}
        return {**ends, "rtt_ms": rtt_ms, "known": known}

    return {
        "network": "home",
        "nodes": [
            member("00000001", "desk", own=True),
            member("00000002", "laptop"),
            member("00000003", None),
        ],
        "edges": [
            edge("00000001", "00000002", 1.5),
            edge("00000002", "00000003", 20.0),
            edge("00000001", "00000003", 23.5, "00000002"),
        ],
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
        self.direct_from = 0
        """The first ping that is answered directly; those before it are by a relay."""
        self.until_direct: bool | None = None
        self.asked_events: Any = None
        self.happened = [
            {"seq": 1, "time": 1.0, "kind": "start", "event": "start", "text": "hello"},
            {
                "seq": 2,
                "time": 3601.25,
                "kind": "peer",
                "event": "upgraded",
                "text": "laptop is reached directly at 192.0.2.1:7 now: a direct path works",
                "peer": "laptop",
                "id": "00000002",
            },
        ]
        self.mesh = mesh_document()

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

    def why(self, peer: str) -> dict[str, Any]:
        found = [each for each in self.peers if each["name"] == peer]
        if not found:
            raise errors.NotFoundError(f"no peer {peer!r}")
        return why_document(found[0], relayed=peer == "tablet")

    def graph(self) -> dict[str, Any]:
        return self.mesh

    async def ping(
        self, peer: str, count: int, interval_s: float, until_direct: bool
    ) -> AsyncIterator[dict[str, Any]]:
        try:
            self.until_direct = until_direct
            if peer == "bug":
                raise KeyError("network-id dv1secret")
            found = [each for each in self.peers if each["name"] == peer]
            if not found:
                raise errors.NotFoundError(f"no peer {peer!r}")
            for seq in range(1, count + 1):
                lost = found[0]["state"] != "connected"
                relayed = not lost and seq < self.direct_from
                direct = not lost and not relayed
                yield {
                    "seq": seq,
                    "rtt_ms": None if lost else 1.25 * seq,
                    "path": "relayed" if relayed else found[0]["path"],
                    "endpoint": None if relayed else found[0]["endpoint"],
                    "relay": {"kind": "member", "members": ["server"]} if relayed else None,
                    "became_direct": seq == self.direct_from,
                    "after_s": 0.5 * seq,
                }
                if direct and until_direct:
                    return
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

    async def events(
        self, last: int | None, after: int | None, follow: bool
    ) -> AsyncIterator[dict[str, Any]]:
        self.asked_events = (last, after, follow)
        for event in self.happened if last is None else self.happened[len(self.happened) - last :]:
            yield event
        if follow:
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
