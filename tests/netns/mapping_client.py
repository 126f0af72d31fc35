"""A port mapper alone, with the protocols that its arguments name: prints a line of JSON at each change.

    python mapping_client.py PORT [pcp] [nat-pmp] [upnp]

It releases its mappings and ends when its standard input ends, or at once on SIGKILL.
"""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dhtvpn.drops import Drops
from dhtvpn.identity import Identity
from dhtvpn.membership.network_id import create
from dhtvpn.networks import Cipher
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.port_mapping import open_port_mapper


def config() -> NodeConfig:
    network_id, _ = create(bytes)
    nowhere = Path("/nonexistent")
    return NodeConfig(nowhere, nowhere, "home", network_id, "desk", (), None, None, Cipher.AUTO, nowhere)


def fixed(size: int) -> bytes:
    return b"\x55" * size


def write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main(port: int, wanted: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    drops = Drops()
    mapper = open_port_mapper(
        config(),
        port,
        "none0",
        identity=Identity.from_seed(bytes(32)),
        say=lambda kind, text: None,
        drops=drops,
        random_bytes=fixed,
    )
    assert mapper is not None
    every: Callable[[Any], Any] = mapper._make_methods
    mapper._make_methods = lambda gateway: [m for m in every(gateway) if not wanted or m.name in wanted]

    def changed() -> None:
        gateways = [
            {
                "own": found.own,
                "protocol": found.protocol,
                "external": None if found.external is None else str(found.external),
                "lifetime_left_s": found.lifetime_left_s,
                "double_nat": found.double_nat,
                "detail": found.detail,
            }
            for found in mapper.conditions()
        ]
        write({"gateways": gateways, "drops": drops.as_dict()})

    mapper.attach(changed)
    running = asyncio.create_task(mapper.run())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        if line.strip() == b"again":
            mapper.look_again()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await mapper.release()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
