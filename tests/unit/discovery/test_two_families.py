"""IPv4 and IPv6: one socket each, one spelling of every address, both routing tables in use."""

import asyncio
import ipaddress

from discovery_simulation import Network, fake_envelope, fake_inspect, run
from test_kademlia import collect

from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.port import UdpPort

KEY = bytes(range(20))
BOTH = frozenset({4, 6})
UNIX_TIME = 1_800_000_000.0


async def open_node():
    drops = Drops()
    port = await UdpPort.open(None, "127.0.0.1", "::1", drops=drops, tunnel_sockets=False)
    sent = []

    def send(data, endpoint):
        sent.append(endpoint)
        port.send_dht(data, endpoint)

    directory = KademliaDirectory(
        send,
        inspect=fake_inspect,
        drops=drops,
        families=frozenset(port.families),
        unix_time=lambda: UNIX_TIME,
    )
    port.on_dht(directory.handle_datagram)
    return port, directory, sent


async def test_one_node_on_two_sockets_knows_another_under_both_addresses():
    """Real sockets: an IPv4 address is reached though there is an IPv6 socket, and comes back as itself."""
    nodes = [await open_node() for _ in range(2)]
    try:
        (port, directory, sent), (other_port, other, _) = nodes
        addresses = [Endpoint("127.0.0.1", other_port.port), Endpoint("::1", other_port.port)]
        for endpoint in addresses:
            assert await directory.bootstrap([endpoint]) == 1
        assert set(directory.contacts()) == set(addresses)
        assert {endpoint.is_ipv6 for endpoint in sent} == {False, True}
        while len(other.contacts()) < 2:  # noqa: ASYNC110 - it meets who asks it, which sets no event
            await asyncio.sleep(0.01)
        assert set(other.contacts()) == {Endpoint("127.0.0.1", port.port), Endpoint("::1", port.port)}
        assert await directory.publish(KEY, fake_envelope(KEY, 1, 1)) >= 1
        assert len(await collect(other, KEY)) == 1
    finally:
        for port, directory, _ in nodes:
            await directory.close()
            port.close()


def test_contacts_are_in_one_spelling_whatever_the_socket_calls_them():
    for address in (("::ffff:198.18.0.1", 4690, 0, 0), ("198.18.0.1", 4690)):
        assert Endpoint.from_socket(address) == Endpoint("198.18.0.1", 4690)
    assert Endpoint.from_socket(("fe80::1%eth0", 4690, 0, 2)) == Endpoint("fe80::1", 4690).in_zone(2)
    packed = ipaddress.ip_address("2001:0db8:0:0::1").packed + (4690).to_bytes(2, "big")
    assert Endpoint.unpack(packed) == Endpoint("2001:db8::1", 4690)


def test_either_family_alone_carries_a_lookup():
    """Everybody has both; then one of them stops working. What was published over both is found over the
    other."""

    async def scenario():
        for broken in (4, 6):
            net = Network(seed=broken)
            nodes = [net.node(number, families=BOTH) for number in range(20)]
            for node in nodes:
                await node.start([net.endpoint(0), net.endpoint(0, 6)])
            await asyncio.sleep(20)
            assert await nodes[1].publish(KEY, fake_envelope(KEY, 1, 1)) == 8
            for number in range(20):
                del net.handlers[net.endpoint(number, broken)]
            net.log.clear()
            assert len(await collect(nodes[9], KEY)) == 1
            asked = {to.is_ipv6 for source, to, _ in net.log if source == net.endpoint(9, 10 - broken)}
            assert asked == {broken == 4}
            await net.close()

    run(scenario())


def test_both_tables_are_filled_and_kept_apart():
    async def scenario():
        net = Network()
        nodes = [net.node(number, families=BOTH) for number in range(12)]
        for node in nodes:
            await node.start([net.endpoint(0), net.endpoint(0, 6)])
        await asyncio.sleep(30)
        for node in nodes[1:]:
            for family in (4, 6):
                contacts = node._table.find_neighbors(KEY, 20, family)
                assert len(contacts) >= 8
                assert all(contact.family == family and contact.fits for contact in contacts)
        await net.close()

    run(scenario())


def test_a_node_of_one_family_takes_no_datagram_and_no_contact_of_the_other():
    async def scenario():
        net = Network()
        await net.grow(4)
        four = net.node(9)
        await four.start([net.endpoint(0), net.endpoint(0, 6)])
        await asyncio.sleep(5)
        before = four._drops.as_dict()
        four.handle_datagram(b"\x00" * 60, net.endpoint(1, 6))
        assert four._drops.as_dict() == before
        assert not any(endpoint.is_ipv6 for endpoint in four.contacts())
        assert not any(to.is_ipv6 for source, to, _ in net.log if source == net.endpoint(9))
        await net.close()

    run(scenario())
