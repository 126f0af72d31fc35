"""A session of ours that stores again and again: ``python mainline_user.py ADDRESS ROUTER:PORT ROUNDS``.

Prints as JSON how many seconds each store took, and how many nodes confirmed it.
"""

import asyncio
import json
import sys
import time

from nacl.signing import SigningKey

from dhtvpn.discovery.mainline_session import MainlineSession
from dhtvpn.endpoint import Endpoint, split_host_port


async def main(address: str, router: str, rounds: int) -> None:
    session = await MainlineSession.open([address], [Endpoint(*split_host_port(router))])
    try:
        async with asyncio.timeout(20):
            await session.has_nodes.wait()
        key, stores = SigningKey.generate(), []
        for number in range(rounds):
            began = time.monotonic()
            confirmed = await session.put(key, b"salt %d" % number, b"value")
            stores.append({"seconds": round(time.monotonic() - began, 2), "confirmed": confirmed})
        sys.stdout.write(json.dumps(stores) + "\n")
    finally:
        await session.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
