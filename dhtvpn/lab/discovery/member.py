"""A member as ``dhtvpn join`` runs it, with a setting that the command does not have: watch switched off.

``python -m dhtvpn.lab.discovery.member`` reads one JSON object from stdin: ``state_dir``, ``network`` (a name
known there), ``hostname``, ``bootstrap`` (a list of HOST:PORT) and ``watch``. Prints ``up`` when the node is
ready.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path

from dhtvpn.daemon import NodeConfig, run_node
from dhtvpn.networks import Cipher, NetworkStore, socket_path


def main() -> int:
    """Run until SIGTERM."""
    given = json.load(sys.stdin)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    state_dir = Path(given["state_dir"])
    known = NetworkStore(state_dir).find(given["network"])
    config = NodeConfig(
        state_dir=state_dir,
        network_directory=known.directory,
        network=known.name,
        network_id=known.network_id,
        hostname=given["hostname"],
        bootstrap=tuple(given["bootstrap"]),
        port=None,
        interface=None,
        cipher=Cipher.AUTO,
        socket_path=socket_path(state_dir, known.name),
        watch=given["watch"],
    )

    def ready() -> None:
        sys.stdout.write("up\n")
        sys.stdout.flush()

    asyncio.run(run_node(config, lambda kind, text: logging.info("%s: %s", kind, text), ready))
    return 0


if __name__ == "__main__":
    sys.exit(main())
