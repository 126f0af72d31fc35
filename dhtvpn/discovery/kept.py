"""What a node of the DHT keeps on disk besides contacts: its ids, the secrets of its tokens, and its floors.

They make a restart invisible to others: it is found under the id by which they know it, tokens that were
issued before are accepted, and no slot is rolled back. Losing them costs others a failed query, one more
round trip, or a stale record at one of eight nodes.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from dhtvpn.discovery.floors import KeptFloors
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.tokens import KeptTokens
from dhtvpn.errors import DamagedStateError, SystemRefusedError
from dhtvpn.files import keep_copy, read_json, write_json

log = logging.getLogger(__name__)

TOKENS, FLOORS, IDS = "tokens.json", "floors", "node_ids.json"
IDS_VERSION: Final = 1
SAVE_S: Final = 60.0
"""How often ids and secrets are looked at. Secrets change every 300 s, and the next one is written ahead."""


class KeptState:
    """Three files in ``folder``, which exists."""

    def __init__(
        self,
        folder: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._tokens, self._floors = KeptTokens(folder / TOKENS), KeptFloors(folder / FLOORS)
        self._ids, self._ids_written = folder / IDS, dict[str, dict[str, str | None]]()
        self._monotonic, self._unix_time = monotonic, unix_time

    @asynccontextmanager
    async def keeping(self, directory: KademliaDirectory) -> AsyncIterator[None]:
        """Take up what is there, before the first datagram; write every SAVE_S and at the end. Nothing that
        fails here ends the node: it costs a warning."""
        self._load(directory)
        task = asyncio.create_task(self._save_now_and_then(directory))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._save(directory)
            with _warned():
                self._floors.save(directory.storage.pack_floors())

    def _load(self, directory: KademliaDirectory) -> None:
        self._load_ids(directory)
        self._tokens.load(directory.tokens, self._monotonic(), self._unix_time())
        content = self._floors.load()
        if content is None:
            return
        try:
            directory.storage.unpack_floors(content, self._unix_time())
        except DamagedStateError:
            log.warning("the file %r is damaged: starting without floors", FLOORS)

    def _load_ids(self, directory: KademliaDirectory) -> None:
        """Ids may be those of an address that we do not have any more: others tell us then."""
        try:
            content = read_json(self._ids)
            if content is None:
                return
            if content["version"] != IDS_VERSION:
                raise ValueError("version")
            directory.restore_ids(content["ids"])
        except SystemRefusedError as error:
            log.warning("%s: starting with a new node id", error)
        except (DamagedStateError, ValueError, TypeError, KeyError, AttributeError) as error:
            with _warned():
                copy = keep_copy(self._ids)
                log.warning(
                    "%s is damaged (%s), copied to %s: starting with a new node id", self._ids, error, copy
                )

    def _save(self, directory: KademliaDirectory) -> None:
        """Only ids and secrets, when they have changed. Floors change with every record: writing them while
        the node runs would cost a disk more than they are worth."""
        with _warned():
            if (ids := directory.own.state()) != self._ids_written:
                write_json(self._ids, {"version": IDS_VERSION, "ids": ids})
                self._ids_written = ids
            self._tokens.save(directory.tokens, self._monotonic(), self._unix_time())

    async def _save_now_and_then(self, directory: KademliaDirectory) -> None:
        while True:
            self._save(directory)
            await asyncio.sleep(SAVE_S)


@contextmanager
def _warned() -> Iterator[None]:
    try:
        yield
    except SystemRefusedError as error:
        log.warning("%s", error)
