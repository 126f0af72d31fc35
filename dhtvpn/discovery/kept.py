"""What a node of the DHT keeps on disk besides contacts: the secrets of its tokens, and its floors.

Both make a restart invisible to others: tokens that were issued before are accepted, and no slot is rolled
back. Losing either costs others one more round trip, or a stale record at one of eight nodes.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dhtvpn.discovery.floors import KeptFloors
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.tokens import KeptTokens
from dhtvpn.errors import DamagedStateError

log = logging.getLogger(__name__)

TOKENS, FLOORS = "tokens.json", "floors"
SAVE_S: Final = 60.0
"""How often :meth:`KeptState.save` should be called. The secrets change every 300 s, and one is foreseen."""


class KeptState:
    """Two files in ``folder``, which exists."""

    def __init__(
        self,
        folder: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._tokens, self._floors = KeptTokens(folder / TOKENS), KeptFloors(folder / FLOORS)
        self._monotonic, self._unix_time = monotonic, unix_time

    def load(self, directory: KademliaDirectory) -> None:
        """Before the first datagram. What cannot be read costs a warning."""
        self._tokens.load(directory.tokens, self._monotonic(), self._unix_time())
        content = self._floors.load()
        if content is None:
            return
        try:
            directory.storage.unpack_floors(content, self._unix_time())
        except DamagedStateError:
            log.warning("the file %r is damaged: starting without floors", FLOORS)

    def save(self, directory: KademliaDirectory) -> None:
        """Now and then: writes when the secrets have changed. Raises SystemRefusedError."""
        self._tokens.save(directory.tokens, self._monotonic(), self._unix_time())

    def save_all(self, directory: KademliaDirectory) -> None:
        """When the node stops: floors too. They change with every record, so that writing them while it runs
        would cost a disk more than they are worth. Raises SystemRefusedError."""
        self.save(directory)
        self._floors.save(directory.storage.pack_floors())
