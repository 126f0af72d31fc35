"""What a storing node can learn (docs/threat-model.md), read from all that it holds and all that it receives.

Two members of one network publish and watch through a node that is no member, in two epochs. Then everything
that this node has in memory, would write to disk, and has seen on the wire is searched for their secrets.
"""

import asyncio
import collections
import ipaddress
import random
from dataclasses import fields
from pathlib import Path

import pytest
from discovery_simulation import UNIX_START, Network, run

from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.kept import KeptState
from dhtvpn.discovery.storage import Stored
from dhtvpn.discovery.wire import Request
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.membership import network_id as network_ids
from dhtvpn.membership.addresses import ipv4_address, ipv4_network, ipv6_address, ipv6_network
from dhtvpn.records.envelope import BUCKETS, Envelope, inspect, open_record, seal
from dhtvpn.records.epochs import EPOCH_S, epoch_at, expiry_of
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.topic import Topic

PAGE = Path(__file__).parents[3] / "docs" / "threat-model.md"
STORING = Endpoint("198.18.9.1", 4690)
NAMES = ["livingroom-server", "annas-laptop"]
OWN_ROOMS = ("dhtvpn", "kademlia", "collections", "builtins")
WINDOW = 5
"""Octets: that some thousand random ones share so many by chance is one case in a million."""


class Member:
    """One member with its DHT node; its candidates are not where its datagrams come from."""

    def __init__(self, net, number, rng, network_id):
        self.network_id, self.rng = network_id, rng
        self.identity = Identity.from_seed(rng.randbytes(32))
        self.endpoint = Endpoint(f"198.18.{20 + number}.5", 40_000 + number)
        self.candidates = [
            Candidate(Endpoint(f"192.168.77.{50 + number}", 41_234), CandidateKind.HOST),
            Candidate(Endpoint(f"2001:db8:77::{50 + number}", 41_234), CandidateKind.HOST),
            Candidate(Endpoint(f"203.0.113.{50 + number}", 45_678), CandidateKind.REFLEXIVE),
        ]
        self.record = EndpointRecord(
            node_key=self.identity.node_key,
            name=NAMES[number],
            session_nonce=rng.randbytes(16),
            candidates=tuple(self.candidates),
            ipv4_attempt=0,
            since=UNIX_START - 1000 * number,
            features=7,
        )
        self.directory = directory_at(net, self.endpoint, rng)

    async def publish(self, net):
        now = net.unix_time()
        topic = self.topic(now)
        envelope = seal(
            self.record, topic, self.identity, int(now * 1000), expiry_of(topic.epoch), self.rng.randbytes
        )
        await self.directory.publish(topic.dht_key, envelope)

    async def read_names(self, net):
        topic = self.topic(net.unix_time())
        envelopes = [envelope async for envelope in self.directory.lookup(topic.dht_key)]
        return {open_record(envelope, topic, net.unix_time()).record.name for envelope in envelopes}

    def topic(self, unix_time):
        return Topic.derive(self.network_id.secret, epoch_at(unix_time))

    def secrets(self):
        """What nobody outside shall see, each with the forms in which it might appear."""
        node_key, network_id = self.identity.node_key, self.network_id
        yield from octets("node key", node_key)
        yield from octets("tunnel key", self.identity.tunnel_public_key)
        yield from octets("session nonce", self.record.session_nonce)
        yield "name", self.record.name.encode()
        yield "short id", self.identity.short_id.encode()
        for address in (ipv4_address(network_id, node_key), ipv6_address(network_id, node_key)):
            yield from address_forms("overlay address", address)
        for candidate in self.candidates:
            yield from address_forms("candidate", ipaddress.ip_address(candidate.endpoint.host))


def octets(what, value):
    yield from ((what, value), (what, value.hex().encode()))


def address_forms(what, address):
    yield from ((what, address.packed), (what, str(address).encode()))


def network_secrets(network_id):
    yield from octets("network secret", network_id.secret)
    yield from octets("network key", network_id.public_key)
    yield "network-id", network_id.encode().encode()
    yield "network's short id", network_id.short.encode()
    yield "overlay network", ipv6_network(network_id).network_address.packed[:8]
    yield "overlay network", str(ipv4_network(network_id)).encode()
    for epoch in range(epoch_at(UNIX_START) - 1, epoch_at(UNIX_START) + 4):
        topic = Topic.derive(network_id.secret, epoch)
        yield from octets("topic's private key", bytes(topic.signing_key))
        yield from octets("sealing key", topic.sealing_key)
        yield from octets("slot key", topic.slot_key)


def directory_at(net, endpoint, rng):
    directory = KademliaDirectory(
        net.sender(endpoint),
        inspect=inspect,
        families=frozenset({4}),
        monotonic=asyncio.get_running_loop().time,
        unix_time=net.unix_time,
        random_bytes=rng.randbytes,
    )
    net.handlers[endpoint] = directory.handle_datagram
    net.directories.append(directory)
    return directory


def everything_in(thing, seen=None):
    """Every byte string and every text that can be reached from ``thing``."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, bytes | bytearray):
        yield bytes(thing)
    elif isinstance(thing, str):
        yield thing.encode()
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from everything_in(key, seen)
            yield from everything_in(value, seen)
    elif isinstance(thing, list | tuple | set | frozenset | collections.deque):
        for item in thing:
            yield from everything_in(item, seen)
    elif type(thing).__module__.partition(".")[0] in OWN_ROOMS and not callable(thing):
        for name in [*getattr(thing, "__dict__", {}), *getattr(type(thing), "__slots__", ())]:
            yield from everything_in(getattr(thing, name, None), seen)


def windows(parts):
    return {part[i : i + WINDOW] for part in parts for i in range(len(part) - WINDOW + 1)}


async def keep_watching(member, unix_time):
    async for _ in member.directory.watch(member.topic(unix_time).dht_key):
        pass


async def one_epoch(net, storing, members):
    """The members watch and publish; returns what the storing node holds of it."""
    now = net.unix_time()
    watches = [asyncio.ensure_future(keep_watching(member, now)) for member in members]
    for member in members:
        await member.publish(net)
    await asyncio.sleep(60)
    for member in members:
        assert await member.read_names(net) == set(NAMES)
    assert len(storing.subscriptions) > 0
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    topic = members[0].topic(now)
    return [inspect(s.envelope, topic.dht_key, now) for s in storing.storage.get(topic.dht_key, now)]


async def two_members_in_two_epochs(disk):
    """What the storing node has in memory, has received, has written; its envelopes by epoch; the members."""
    net, rng = Network(), random.Random(42)
    storing = directory_at(net, STORING, rng)
    network_id, _ = network_ids.create(rng.randbytes)
    members = [Member(net, number, rng, network_id) for number in range(2)]
    kept = KeptState(disk, monotonic=asyncio.get_running_loop().time, unix_time=net.unix_time)
    await storing.start()
    async with kept.keeping(storing):
        for member in members:
            await member.directory.start([STORING])
        held = [await one_epoch(net, storing, members)]
        await asyncio.sleep(EPOCH_S)
        held.append(await one_epoch(net, storing, members))
        memory = list(everything_in(storing))
    received = [data for _, destination, data in net.log if destination == STORING]
    await net.close()
    return memory, received, [path.read_bytes() for path in disk.iterdir()], held, members


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    return run(two_members_in_two_epochs(tmp_path_factory.mktemp("disk")))


def test_no_secret_of_a_member_or_its_network_is_in_what_it_has_or_receives(learned):
    memory, received, written, held, members = learned
    assert [len(envelopes) for envelopes in held] == [2, 2]
    assert len(memory) > 30
    assert len(received) > 20
    assert len(written) == 3
    for member in members:
        for what, secret in [*member.secrets(), *network_secrets(member.network_id)]:
            assert len(secret) >= 4
            for where, pieces in (("memory", memory), ("datagrams", received), ("disk", written)):
                assert not any(secret in piece for piece in pieces), f"{what} in its {where}"


def test_the_search_would_find_what_is_there(learned):
    """The same search does find what the page says that it learns."""
    memory, received, _, held, members = learned
    for envelopes in held:
        for envelope in envelopes:
            for part in (envelope.topic_public_key, envelope.slot, envelope.ciphertext, envelope.signature):
                assert any(part in piece for piece in received)
    assert any(held[1][0].slot in piece for piece in memory)
    assert any(member.endpoint.host.encode() in piece for piece in memory for member in members)


def test_two_epochs_share_nothing(learned):
    """Neither topic, slots, ciphertexts nor signatures have even a few octets in common."""
    _, _, _, (first, second), members = learned
    parts = [
        [part for e in epoch for part in (e.topic_public_key, e.slot, e.ciphertext, e.signature)]
        for epoch in (first, second)
    ]
    keys = [Topic.derive(members[0].network_id.secret, epoch_at(UNIX_START) + n).dht_key for n in range(2)]
    assert not windows([*parts[0], keys[0]]) & windows([*parts[1], keys[1]])


def test_sizes_are_padded(learned):
    _, _, _, held, _ = learned
    sizes = {len(envelope.ciphertext) for epoch in held for envelope in epoch}
    assert len(sizes) == 1, "members with different names and candidates look alike"
    assert all(size - 40 in BUCKETS for size in sizes)
    assert len(NAMES[0]) != len(NAMES[1])


def test_the_disk_holds_no_topic_slot_or_address_of_who_stores(learned):
    _, _, written, held, members = learned
    for envelope in (envelope for epoch in held for envelope in epoch):
        assert not any(envelope.slot in piece or envelope.topic_public_key in piece for piece in written)
    for member in members:
        for _, form in address_forms("", ipaddress.ip_address(member.endpoint.host)):
            assert not any(form in piece for piece in written)


def test_the_page_lists_every_field_that_it_sees():
    """A field that is added to the wire or to the storage has to be added to the page."""
    page = PAGE.read_text()
    section = page[page.index("### What a storing node learns") :]
    section = section[: section.index("\n## ")]
    listed = {
        cell.strip()
        for line in section.splitlines()
        if line.startswith("| `")
        for cell in line.split("|")[1].split(",")
    }
    envelope = {f.name for f in fields(Envelope)}
    stored = {f.name for f in fields(Stored)}
    request = {f.name for f in fields(Request)}
    assert {name.strip("`") for name in listed} == envelope | stored | request
