"""Send DHT requests from forged source addresses, as many a second as it is told; started in a namespace.

usage: forger.py JSON      {"host", "port", "rate", "seconds", "sources"}

Every datagram is a valid find_node without a token, 400 octets, from another address of 198.18.16.0 to
198.19.255.255. Prints "ready" when it begins. Ends after that time or with SIGTERM, and prints as JSON how
many it has sent, how many could not be sent, and in how many seconds.
"""

import json
import random
import signal
import socket
import struct
import sys
import time
from ipaddress import IPv4Address

from dhtvpn.discovery.wire import Flags, Request, Rpc, encode_request
from dhtvpn.nat.demux import DHT_PREFIX_BYTES

FIRST = int(IPv4Address("198.18.16.0"))
LAST = int(IPv4Address("198.19.255.255"))
TICK_S = 0.002


def packet(source: int, target: bytes, port: int, rng: random.Random) -> bytes:
    """IPv4 and UDP (no checksum: RFC 768 allows it), around a request of a made-up node."""
    request = Request(Rpc.FIND_NODE, rng.randbytes(20), b"", Flags.WANT_IPV4, rng.randbytes(20))
    payload = DHT_PREFIX_BYTES + encode_request(rng.randbytes(20), request)
    udp = struct.pack("!HHHH", rng.randrange(1024, 65536), port, 8 + len(payload), 0)
    total = 20 + len(udp) + len(payload)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 0, 0, 64, 17, 0, source.to_bytes(4, "big"), target)
    return header + udp + payload


def main(arguments: dict[str, object]) -> None:
    rng = random.Random(7)
    host, port = str(arguments["host"]), int(str(arguments["port"]))
    rate, seconds = float(str(arguments["rate"])), float(str(arguments["seconds"]))
    sources = rng.sample(range(FIRST, LAST), int(str(arguments["sources"])))
    pool = [packet(source, socket.inet_aton(host), port, rng) for source in sources]
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    tried = failed = 0
    print("ready", flush=True)  # noqa: T201
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds and not ended:
        while tried < (now - began) * rate and not ended:
            try:
                sock.sendto(pool[tried % len(pool)], (host, 0))
            except OSError:
                failed += 1
            tried += 1
        time.sleep(TICK_S)
    said = {"sent": tried - failed, "failed": failed, "seconds": time.monotonic() - began}
    print(json.dumps(said))  # noqa: T201


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
