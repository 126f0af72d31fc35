"""The IPv4 address that this node holds, kept over restarts, and who moves when two nodes hold one.

The host part of the address comes from the hash of the node key and a number of attempts
(membership/addresses.py). When another member holds the same address, both come to the same verdict
from the two claims alone, and the one that yields goes on to its next attempt.
"""

import logging
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

from dhtvpn import files
from dhtvpn.errors import DamagedStateError, SystemRefusedError
from dhtvpn.membership.addresses import MAX_ATTEMPTS, Claim, ipv4_address, settle
from dhtvpn.membership.network_id import NetworkId

log = logging.getLogger(__name__)


class OwnClaim:
    """This node's claim, as it stands on disk in ``claim.json``."""

    def __init__(self, path: Path, network_id: NetworkId, node_key: bytes, unix_time: float) -> None:
        """Read the claim, or make a first one as of ``unix_time``. Raises SystemRefusedError."""
        self._path = path
        self._network_id = network_id
        self._claim = self._read(node_key) or Claim(node_key, 0, int(unix_time))
        self._write()

    @property
    def attempt(self) -> int:
        return self._claim.attempt

    @property
    def since(self) -> int:
        """Unix seconds."""
        return self._claim.since

    @property
    def address(self) -> IPv4Address:
        return ipv4_address(self._network_id, self._claim.node_key, self._claim.attempt)

    def settle(self, others: Iterable[Claim], unix_time: float) -> bool:
        """Move on when one of ``others`` holds our address by the better claim. Returns whether we moved.

        Where every attempt is taken the claim stays as it is: peers then give the address to the other.
        A disk that refuses the new claim costs only its memory: it is settled again after a restart.
        """
        settled = settle(self._network_id, self._claim, others, unix_time)
        if settled is None or settled == self._claim:
            return False
        self._claim = settled
        try:
            self._write()
        except SystemRefusedError as error:
            log.warning("%s", error)
        return True

    def _read(self, node_key: bytes) -> Claim | None:
        try:
            stored = files.read_json(self._path)
            if stored is None:
                return None
            attempt, since = int(stored["attempt"]), int(stored["since"])
            if not 0 <= attempt < MAX_ATTEMPTS:
                raise ValueError
        except (DamagedStateError, KeyError, TypeError, ValueError):
            copy = files.keep_copy(self._path)
            log.warning("%s is damaged: kept as %s, starting with a new claim", self._path, copy)
            return None
        return Claim(node_key, attempt, since)

    def _write(self) -> None:
        files.write_json(self._path, {"attempt": self._claim.attempt, "since": self._claim.since})
