"""Large networks: members that are looked up when the first packet goes to them, so that no node has to know
everyone (docs/adr/0011-large-networks.md).

While the roster topic has room, everyone is in it and knows everyone. Once it is full, every member is also
found under the topics of its overlay addresses and of its name, and watches the topic of its IPv6 address:
that is its *door*. Who wants to talk to it reads its record there and puts its own beside it, so that both
sides know each other's candidates one round trip later.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from ipaddress import IPv4Address, IPv6Address, ip_address

from dhtvpn.discovery.directory import Directory
from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.membership.addresses import ipv4_address, ipv4_network, ipv6_address, ipv6_network
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.finder import Finder
from dhtvpn.records.envelope import OpenedRecord, open_record
from dhtvpn.records.epochs import epoch_at, lookup_epochs, publish_epochs
from dhtvpn.records.record import MAX_NAME, EndpointRecord
from dhtvpn.records.roster import Change, Roster
from dhtvpn.records.topic import Topic
from dhtvpn.records.topics import NetworkTopics

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address

LOOKUP_DEADLINE_S = 3.0
"""From the first packet to the verdict that an address has no member: its sender gets ICMP unreachable by
then. A lookup takes under 1 s where nobody is dead, three soft timeouts more where many are."""

MAX_LOOKUPS = 32
"""At once; a packet to one more address is answered as if nobody had that address."""

CALL_S = 120
"""How long our record stays at somebody's door: enough for the first push and for a poll."""

CONTENDERS_S = 600.0
"""How often we look whether another member holds our IPv4 address: those who share one share its topic."""


class OnDemand:
    """Who else there is, beyond the roster."""

    def __init__(
        self,
        *,
        directory: Directory,
        network_id: NetworkId,
        own_key: bytes,
        own_name: str,
        own_ipv4: Callable[[], IPv4Address],
        roster_size: int,
        roster: Roster,
        connect: Callable[[OpenedRecord], None],
        contender: Callable[[OpenedRecord], None],
        no_member: Callable[[Address], None],
        resolve: Callable[[bool], None],
        became_crowded: Callable[[], None],
        drops: Drops,
        topics: NetworkTopics | None = None,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """``connect``: begin to connect to a member; ``contender``: somebody may hold our IPv4 address;
        ``no_member``: the verdict on an address that :meth:`wanted` asked for; ``resolve``: the engine
        shall ask for addresses that nobody holds, or shall not; ``became_crowded``: who is not connected
        yet need not be any more."""
        self._directory, self._network_id = directory, network_id
        self._topics = topics or NetworkTopics(network_id.secret)
        self._own_key, self._own_name, self._own_ipv4 = own_key, own_name, own_ipv4
        self._own_ipv6 = ipv6_address(network_id, own_key)
        self._size, self._roster = roster_size, roster
        self._connect, self._contender = connect, contender
        self._no_member, self._resolve, self._became_crowded = no_member, resolve, became_crowded
        self._drops, self._unix_time = drops, unix_time
        self._announcer: Announcer | None = None
        self._finder: Finder | None = None
        self._lookups: dict[Address, asyncio.Task[None]] = {}
        self._full = self._crowded = False

    def use(self, announcer: Announcer, finder: Finder) -> None:
        """Who publishes our record, and who reads the roster."""
        self._announcer, self._finder = announcer, finder

    # How large the network is

    def full(self) -> bool:
        """The roster topic of an epoch that we read has as many members as are to be in it."""
        return any(self._others_in(epoch) + self._in_roster(epoch) >= self._size for epoch in self._epochs())

    def crowded(self) -> bool:
        """There are more members than connect to each other at once."""
        return any(self._others_in(epoch) >= self._size for epoch in self._epochs())

    def roster_open(self, epoch: int) -> bool:
        """Whether there is room for us in the roster topic of ``epoch``."""
        return self._others_in(epoch) < self._size

    def roster_watched(self, epoch: int) -> bool:
        """Whether to watch the roster of ``epoch``. Once it is full only that of the next one is of use: it
        tells whether it is full again, and whether there is room for us."""
        return not self._full or epoch > epoch_at(self._unix_time())

    def published_topics(self, epoch: int) -> Sequence[Topic]:
        """Where else we are to be found in ``epoch``."""
        if not self.full():
            return ()
        return (self._door(epoch), self._ipv4_topic(epoch), self._name_topic(epoch, self._own_name))

    def watched_topics(self, epoch: int) -> Sequence[Topic]:
        """Where we are called in ``epoch``."""
        return (self._door(epoch),) if self.full() else ()

    def follow(self) -> None:
        """The roster has changed: publish, watch and ask accordingly."""
        full, crowded = self.full(), self.crowded()
        if crowded and not self._crowded:
            self._became_crowded()
        self._crowded = crowded
        if full == self._full:
            return
        self._full = full
        log.info("the roster is %s", "full: members are looked up" if full else "not full any more")
        self._resolve(full)
        if self._announcer is not None and self._finder is not None:
            self._announcer.announce()
            self._finder.follow()

    # Looking up

    def wanted(self, address: Address, *, fresh: bool = False) -> None:
        """A packet goes to ``address``, which no peer has: find the member, or say that there is none.
        ``fresh``: what we know of the member does not help any more."""
        if address in self._lookups:
            return
        if len(self._lookups) >= MAX_LOOKUPS:
            self._drops.count("node", "lookups_full")
            self._no_member(address)
            return
        task = asyncio.get_running_loop().create_task(self._look_up_wanted(address, fresh))
        self._lookups[address] = task
        task.add_done_callback(lambda _: self._lookups.pop(address, None))

    async def seek(self, text: str) -> bool:
        """Find and connect to whomever a person means by a name or an overlay address; whether there is
        anybody, after LOOKUP_DEADLINE_S at most."""
        try:
            address = ip_address(text)
        except ValueError:
            return await self._seek_name(text.strip().lower())
        return await self._seek_address(address)

    async def run(self) -> None:
        """Look for contenders for our IPv4 address, until cancelled."""
        while True:
            self.follow()
            if self._full:
                for opened in await self._find(self._ipv4_topic, lambda _: False):
                    self._contender(opened)
            await asyncio.sleep(CONTENDERS_S)

    async def close(self) -> None:
        """End every lookup."""
        tasks = list(self._lookups.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Inside

    async def _look_up_wanted(self, address: Address, fresh: bool) -> None:
        if not await self._seek_address(address, fresh=fresh):
            self._no_member(address)

    async def _seek_address(self, address: Address, *, fresh: bool = False) -> bool:
        inside = address in ipv4_network(self._network_id) or address in ipv6_network(self._network_id)
        if not inside or address in (self._own_ipv6, self._own_ipv4()):
            return False
        known = [] if fresh else self._roster.as_list()
        found = [opened for opened in known if self._holds(opened.record, address)]
        if not found and self.full():
            found = await self._find(
                lambda epoch: self._topics.of_address(epoch, address),
                lambda opened: self._holds(opened.record, address),
            )
        return await self._meet(opened for opened in found if self._holds(opened.record, address))

    async def _seek_name(self, name: str) -> bool:
        if not 0 < len(name) <= MAX_NAME:
            return False
        found = [opened for opened in self._roster.as_list() if opened.record.name == name]
        if not found and self.full():
            found = await self._find(lambda epoch: self._name_topic(epoch, name), lambda _: False)
        return await self._meet(opened for opened in found if opened.record.name == name)

    async def _meet(self, found: Iterable[OpenedRecord]) -> bool:
        """Connect to members that were found, and leave our record at their doors."""
        members = list(found)
        for opened in members:
            self._connect(opened)
        await asyncio.gather(*(self._call(opened.record.node_key) for opened in members))
        return bool(members)

    async def _call(self, node_key: bytes) -> None:
        now = self._unix_time()
        epoch = publish_epochs(now)[0]
        door = self._topics.of_address(epoch, ipv6_address(self._network_id, node_key))
        expires = int(now) // 60 * 60 + 60 + CALL_S
        envelope = self._announcer.sealed(door, expires) if self._announcer is not None else None
        if envelope is None:
            return
        try:
            async with asyncio.timeout(LOOKUP_DEADLINE_S):
                await self._directory.publish(door.dht_key, envelope)
        except (TimeoutError, DecodeError) as error:
            log.info("no call left with a member (%s)", error)

    async def _find(
        self, topic_at: Callable[[int], Topic], enough: Callable[[OpenedRecord], bool]
    ) -> list[OpenedRecord]:
        """Members under the topics of all epochs that are read: until one is ``enough``, or the searches
        have ended, or the deadline has come."""
        found: dict[bytes, OpenedRecord] = {}
        done = asyncio.Event()

        async def look(topic: Topic) -> None:
            async with aclosing(self._directory.lookup(topic.dht_key)) as envelopes:
                async for envelope in envelopes:
                    opened = self._open(envelope, topic)
                    if opened is not None:
                        found[opened.record.node_key] = opened
                        if enough(opened):
                            done.set()

        searches = [asyncio.create_task(look(topic_at(epoch))) for epoch in self._epochs()]
        running = {asyncio.create_task(_all_of(searches)), asyncio.create_task(_true(done))}
        try:
            await asyncio.wait(running, timeout=LOOKUP_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*searches, *running):
                task.cancel()
            await asyncio.gather(*searches, *running, return_exceptions=True)
        return list(found.values())

    def _open(self, envelope: bytes, topic: Topic) -> OpenedRecord | None:
        now = self._unix_time()
        try:
            opened = open_record(envelope, topic, now)
        except DecodeError as error:
            self._drops.count("record", error.reason)
            return None
        if opened.record.node_key == self._own_key or opened.record.leaving:
            return None
        if self._roster.offer(opened, now) is Change.STALE:
            self._drops.count("record", "stale")
            return None
        return opened

    def _holds(self, record: EndpointRecord, address: Address) -> bool:
        """Whether ``record`` is of the member that ``address`` is computed from."""
        if address.version == 6:
            return ipv6_address(self._network_id, record.node_key) == address
        return ipv4_address(self._network_id, record.node_key, record.ipv4_attempt) == address

    def _others_in(self, epoch: int) -> int:
        return 0 if self._finder is None else self._finder.members_in(epoch)

    def _in_roster(self, epoch: int) -> bool:
        return self._announcer is not None and self._announcer.in_roster(epoch)

    def _epochs(self) -> list[int]:
        return lookup_epochs(self._unix_time())

    def _door(self, epoch: int) -> Topic:
        return self._topics.of_address(epoch, self._own_ipv6)

    def _ipv4_topic(self, epoch: int) -> Topic:
        return self._topics.of_address(epoch, self._own_ipv4())

    def _name_topic(self, epoch: int, name: str) -> Topic:
        return self._topics.of_name(epoch, name)


async def _all_of(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


async def _true(event: asyncio.Event) -> None:
    await event.wait()
