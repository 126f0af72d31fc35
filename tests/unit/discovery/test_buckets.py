"""Buckets: at most two of a prefix, and nobody who answers is replaced."""

import random

import pytest

from dhtvpn.discovery.buckets import AddressRules, Buckets, K, Standing
from dhtvpn.discovery.contact import Contact
from dhtvpn.endpoint import Endpoint

OWN = bytes(20)
FAR = b"\xf0"


def buckets(k=K, **rules):
    return Buckets(OWN, k, AddressRules(**rules), 0.0)


def standing(host, port=4690, *, first=FAR, heard_at=0.0):
    node_id = first + random.Random(f"{host} {port}").randbytes(19)
    return Standing(Contact(node_id, Endpoint(host, port)), heard_at, 0.01, 0.0)


@pytest.mark.parametrize(
    ("crowd", "elsewhere"),
    [
        ([f"198.18.5.{n}" for n in range(1, 60)], "198.18.6.1"),
        ([f"2001:db8:5:5::{n:x}" for n in range(1, 60)], "2001:db8:5:6::1"),
    ],
)
def test_two_of_a_prefix_in_a_bucket(crowd, elsewhere):
    table = buckets()
    for host in crowd:
        table.add(standing(host))
    assert len(table) == 2
    table.add(standing(elsewhere))
    assert len(table) == 3
    assert not table.wants(standing(crowd[-1]).contact)


def test_two_of_a_prefix_in_each_bucket_and_its_replacements():
    table = buckets()
    for number in range(K):
        table.add(standing(f"198.18.{100 + number}.1"))
    for host in range(1, 30):
        table.add(standing(f"198.18.5.{host}"))
        table.add(standing(f"198.18.5.{host}", first=b"\x00"))
    of_crowd = [s for s in table.everybody() if s.contact.endpoint.host.startswith("198.18.5.")]
    assert len(of_crowd) == 4
    assert len([s for s in table.standings() if s in of_crowd]) == 2, "the far bucket was full before"


def test_a_crowd_takes_a_place_only_when_one_of_it_has_gone():
    table = buckets()
    first, second, third = (standing(f"198.18.5.{n}", heard_at=float(n)) for n in (1, 2, 3))
    table.add(first)
    table.add(second)
    assert table.in_the_way(third.contact) == first.contact, "the one heard longest ago is to be pinged"
    table.add(third)
    assert table.get(third.contact.node_id) is None
    table.remove(first.contact.node_id)
    table.add(third)
    assert table.get(third.contact.node_id) is third


def test_a_newcomer_replaces_nobody_in_a_full_bucket():
    table = buckets(k=3)
    for number in range(3):
        table.add(standing(f"198.18.{number}.1", heard_at=float(9 - number)))
    before = table.standings()
    newcomer = standing("198.18.9.1")
    table.add(newcomer)
    assert table.standings() == before
    assert table.in_the_way(newcomer.contact) == before[-1].contact
    table.remove(before[0].contact.node_id)
    assert newcomer in table.standings(), "the place of one that is gone is the replacement's"


def test_local_addresses_have_a_cap_of_their_own():
    crowd = [standing(f"127.0.0.{n}") for n in range(1, 12)]
    for table, size in ((buckets(), 11), (buckets(local_per_prefix=2), 2)):
        for one in crowd:
            table.add(one)
        assert len(table) == size


@pytest.mark.parametrize("seed", range(5))
def test_what_is_counted_by_prefix_and_by_endpoint_is_what_is_there(seed):
    """After any number of additions, splits, replacements and removals."""
    rng, table = random.Random(seed), buckets(k=4)
    for _ in range(3000):
        if rng.random() < 0.3 and len(table):
            table.remove(rng.choice(table.everybody()).contact.node_id)
        else:
            endpoint = Endpoint(f"198.18.{rng.randrange(80)}.{rng.randrange(1, 9)}", rng.randrange(1, 4))
            contact = Contact(rng.randbytes(20), endpoint)
            if table.id_at(endpoint) is None:
                table.add(Standing(contact, rng.random(), 0.01, 0.0))
        known = {s.contact.node_id: s.contact for s in table.everybody()}
        assert len(known) == len(table)
        assert sorted(i for ids in table._of_prefix.values() for i in ids) == sorted(known)
        assert table._at == {contact.endpoint: i for i, contact in known.items()}
