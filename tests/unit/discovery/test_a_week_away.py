"""A node that was off for a week finds back with what it has on disk, and nothing else."""

import asyncio
import random

import pytest
from discovery_simulation import UNIX_START, Network, fake_envelope, run
from test_kademlia import collect

from dhtvpn.discovery.kept import KeptState
from dhtvpn.discovery.node_ids import fits
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.remembered import MAX_CONTACTS, RememberedContacts

KEY = bytes(range(20))
WEEK_S = 7 * 86_400
SIZE, AWAY = 80, 5


class Disk:
    """What the node keeps, and its clock."""

    def __init__(self, folder, net):
        self.ahead_s = 0.0
        self._net = net
        self.state = KeptState(folder, monotonic=asyncio.get_running_loop().time, unix_time=self.unix_time)
        self.contacts = RememberedContacts(folder / "contacts.json", self.unix_time)

    def unix_time(self):
        return self._net.unix_time() + self.ahead_s


async def replace_most(net, nodes, share, families, seed=1):
    """``share`` of the nodes are gone; as many have come at other addresses, through those who stayed."""
    rng = random.Random(seed)
    gone = rng.sample([n for n in range(SIZE) if n != AWAY], round(SIZE * share))
    stayed = [n for n in range(SIZE) if n not in gone and n != AWAY]
    for number in gone:
        for family in families:
            net.handlers.pop(net.endpoint(number, family), None)
        await nodes[number].close()
    known = [net.endpoint(number, family) for number in stayed[:4] for family in families]
    newcomers = [net.node(SIZE + number, families=families) for number in range(len(gone))]
    for newcomer in newcomers:
        await newcomer.start(known)
    await asyncio.sleep(30)
    return [nodes[n] for n in stayed], newcomers


@pytest.mark.parametrize(
    ("families", "share"),
    [
        ({4}, 0.95),
        pytest.param({4, 6}, 0.9, marks=pytest.mark.soak),
        pytest.param({4}, 0.9, marks=pytest.mark.soak),
        pytest.param({6}, 0.9, marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_most_of_its_contacts_are_gone_after_a_week(tmp_path, families, share):
    families = frozenset(families)

    async def scenario():
        net = Network()
        disk = Disk(tmp_path, net)
        first = [net.endpoint(0, family) for family in families]
        nodes = []
        for number in range(SIZE):
            node = net.node(number, families=families)
            await node.start(first if number else [])
            nodes.append(node)
        await asyncio.sleep(60)
        async with disk.state.keeping(nodes[AWAY]):
            disk.contacts.save(nodes[AWAY].contacts())
        before = nodes[AWAY].own.state()
        await nodes[AWAY].close()
        stayed, newcomers = await replace_most(net, nodes, share, families)
        disk.ahead_s = WEEK_S

        remembered = RememberedContacts(tmp_path / "contacts.json", disk.unix_time).load()
        assert len(remembered) <= MAX_CONTACTS
        own = OwnIds(families, net.random.randbytes)  # its address is behind a NAT: only the disk knows it
        back = net.node(AWAY, families=families, own=own, unix_time=disk.unix_time)
        async with disk.state.keeping(back):
            assert back.own.state() == before, "under the id that it had"
            began = asyncio.get_running_loop().time()
            assert await back.start(remembered) >= 1
            assert asyncio.get_running_loop().time() - began < 6.0
            await asyncio.sleep(20)
            assert all(fits(back.own.of(family), net.endpoint(AWAY, family).host) for family in families)
            for family in families:
                here = [e for e in back.contacts() if e.is_ipv6 == (family == 6)]
                assert len(here) >= 12, "more than the eight that a lookup ends with"
            living = [*stayed, *newcomers]
            assert await back.publish(KEY, fake_envelope(KEY, 1, 1, WEEK_S + 3600)) == 8
            for reader in (living[0], living[-1], newcomers[1]):
                assert len(await collect(reader, KEY)) == 1
        await net.close()

    run(scenario())


def test_in_another_place_it_takes_another_id(tmp_path):
    """It was carried elsewhere meanwhile: the others say so, and contacts and stored floors stay."""

    async def scenario():
        net = Network()
        disk = Disk(tmp_path, net)
        nodes = await net.grow(SIZE)
        async with disk.state.keeping(nodes[AWAY]):
            disk.contacts.save(nodes[AWAY].contacts())
        before = nodes[AWAY].node_id
        await nodes[AWAY].close()
        back = net.node(300, own=OwnIds({4}, net.random.randbytes))
        async with disk.state.keeping(back):
            assert back.node_id == before
            await back.start(disk.contacts.load())
            await asyncio.sleep(10)
            assert back.node_id != before and fits(back.node_id, net.endpoint(300).host)
            assert len(back.contacts()) >= 20
        again = net.node(300, own=OwnIds({4}, net.random.randbytes))
        async with disk.state.keeping(again):
            assert again.node_id == back.node_id
        await net.close()

    run(scenario())


def test_the_table_is_filled_again_with_all_that_are_remembered(tmp_path):
    """Not only with the first who answer: two contacts know nobody else, and are found by memory alone."""

    async def scenario():
        net = Network()
        await net.grow(30)
        hermits = [net.node(number) for number in (200, 201)]
        back = net.node(99)
        contacts = RememberedContacts(tmp_path / "contacts.json", lambda: UNIX_START)
        contacts.save([*(net.endpoint(n) for n in range(30)), net.endpoint(200), net.endpoint(201)])
        await back.start(contacts.load())
        await asyncio.sleep(10)
        assert all(back._table.knows(net.endpoint(number)) for number in (200, 201))
        assert len(hermits) == 2
        await net.close()

    run(scenario())
