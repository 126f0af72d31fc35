"""One side of test_engine.py: device, socket, engine and fixed keys, without handshake or discovery.

usage: engine_node.py JSON      (started by the test, inside a namespace; ends when stdin is closed)
"""

import asyncio
import json
import logging
import socket
import sys
import time
from ipaddress import ip_address, ip_interface, ip_network

from dhtvpn.dataplane.messages import Activity, Event
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.endpoint import Endpoint
from dhtvpn.system import links
from dhtvpn.system.tun import open_tun
from dhtvpn.wireguard.keypair import Keypair

PORT, MTU = 5555, 1420
KEYS = bytes([1]) * 32, bytes([2]) * 32
INDICES = 10, 20


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - the test reads our stdout


class ToStdout(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say("log", record.getMessage())


async def main(arguments: dict[str, object]) -> None:
    logging.getLogger().addHandler(ToStdout())
    up = asyncio.Event()

    def event(happened: Event) -> None:
        if isinstance(happened, Activity):
            up.set()

    tun = open_tun("dv%d", vnet_header=bool(arguments.get("vnet", True)))
    local = [ip_address(text) for text in arguments["local"]]  # type: ignore[attr-defined]
    remote = [ip_network(text) for text in arguments["remote"]]  # type: ignore[attr-defined]
    prefixes = [ip_interface(f"{address}/{16 if address.version == 4 else 64}") for address in local]
    await links.configure(tun.name, prefixes, MTU)
    own = str(arguments["underlay_local"])
    udp = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((own, PORT))
    engine = await EngineProcess.start(tun.fd, [udp], local, MTU, event, lambda code: say("exit", code))
    engine.set_peer(1, remote, Endpoint(str(arguments["underlay_remote"]), PORT))
    engine.set_features(
        1,
        trains=bool(arguments.get("trains")),
        udp_trains=bool(arguments.get("trains")),
        blocks=bool(arguments.get("blocks", arguments.get("trains"))),
        aes=bool(arguments.get("aes")),
    )
    initiator = bool(arguments["initiator"])
    (mine, its), (send, receive) = (INDICES, KEYS) if initiator else (INDICES[::-1], KEYS[::-1])
    engine.install_keypair(1, Keypair(mine, its, send, receive, initiator, time.monotonic()))
    if initiator:
        engine.send(1, b"")  # the first message lets the responder send
        await up.wait()
    say("up")
    await asyncio.to_thread(sys.stdin.read)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
