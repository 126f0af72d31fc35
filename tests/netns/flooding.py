"""flooder.py at work on a machine, while a test looks at what the flooded node does."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from joined import status

from dhtvpn.lab.machine import Machine

FLOODER = Path(__file__).with_name("flooder.py")
RATE = 100_000  # datagrams per second


@contextmanager
def flood(source: Machine, target: Machine, mode: str, seconds: float, rate: int = RATE) -> Iterator[None]:
    """RATE datagrams a second from 256 ports of ``source`` to the port of ``target``'s node."""
    node = status(target)["node"]
    arguments = {
        "host": str(target.ipv4),
        "port": node["udp_port"],
        "rate": rate,
        "seconds": seconds,
        "mode": mode,
        "key": base64.b64decode(node["public_key"]).hex(),
        "sources": 256,
    }
    flooder = source.popen(
        [sys.executable, str(FLOODER), json.dumps(arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert flooder.stdout is not None
        assert flooder.stdout.readline() == "ready\n", flooder.communicate()[1]
        yield
        assert flooder.poll() is None, "the flood ended before the test"
    finally:
        flooder.kill()
        flooder.communicate()
