"""Publishes this node's endpoint record: at once when it changes, and before the stored copies age out.

Only the publisher republishes (a holder that republishes can roll a newer value back), so
a record that is not renewed here is gone at its signed expiry.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from dhtvpn.discovery.directory import Directory
from dhtvpn.errors import DecodeError
from dhtvpn.identity import Identity
from dhtvpn.records.envelope import seal
from dhtvpn.records.epochs import publish_epochs
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.topic import Topic

log = logging.getLogger(__name__)

LIFETIME_S = 3600
"""From publication to the signed expiry."""
REPUBLISH_S = 600
"""New nodes come close to the key and old ones leave: renew well before the expiry."""
RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses after a publication that no other node confirmed; the last one repeats."""
GOODBYE_DEADLINE_S = 1.0
CHECK_S = 20.0
"""How often the epoch is looked at; ten minutes of overlap make the exact moment unimportant."""


class Announcer:
    """Owns the sequence number and the times of publication."""

    def __init__(
        self,
        *,
        directory: Directory,
        identity: Identity,
        topic_at: Callable[[int], Topic],
        record: Callable[[], EndpointRecord],
        random_bytes: Callable[[int], bytes],
        published: Callable[[int], None],
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._topic_at = topic_at
        self._record = record
        self._random_bytes = random_bytes
        self._published = published
        self._wanted = asyncio.Event()
        self._sequence = 0
        self.confirmed: dict[int, int] = {}
        """Epoch -> number of other nodes that confirmed our record, as of the last publication."""

    def announce(self) -> None:
        """Publish again soon: the record has changed, or the directory has new contacts."""
        self._wanted.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        failures = 0
        while True:
            self._wanted.clear()
            epochs = publish_epochs(time.time())
            stores = await self._publish(self._record())
            failures = 0 if stores else failures + 1
            pause = RETRY_S[min(failures, len(RETRY_S)) - 1] if failures else REPUBLISH_S
            await self._wait(pause, epochs)

    async def goodbye(self, record: EndpointRecord) -> None:
        """Publish ``record``, which says that we leave, without waiting long for anyone."""
        try:
            await asyncio.wait_for(self._publish(record), GOODBYE_DEADLINE_S)
        except TimeoutError:
            log.info("left without a confirmation from the directory")

    async def _publish(self, record: EndpointRecord) -> int:
        """Publish under every epoch that is due; return the fewest confirmations of any."""
        now = time.time()
        self._sequence = max(self._sequence + 1, int(now * 1000))
        confirmed = {}
        for epoch in publish_epochs(now):
            topic = self._topic_at(epoch)
            envelope = seal(
                record, topic, self._identity, self._sequence, int(now) + LIFETIME_S, self._random_bytes
            )
            try:
                confirmed[epoch] = await self._directory.publish(topic.dht_key, envelope)
            except DecodeError as error:
                # The clock jumped since the lines above, as after a suspend: the next round is soon.
                log.warning("our own record is refused (%s): trying again", error)
                confirmed[epoch] = 0
        self.confirmed = confirmed
        self._published(min(confirmed.values()))
        return min(confirmed.values())

    async def _wait(self, pause: float, epochs: list[int]) -> None:
        """Until something changed, the pause is over, or another epoch is due."""
        loop = asyncio.get_running_loop()
        end = loop.time() + pause
        while (left := end - loop.time()) > 0 and publish_epochs(time.time()) == epochs:
            try:
                await asyncio.wait_for(self._wanted.wait(), min(left, CHECK_S))
            except TimeoutError:
                continue
            return
