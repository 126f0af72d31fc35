"""Send datagrams to one port as fast as it is told, from many source ports; started by tests in a namespace.

usage: flooder.py JSON      {"host", "port", "rate", "seconds", "mode", "key", "sources"}

One UDP_SEGMENT call sends a run of equal datagrams, so that 100,000 a second cost little. The interface is
set to cut the runs: the receiving machine sees every datagram on its own, as from a network card. Prints
"ready" when it begins and what it has sent, as JSON, when it ends.

Modes: "noise" is random bytes of any length. "plausible" has the first bytes of every kind that a node
takes, and noise behind. "initiations" are WireGuard handshake initiations with a valid mac1 for ``key``
(hexadecimal). "data" is type 4 with random receiver indices.
"""

import hashlib
import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

SOL_UDP, UDP_SEGMENT = 17, 103
MAX_RUN_BYTES, MAX_RUN = 65_000, 64
TICK_S = 0.002
POOL = 512  # runs made before the start, sent again and again
LONGEST = 1400

Run = tuple[bytes, int]  # datagrams, and the length of each


def noise(rng: random.Random, key: bytes) -> Run:
    size = rng.randint(1, LONGEST)
    return _run(size, lambda: rng.randbytes(size))


def plausible(rng: random.Random, key: bytes) -> Run:
    kind = rng.randrange(7)
    if kind < 5:
        size = {1: 148, 2: 92, 3: 64}.get(kind + 1) or rng.randint(32, LONGEST)
        return _run(size, lambda: bytes([kind + 1, 0, 0, 0]) + rng.randbytes(size - 4))
    if kind == 5:
        size = rng.randint(22, 1200)
        return _run(size, lambda: bytes([0xD7, rng.randrange(3)]) + rng.randbytes(size - 2))
    size = 4 * rng.randint(5, 60)
    head = struct.pack("!HHI", 1, size - 20, 0x2112A442)
    return _run(size, lambda: head + rng.randbytes(size - 8))


def initiations(rng: random.Random, key: bytes) -> Run:
    mac1_key = hashlib.blake2s(b"mac1----" + key).digest()

    def one() -> bytes:
        message = b"\1\0\0\0" + rng.randbytes(112)
        return message + hashlib.blake2s(message, digest_size=16, key=mac1_key).digest() + bytes(16)

    return _run(148, one)


def data(rng: random.Random, key: bytes) -> Run:
    size = rng.randint(32, LONGEST)
    return _run(size, lambda: b"\4\0\0\0" + rng.randbytes(size - 4))


def mixed(rng: random.Random, key: bytes) -> Run:
    return rng.choice((noise, plausible))(rng, key)


MODES: dict[str, Callable[[random.Random, bytes], Run]] = {
    "noise": noise,
    "plausible": plausible,
    "mixed": mixed,
    "initiations": initiations,
    "data": data,
}


def _run(size: int, one: Callable[[], bytes]) -> Run:
    return b"".join(one() for _ in range(min(MAX_RUN, MAX_RUN_BYTES // size))), size


def flood(arguments: dict[str, object], rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yields (datagrams sent, calls that failed) after every tick."""
    family = socket.AF_INET6 if ":" in str(arguments["host"]) else socket.AF_INET
    make, key = MODES[str(arguments["mode"])], bytes.fromhex(str(arguments.get("key", "")))
    pool = [make(rng, key) for _ in range(POOL)]
    sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(int(str(arguments["sources"])))]
    for sock in sockets:
        sock.connect((str(arguments["host"]), int(str(arguments["port"]))))
        sock.setblocking(False)
    rate, seconds = float(str(arguments["rate"])), float(str(arguments["seconds"]))
    sent = failed = 0
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        while sent < (now - began) * rate:
            runs, size = pool[rng.randrange(POOL)]
            option = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))]
            try:
                sockets[rng.randrange(len(sockets))].sendmsg([runs], option)
            except OSError:
                failed += 1  # refused by ICMP, or the buffer is full; the pace is kept all the same
            sent += len(runs) // size
        yield sent, failed
        time.sleep(TICK_S)


def main(arguments: dict[str, object]) -> None:
    subprocess.run(["ip", "link", "set", "eth0", "gso_max_segs", "1"], check=True)
    sent = failed = 0
    print("ready", flush=True)  # noqa: T201
    for sent, failed in flood(arguments, random.Random(str(arguments.get("seed", 0)))):  # noqa: B007
        pass
    print(json.dumps({"sent": sent, "failed": failed}))  # noqa: T201


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
