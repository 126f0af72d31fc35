"""Ask a DHT node again and again, as an honest one would; started in a namespace.

usage: asker.py JSON      {"host", "port", "count", "pause_s", "known"}

``known`` false: every request comes without a token, as a newcomer's. Nothing is repeated. Prints, as JSON,
how many were answered and the round trips in milliseconds.
"""

import asyncio
import json
import os
import sys

from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.wire import Rpc
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.port import UdpPort


async def main(arguments: dict[str, object]) -> None:
    drops = Drops()
    port = await UdpPort.open(None, "0.0.0.0", None, drops=drops, tunnel_sockets=False)
    directory = KademliaDirectory(port.send_dht, drops=drops, families=frozenset({4}))
    port.on_dht(directory.handle_datagram)
    asked = Endpoint(str(arguments["host"]), int(str(arguments["port"])))
    answers = []
    for _ in range(int(str(arguments["count"]))):
        if not arguments["known"]:
            directory._queries.tokens.forget(asked)
        answers.append(await directory._queries.ask(asked, Rpc.FIND_NODE, os.urandom(20), retransmit=False))
        await asyncio.sleep(float(str(arguments["pause_s"])))
    await directory.close()
    port.close()
    milliseconds = sorted(round(1000 * answer.rtt_s, 1) for answer in answers if answer is not None)
    print(json.dumps({"asked": len(answers), "answered": len(milliseconds), "ms": milliseconds}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
