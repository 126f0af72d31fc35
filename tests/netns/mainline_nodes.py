"""A BitTorrent DHT of our own: ``python mainline_nodes.py ADDRESS...`` runs a libtorrent node on each.

The nodes know each other and nobody else. ``up`` is printed once all listen; they serve until stdin closes.
"""

import sys
import time
from typing import Final

from dhtvpn.discovery import libtorrent_session

PORT: Final = 6881
READY_S: Final = 20.0


def main(addresses: list[str]) -> None:
    libtorrent = libtorrent_session.load()
    sessions = []
    for address in addresses:
        settings = libtorrent_session.settings(libtorrent, [address], (), read_only=False, restricted=True)
        settings["listen_interfaces"] = f"{address}:{PORT}"
        sessions.append(libtorrent.session(settings))
    until = time.monotonic() + READY_S
    while not all(session.listen_port() == PORT for session in sessions):
        assert time.monotonic() < until, "libtorrent does not listen"
        time.sleep(0.02)
    for number, session in enumerate(sessions):
        for other in addresses[:number] + addresses[number + 1 :]:
            session.add_dht_node((other, PORT))
    sys.stdout.write("up\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
