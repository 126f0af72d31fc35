"""Counts what a volunteer's node does, and puts it into its status document."""

import os
import time
from collections.abc import Callable
from typing import Final

from dhtvpn import __version__
from dhtvpn.control.bootstrap_figures import BootstrapStatus
from dhtvpn.discovery.caps import Caps
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.plain_stun import PlainStunService
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.relay_table import RelayTable

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_RESIDENT_FIELD: Final = 1  # proc_pid_statm(5): in pages


class Figures:
    """Made before the process is confined: it keeps /proc/self/statm open, which is out of reach later.
    ``directory``, ``stun``, ``relay`` and ``listen`` are set once they exist."""

    def __init__(self, port: UdpPort, drops: Drops, memory_octets: int, caps: Caps) -> None:
        self._port, self._drops = port, drops
        self._memory_octets, self._caps = memory_octets, caps
        self._began = time.monotonic()
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._received = self._received_octets = self._sent = self._sent_octets = 0
        self.listen: list[str] = []
        self.directory: KademliaDirectory | None = None
        self.stun: PlainStunService | None = None
        self.relay: RelayTable | None = None

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._statm)

    def send(self, datagram: bytes, endpoint: Endpoint) -> bool:
        """The port's, counted."""
        self._sent += 1
        self._sent_octets += len(datagram) + 1  # the prefix
        return self._port.send_dht(datagram, endpoint)

    def counting(self, handler: Callable[[bytes, Endpoint], None]) -> Callable[[bytes, Endpoint], None]:
        """``handler``, and each datagram counted."""

        def handle(data: bytes, source: Endpoint) -> None:
            self._received += 1
            self._received_octets += len(data) + 1
            handler(data, source)

        return handle

    def status(self) -> BootstrapStatus:
        """The document, as of now."""
        directory = self.directory
        storage = directory.storage if directory is not None else None
        relay = self.relay
        self._port.count_kernel_drops()
        return {
            "version": __version__,
            "listen": self.listen,
            "uptime_s": round(time.monotonic() - self._began, 1),
            "nodes": directory.size if directory is not None else 0,
            "rate": self._caps.answers_per_s,
            "busy": directory is not None and directory.busy,
            "memory": {"resident": self._resident(), "caches_limit": self._memory_octets},
            "stored": {
                "records": len(storage) if storage is not None else 0,
                "octets": storage.size_bytes if storage is not None else 0,
                "octets_limit": self._caps.stored_octets,
                "topics": storage.topics if storage is not None else 0,
                "prefixes": storage.prefixes if storage is not None else 0,
                "floors": storage.floors if storage is not None else 0,
                "subscriptions": len(directory.subscriptions) if directory is not None else 0,
                "subscriptions_limit": self._caps.subscriptions,
            },
            "traffic": {
                "dht_received": self._received,
                "dht_received_octets": self._received_octets,
                "dht_sent": self._sent,
                "dht_sent_octets": self._sent_octets,
                "stun_answered": self.stun.answered if self.stun is not None else 0,
            },
            "relay": {
                "on": relay is not None,
                "sources": len(relay) if relay is not None else 0,
                "ids": relay.ids if relay is not None else 0,
                "relayed": relay.relayed if relay is not None else 0,
                "relayed_octets": relay.relayed_octets if relay is not None else 0,
            },
            "drops": self._drops.as_dict(),
        }

    def _resident(self) -> int:
        fields = os.pread(self._statm, 256, 0).split()
        return int(fields[_RESIDENT_FIELD]) * _PAGE
